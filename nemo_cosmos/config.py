"""The configuration of training: one dataclass per section of `conf/train.yaml`.

Sections and their keys are what a user may override on the command line; `load_config` builds them from the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nemo_cosmos.compose import (
    conf_folder,
    dump_config,
    experiment_file,
    experiment_names,
    load_config,
    read_config,
)
from nemo_cosmos.other_names import TRAINING, OtherName
from nemo_cosmos.settings import ABOVE_ZERO, BELOW_ONE
from nemo_cosmos.typed import LARGEST

__all__ = [
    "MISSING",
    "PREVIOUS",
    "CheckpointConfig",
    "ConditionConfig",
    "DataConfig",
    "EmaConfig",
    "LoraConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "TrainConfig",
    "TrainerConfig",
    "conf_folder",
    "dump_config",
    "experiment_file",
    "experiment_names",
    "load_config",
    "read_config",
]

MISSING: Any = "???"
"""OmegaConf's mark of a value that the user must give."""


PREVIOUS = "previous"


def choice(default: str | bool, *choices: str | bool) -> Any:
    return field(default=default, metadata={"choices": choices})


def at_least(minimum: float, default: Any, maximum: float | None = None) -> Any:
    """A number from ``minimum`` to ``maximum``, both allowed; of a list, every element."""
    return between(minimum, LARGEST if maximum is None else maximum, default)


def between(minimum: float, maximum: float, default: Any, **of_list: Any) -> Any:
    """:func:`at_least` with the default last, which a list gives as a function.

    Args:
        of_list: ``form=("height", "width")``, for lists of so many values.
    """
    kind: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    return field(**kind, metadata={"minimum": minimum, "maximum": maximum, **of_list})


LARGEST_SEED = 2**32 - 1
LARGEST_STEP = 10**15


@dataclass
class ModelConfig:
    """Which network, and where its weights come from."""

    BUILDS: ClassVar[str] = "nemo_cosmos.models.dit.config:DiTConfig"

    preset: str = MISSING
    """Name of a preset of `DiTConfig.preset`."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Any field of `DiTConfig`, for example `num_layers`."""
    init_from: str | None = None
    """Released `.pt` file or run folder to start from; none: random initialisation."""
    init_lora_alpha: float | None = between(0, 10**9, None)
    """Of adapters within the file `init_from`, which are merged; none: their rank."""
    init_new_views: bool = False
    """`overrides.num_views` is more than `init_from` has: its views come first, the others start anew."""
    strict_init: bool = True
    """Missing or unexpected tensors in `init_from` are an error; false reports them and goes on."""
    rope_table_dtype: str = choice("fp32", "fp32", "bf16")
    """Precision of the rotary tables; bf16 reproduces the tables of the released code."""


@dataclass
class ConditionConfig:
    """Conditioning of Video2World on the first latent frames; networks without a condition mask do not read it."""

    min_frames: int = between(0, 10**4, 0)
    """Fewest conditioned latent frames, drawn uniformly per sample."""
    max_frames: int = between(0, 10**4, 2)
    """Most conditioned latent frames, inclusive."""
    compute_loss_for_condition_region: bool = False
    """False: conditioned frames count with zero error."""
    augment_sigma_mean: float = between(-20, 20, -3.0)
    """edm: mean of ln sigma of the noise added to the conditioned frames."""
    augment_sigma_std: float = between(0, 20, 2.0)
    """edm: standard deviation of ln sigma of that noise."""
    augment_sigma_multiplier: float = between(0, 1e4, 1.0)
    """edm: factor on that sigma."""
    sigma_conditional: float = between(ABOVE_ZERO, 1e4, 1e-4)
    """rectified_flow: noise level that conditioned frames are said to have."""


@dataclass
class ObjectiveConfig:
    """Noise levels and loss; which objective it is belongs to the network (`conf/objective/NAME.yaml`)."""

    name: str = choice("edm", "edm", "rectified_flow")
    """That of the network's preset; it is named so that settings of another one are noticed."""
    p_mean: float = between(-20, 20, 0.0)
    """Mean of ln sigma."""
    p_std: float = between(0, 20, 1.0)
    """Standard deviation of ln sigma."""
    sigma_multiplier: float = between(ABOVE_ZERO, 1e4, 1.0)
    """Factor on sigma: the square root of the latent frames in most recipes, 1 for images and Text2World."""
    high_sigma_probability: float = between(0, 1, 0.0)
    """Share of samples whose sigma is drawn log-uniformly from `high_sigma_range` instead."""
    high_sigma_range: list[float] = between(ABOVE_ZERO, 1e9, lambda: [200.0, 100_000.0])
    """Lowest and highest sigma of that share."""
    text_dropout: float = between(0, 1, 0.2)
    """Probability of training a sample without its caption."""
    sigma_data: float = between(ABOVE_ZERO, 1e4, 0.5)
    """edm: standard deviation of the latents as the network sees them."""
    loss_add_logvar: bool = True
    """edm: weigh the loss with the learned log-variance head; the loss can become negative."""
    condition: ConditionConfig = field(default_factory=ConditionConfig)


