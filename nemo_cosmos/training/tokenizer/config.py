"""Settings of `nemo-cosmos tokenizer train`; the commented defaults stand in conf/tokenizer_train.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nemo_cosmos.config import LARGEST_SEED, LARGEST_STEP, MISSING, PREVIOUS, between, choice
from nemo_cosmos.other_names import TOKENIZER, OtherName
from nemo_cosmos.settings import BELOW_ONE


@dataclass
class TokenizerModelConfig:
    """Which tokenizer, and where its weights come from."""

    BUILDS: ClassVar[str] = "nemo_cosmos.models.tokenizer.config:TokenizerConfig"

    preset: str = MISSING
    """CV8x8x8-720p, CV4x8x8-360p, DV8x16x16-720p or DV4x8x8-360p."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Any field of `TokenizerConfig`, for example {channels: 16}."""
    init_from: str | None = None
    """Tokenizer folder, .pt, .safetensors or .jit file to start from; none: random initialisation."""
    load_training_state: bool = False
    """Take optimizer, EMA and step number from `init_from` too (an `iter_*.pt` of this trainer)."""


@dataclass
class TokenizerDataConfig:
    """Clips and how they are cut."""

    train: str = MISSING
    """Glob of video files, or a registered name with an optional resolution such as hdvila_video720."""
    val: str | None = None
    """The same for validation; none: no validation."""
    registry: str | None = None
    """YAML file that maps names to globs; none: the shipped conf/tokenizer/datasets.yaml."""
    num_frames: int = between(1, 2**14, 17)
    """Frames per clip, 1 + k * temporal compression."""
    crop: list[int] = between(8, 2**14, lambda: [256, 256], form=("height", "width"))
    """Height and width of the training crop, pixels; multiples of the spatial compression."""
    resolution: int | None = between(16, 2**14, None)
    """Resize clips to cover this resolution class first (256, 360, 480, 512, 720, 1080); none: native size."""
    native_crop_probability: float = between(0, 1, 0.1)
    """Share of clips cropped at native scale instead of resized, when they are large enough."""
    reverse_probability: float = between(0, 1, 0.5)
    """Share of clips played backwards."""
    flip_probability: float = between(0, 1, 0.5)
    """Share of clips mirrored."""
    micro_batch: int = between(1, 2**20, 1)
    """Clips of one forward pass of one process."""
    global_batch: int = between(1, 2**24, 1)
    """Clips of one optimizer step over all processes; more than micro_batch x processes accumulates gradients."""
    num_workers: int = between(0, 256, 2)
    """Reader processes per training process."""
    allow_change: bool = False
    """A run may be resumed on other videos than it was trained on so far; false refuses that."""


@dataclass
class ScheduleConfig:
    """Piecewise constant weight: values[i] before step boundaries[i], the last value afterwards."""

    enabled: bool = True
    boundaries: list[int] = between(0, LARGEST_STEP, lambda: [0])
    values: list[float] = between(0, 1e9, lambda: [1.0])


@dataclass
class PerceptualConfig:
    """Distance of VGG16 features, and of their Gram matrices."""

    enabled: bool = False
    boundaries: list[int] = between(0, LARGEST_STEP, lambda: [0])
    values: list[float] = between(0, 1e9, lambda: [0.1])
    weights: str = "hub"
    """VGG16 weights: `hub` (timm/vgg16.tv_in1k), a .pth or .safetensors file, or `random` (tests only)."""
    gram: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(enabled=False, boundaries=[500_000], values=[0.0, 0.062])
    )


@dataclass
class FlowConfig:
    """Difference of the optical flow of the clip and of its reconstruction."""

    enabled: bool = False
    boundaries: list[int] = between(0, LARGEST_STEP, lambda: [250_000])
    values: list[float] = between(0, 1e9, lambda: [0.0, 0.01])
    estimator: str = "lucas_kanade"
    """`lucas_kanade` (pyramidal, no weights), `raft` (RAFT-large) or the path of a TorchScript network
    (first, second) -> flow in pixels."""
    weights: str = "hub"
    """raft: `hub` (torchvision's raft_large_C_T_SKHT_V2) or a .pth or .safetensors file."""
    iterations: int = between(1, 1000, 12)
    """raft: refinements of the flow; time and memory of the term grow with them."""
    scale: int = between(1, 64, 2)
    """Frames are made this much smaller before the flow is estimated."""


@dataclass
class ConsistencyConfig:
    """L1 distance between the reconstructions of overlapping windows of a clip."""

    enabled: bool = False
    boundaries: list[int] = between(0, LARGEST_STEP, lambda: [250_000])
    values: list[float] = between(0, 1e9, lambda: [0.0, 0.01])
    num_frames: int = between(1, 2**14, 9)
    """Frames of a window, 1 + k * temporal compression."""
    step: int = between(1, 10**4, 4)
    """Frames between two windows' starts; less than num_frames, so that they overlap."""


@dataclass
class AdversarialConfig:
    """3-D patch discriminator with hinge loss, feature matching and adaptive weight."""

    enabled: bool = False
    boundaries: list[int] = between(0, LARGEST_STEP, lambda: [10_000])
    values: list[float] = between(0, 1e9, lambda: [0.0, 0.1])
    feature_matching: float = between(0, 1e6, 0.0)
    """Weight of the L1 distance of the discriminator's features, relative to the adversarial term."""
    adaptive: bool = True
    """Scale the term so that its gradient at the decoder's last layer is as large as the reconstruction's."""
    channels: int = between(1, 2**13, 64)
    num_layers: int = between(1, 16, 3)
    lr: float = between(0, 10, 1e-4)
    start_step: int = between(0, LARGEST_STEP, 0)
    """First step that trains the discriminator; let it start before the term gets weight."""