@dataclass
class DataConfig:
    """The training samples and how they are batched."""

    path: str = MISSING
    """With `mode: cached` a folder of shards written by `prepare`; with `mode: online` videos and captions as
    `prepare` reads them: a folder or a `.jsonl` file."""
    micro_batch: int = between(1, 2**20, 1)
    """Samples of one forward pass of one data-parallel replica."""
    global_batch: int = between(1, 2**24, 1)
    """Samples of one optimizer step over all replicas."""
    num_workers: int = between(0, 256, 2)
    """Reader processes per training process."""
    text_length: int = between(1, 2**16, 512)
    """Text tokens of a sample; shorter captions are padded with zeros."""
    shuffle: bool = True
    """Another order every epoch, by `seed`."""
    packing: bool = False
    """Samples of several shapes: false gives each step samples of one shape; true packs a micro batch, whatever the
    shapes, into one sequence in which each sample attends to itself alone, and every sample weighs alike."""
    view_dropout: float = between(0, 1, 0.0)
    """Networks of several views: probability of a step that sees a random part of the views of each sample."""
    verify: str = choice("auto", "auto", "full", "size")
    """Shard verification at start: `full` hashes, `size` compares sizes, `auto` chooses by amount of data."""
    allow_change: bool = False
    """A run may be resumed on other samples than it was trained on so far; false refuses that."""
    tokenizer: str | None = None
    """Name of the tokenizer that the latents must come from; none: any."""
    mode: str = choice("cached", "cached", "online")
    """`cached` reads shards; `online` encodes videos during training (slow, for small tests)."""
    tokenizer_path: str | None = None
    """Online only: the video tokenizer, a folder or Wan's tokenizer.pth."""
    text_encoder: str | None = None
    """Online only: T5 folder or repository that embeds the captions; none: the pickles in `path`/t5_xxl."""
    camera_frames: str = choice("last", "first", "middle", "last", "mean")
    """Of networks with camera rays: which pixel frame's rays a latent frame is given, of those that it stands for."""
    repair_poses: bool = False
    """Folders of eight files only: a sample of 56 ray maps for 57 frames, as the original tool writes for a chunk at
    the end of a scene, is read with its first map doubled; false refuses it."""
    num_frames: int | None = between(1, 2**14, None)
    """Online only: pixel frames of a sample, taken from the beginning of each clip."""
    size: list[int] | None = between(8, 2**14, None, form=("height", "width"))
    """Online only: height and width in pixels that clips are scaled and cropped to."""


@dataclass
class OptimizerConfig:
    """AdamW, gradient clipping and the warm-up/linear schedule."""

    lr: float = between(0, 10, 2**-14.3)
    """Peak learning rate."""
    weight_decay: float = between(0, 1e3, 0.1)
    """Decoupled decay of every parameter."""
    beta1: float = between(0, BELOW_ONE, 0.9)
    beta2: float = between(0, BELOW_ONE, 0.99)
    eps: float = between(0, 1, 1e-10)
    clip_grad: float = between(0, 1e12, 1.0)
    """Largest global L2 norm of the gradient; 0 does not clip."""
    warmup_steps: int = between(0, LARGEST_STEP, 2500)
    """Steps over which the rate rises from `warmup_start` to `f_max`."""
    warmup_start: float = between(0, 1, 1e-6)
    """Fraction of `lr` at step 0."""
    f_max: float = between(0, 1e3, 1.0)
    """Fraction of `lr` at the end of the warm-up."""
    f_min: float = between(0, 1e3, 1.0)
    """Fraction of `lr` at step `cycle_steps`, reached linearly."""
    cycle_steps: int = between(1, LARGEST_STEP, 10**13)
    """Step at which `f_min` is reached."""


@dataclass
class EmaConfig:
    """Exponential moving average of the weights with the power schedule."""

    enabled: bool = True
    rate: float = between(ABOVE_ZERO, 1, 0.1)
    """Width of the average relative to the number of steps so far."""


@dataclass
class TrainerConfig:
    """Length, processes and precision of the run."""

    max_steps: int = between(1, LARGEST_STEP, 2000)
    """Optimizer steps, counted from the very first start of the run."""
    devices: int | None = between(1, 2**16, None)
    """Processes per node; `nemo-cosmos train` starts them where no launcher did. None: as many as were started."""
    num_nodes: int | None = between(1, 2**16, None)
    """Nodes; none: as many as the launcher started."""
    precision: str = choice("bf16", "fp32", "bf16")
    """Precision of the network; optimizer, EMA and loss stay in fp32."""
    deterministic: bool = False
    """Only kernels that add in a fixed order: on GPUs too, a run resumed in the same layout equals an uninterrupted
    one bit for bit. Slower: flash attention instead of cuDNN's."""
    log_every_n_steps: int = between(1, LARGEST_STEP, 1)
    """Steps between two lines of `metrics.jsonl`."""
    max_bad_steps: int = between(1, LARGEST_STEP, 3)
    """Steps in a row with a loss or gradients that are not finite, after which the run ends; each is skipped."""


@dataclass
class ParallelConfig:
    """How the network and a sample are spread over processes; never changes the result."""

    tensor: int = between(1, 2**16, 1)
    """Tensor-parallel size; divides the attention heads."""
    sequence: bool = False
    """Sequence parallelism of the parts between the tensor-parallel ones."""
    pipeline: int = between(1, 2**16, 1)
    """Pipeline stages."""
    virtual_pipeline: int | None = between(1, 2**12, None)
    """Interleaved chunks per stage; none: plain schedule."""
    context: int = between(1, 2**16, 1)
    """Context-parallel size: processes that share the tokens of one sample."""
    context_backend: str = choice("auto", "auto", "all_to_all", "all_gather", "transformer_engine")
    distributed_optimizer: bool = True
    """Optimizer state sharded over the data-parallel processes."""
    recompute: str = choice("none", "none", "selective", "full")
    """Activations computed again in the backward pass instead of kept."""
    recompute_layers: int | None = between(1, 2**12, None)
    """With `recompute: full`, the number of layers per stage it applies to; none: all."""


@dataclass
class CheckpointConfig:
    """What is saved, and how often."""

    every_n_steps: int = between(1, LARGEST_STEP, 200)
    keep: int = between(1, 10**6, 3)
    """Newest distributed checkpoints that stay on disk."""
    export: bool = True
    """Write regular and EMA weights in the released `.pt` key layout beside each save."""
    export_layout: str = choice("separate", "separate", "joint")
    """`separate`: `iter_N_reg_model.pt` and `iter_N_ema_model.pt`; `joint`: both in `model/iter_N.pt`, the average
    under `net_ema.`, as the commands of Cosmos-Predict2 save and read them."""
    verify: str = choice("auto", "auto", "full", "size")
    """What a run starts from, compared with its checksums: `full` reads all, `size` compares sizes, `auto` reads up to
    64 GiB a process."""


@dataclass
class LoraConfig:
    """Low-rank adapters instead of training every weight."""

    enabled: bool = False
    rank: int = between(1, 2**16, 8)
    alpha: float = between(0, 1e6, 8.0)
    """Adapters are scaled by alpha / rank."""
    targets: list[str] = field(
        default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
    )
    """Linear layers with adapters, by their names in diffusers' Cosmos transformer."""
    also_train: list[str] = field(default_factory=list)
    """Parts whose weights are all trained beside the adapters, and kept with them: `patch_embedding`,
    `time_embedding`, `final_layer`. New input channels, such as camera rays, need the first."""


@dataclass
class TrainConfig:
    """Everything `nemo-cosmos train` reads; `conf/train.yaml` is its commented form."""

    OTHER_NAMES: ClassVar[Mapping[str, OtherName]] = TRAINING
    """What users of the original commands, and of earlier versions of this one, write."""

    experiment: str = MISSING
    """Chosen with `experiment=NAME`, a file of `conf/experiment`."""
    project: str = "posttraining"
    group: str = MISSING
    name: str = "${experiment}"
    output_dir: str = "${oc.env:OUTPUT_ROOT,checkpoints}/${project}/${group}/${name}"
    seed: int = between(0, LARGEST_SEED, 0)
    """Keys the initialisation, the sample order and, with the sample position, all noise."""
    resume: bool | str = choice(True, True, False, PREVIOUS)
    """Continue from the newest checkpoint in `output_dir`; false with one present is an error; `previous` takes the
    one before where the newest is damaged."""
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