@dataclass
class LossConfig:
    """Terms of the training loss; the total is the sum of the weighted ones."""

    color: ScheduleConfig = field(default_factory=ScheduleConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    kl: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(enabled=False, values=[1e-6]))
    video_consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)


@dataclass
class TokenizerOptimizerConfig:
    """AdamW with warm-up."""

    lr: float = between(0, 10, 1e-4)
    beta1: float = between(0, BELOW_ONE, 0.5)
    beta2: float = between(0, BELOW_ONE, 0.999)
    eps: float = between(0, 1, 1e-8)
    weight_decay: float = between(0, 1e3, 0.01)
    clip_grad: float = between(0, 1e12, 1.0)
    """Largest global L2 norm of the gradient; 0 does not clip."""
    schedule: str = choice("warmup", "warmup", "warmup_cosine")
    warmup_steps: int = between(0, LARGEST_STEP, 5000)
    """Steps over which the rate rises from lr / warmup_steps to lr."""
    decay_steps: int = between(1, LARGEST_STEP, 1_000_000)
    """warmup_cosine: step at which the rate reaches min_ratio x lr."""
    min_ratio: float = between(0, 1, 1e-8)


@dataclass
class TokenizerEmaConfig:
    """Exponential moving average of the weights with a constant rate."""

    enabled: bool = True
    decay: float = between(0, BELOW_ONE, 0.9999)


@dataclass
class TokenizerTrainerConfig:
    """Length, precision and memory of the run."""

    max_steps: int = between(1, LARGEST_STEP, 10_000_000)
    precision: str = choice("auto", "auto", "fp32", "bf16")
    """bf16: autocast; weights, optimizer, EMA and loss stay fp32. auto: bf16 on CUDA, fp32 on CPU."""
    device: str = choice("auto", "auto", "cpu", "cuda")
    activation_checkpointing: bool = False
    """Recompute each level, and optical flow, in the backward pass: half the memory, about a fifth more time."""
    compile: bool | None = None
    """torch.compile the blocks of the network, and VGG; None: on CUDA."""
    cuda_graph: bool | None = False
    """Record the passes of a step and replay them: several times faster where a network is so small that starting its
    kernels takes the time; one GPU, and losses that need the network once. None: wherever that can be."""
    deterministic: bool = False
    """Kernels that add in a fixed order: the same step twice gives the same bits on a GPU, more slowly."""
    log_every_n_steps: int = between(1, LARGEST_STEP, 100)
    max_bad_steps: int = between(1, LARGEST_STEP, 3)
    """Steps in a row with a loss or gradients that are not finite, after which the run ends; each is skipped."""


@dataclass
class TokenizerValidationConfig:
    """Held-out reconstruction quality with the regular and the averaged weights."""

    every_n_steps: int = between(1, LARGEST_STEP, 5000)
    max_clips: int = between(1, 10**6, 16)
    at_start: bool = True
    """Validate before the first step of a new run."""
    lpips_weights: str | None = None
    """File of LPIPS' linear heads (vgg.pth); with loss.perceptual.weights the VGG trunk. None: no LPIPS."""
    fvd_network: str | None = None
    """TorchScript network (B, 3, T, H, W) in [-1, 1] -> (B, features) for rFVD; none: no rFVD."""
    video: bool = True
    """Write an input | reconstruction animation to TensorBoard."""


@dataclass
class TokenizerCheckpointConfig:
    """What is saved, and how often."""

    every_n_steps: int = between(1, LARGEST_STEP, 5000)
    keep: int = between(1, 10**6, 3)
    """Newest checkpoints that stay on disk."""
    export_jit: bool = True
    """Write iter_N_enc.jit, _dec.jit and _ema.jit beside each checkpoint."""
    statistics_clips: int = between(0, 10**6, 64)
    """Training clips for the latent statistics of the tokenizer folder written at the end; 0: none."""
    verify: str = choice("auto", "auto", "full", "size")
    """The save that a run goes on from, compared with its checksum: full reads it, size compares the size."""


@dataclass
class TokenizerTrainConfig:
    """Everything `nemo-cosmos tokenizer train` reads."""

    OTHER_NAMES: ClassVar[Mapping[str, OtherName]] = TOKENIZER
    """What users of the original command write."""

    experiment: str = MISSING
    """Chosen with `experiment=NAME`, a file of conf/experiment/tokenizer_train."""
    project: str = "posttraining"
    group: str = "tokenizer"
    name: str = "${experiment}"
    output_dir: str = "${oc.env:OUTPUT_ROOT,checkpoints}/${project}/${group}/${name}"
    seed: int = between(0, LARGEST_SEED, 1234)
    resume: bool | str = choice(True, True, False, PREVIOUS)
    """Continue from the newest checkpoint in output_dir; false with one present is an error; previous takes the one
    before where the newest is damaged."""
    model: TokenizerModelConfig = field(default_factory=TokenizerModelConfig)
    data: TokenizerDataConfig = field(default_factory=TokenizerDataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: TokenizerOptimizerConfig = field(default_factory=TokenizerOptimizerConfig)
    ema: TokenizerEmaConfig = field(default_factory=TokenizerEmaConfig)
    trainer: TokenizerTrainerConfig = field(default_factory=TokenizerTrainerConfig)
    validation: TokenizerValidationConfig = field(default_factory=TokenizerValidationConfig)
    checkpoint: TokenizerCheckpointConfig = field(default_factory=TokenizerCheckpointConfig)
