"""What users of the original Cosmos commands write, and what it is called here: one table.

A name that means exactly one of our settings is understood as it. Every other name is answered with what does its work
here, or why nothing does. ``docs/other_names.md`` shows the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nemo_cosmos.errors import InputError

Values = Mapping[Any, Any] | Callable[[Any], Any]


@dataclass(frozen=True)
class OtherName:
    """A key, or the beginning of keys, of other commands.

    Attributes:
        key: the setting that it stands for; None where none means exactly the same.
        values: what the written values stand for, where they differ: by value, or a function of it.
        answer: where there is no such setting, what to do instead.
    """

    key: str | None = None
    values: Values | None = None
    answer: str = ""


def translate(names: Mapping[str, OtherName], key: str) -> tuple[str, Values | None]:
    """Our name of a written key, and what its values stand for; a key that the table does not have stays as it is.

    Raises:
        InputError: with the table's answer, for a name that no setting of ours stands for.
    """
    written = key
    while written not in names:
        written, dot, _ = written.rpartition(".")
        if not dot:
            return key, None
    name = names[written]
    if name.key is None:
        raise InputError(f"{key} is a name of the original commands: {name.answer}")
    return name.key + key[len(written) :], name.values


def meant(key: str, value: Any, values: Values | None) -> Any:
    """What a written value stands for.

    Raises:
        InputError: the values of this key are named one by one, and it is none of them.
    """
    if values is None:
        return value
    if callable(values):
        return values(value)
    if value not in values:
        raise InputError(f"{key}={value}: expected {' or '.join(map(str, values))}")
    return values[value]


def only_element(value: Any) -> Any:
    """``0.2`` of ``[0.2]``: the schedules of the original have a list with one number for each cycle.

    Raises:
        InputError: a list of another length.
    """
    elements = value
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        elements = [part.strip() for part in value[1:-1].split(",")]
    if not isinstance(elements, list | tuple):
        return value
    if len(elements) != 1:
        raise InputError(f"{value}: there is one warm-up and one cycle here, expected one number")
    return elements[0]


def _same(key: str, values: Values | None = None) -> OtherName:
    return OtherName(key, values)


def _instead(answer: str) -> OtherName:
    return OtherName(answer=answer)


_PREPARED = "it is settled when the dataset is prepared (nemo-cosmos prepare {}); training reads shards"
_ALWAYS = "nothing here reads it; leave it out"
_PRECISIONS = {"bfloat16": "bf16", "float32": "fp32", "bf16": "bf16", "fp32": "fp32"}
_BETAS = _instead("give optimizer.beta1=0.9 and optimizer.beta2=0.99")
_NO_VALIDATION = _instead(
    "a world model is not validated while it trains; nemo-cosmos generate shows what it has learned"
)
_LORA = {"lora": True, "base": False}

SHARED: Mapping[str, OtherName] = {
    # job
    "job.project": _same("project"),
    "job.group": _same("group"),
    "job.name": _same("name"),
    "job.path_local": _same("output_dir"),
    "job.wandb_mode": _instead("metrics go to metrics.jsonl and TensorBoard files in the run folder"),
    "job": _instead("project, group, name and output_dir say where a run lies"),
    # trainer
    "trainer.max_iter": _same("trainer.max_steps"),
    "trainer.logging_iter": _same("trainer.log_every_n_steps"),
    "trainer.seed": _same("seed"),
    "trainer.grad_accum_iter": _instead(
        "gradients are accumulated until a step has data.global_batch samples: data.global_batch = data.micro_batch x "
        "data-parallel processes x accumulation"
    ),
    "trainer.callbacks.grad_clip.clip_norm": _same("optimizer.clip_grad"),
    "trainer.callbacks": _instead("callbacks are not configured; optimizer.clip_grad is the setting of grad_clip"),
    "trainer.distributed_parallelism": _instead(
        "the optimizer state is sharded by parallel.distributed_optimizer=true, the network by parallel.tensor, "
        "parallel.pipeline and parallel.context"
    ),
    "trainer.ddp": _instead(_ALWAYS),
    "trainer.grad_scaler_args": _instead("bf16 needs no scaler; leave it out"),
    "trainer.memory_format": _instead(_ALWAYS),
    "trainer.cudnn": _instead("trainer.deterministic=true chooses kernels that add in a fixed order"),
    "trainer.timeout_period": _instead("the timeout of collectives is the launcher's; leave it out"),
    "trainer.straggler_detection": _instead(_ALWAYS),
    "trainer.profiling": _instead("nemo-cosmos bench measures a step"),
    "trainer.type": _instead(_ALWAYS),
    # checkpoint
    "checkpoint.save_iter": _same("checkpoint.every_n_steps"),
    "checkpoint.load_path": _same("model.init_from"),
    "checkpoint.load_ema_to_reg": _instead("name the averaged weights with model.init_from=.../iter_N_ema_model.pt"),
    "checkpoint.type": _instead(_ALWAYS),
    "checkpoint.dcp_async_mode_enabled": _instead("saving is not asynchronous; leave it out"),
    "checkpoint.broadcast_via_filesystem": _instead(_ALWAYS),
    "checkpoint.save_to_object_store": _instead("saves go to output_dir alone"),
    "checkpoint.load_from_object_store": _instead("weights are read from model.init_from, a local path"),
    "checkpoint.only_load_scheduler_state": _instead("a run is resumed as a whole; leave it out"),
    "checkpoint.keys_not_to_resume": _instead("model.strict_init=false takes weights that do not match"),
    "checkpoint.jit": _instead("nemo-cosmos convert writes exported forms"),
    # data
    "dataloader_train.num_workers": _same("data.num_workers"),
    "dataloader_train.batch_size": _instead(
        "data.micro_batch is the samples of one forward pass of a replica, data.global_batch those of a step over all"
    ),
    "dataloader_train.dataset": _instead(
        "data.path names the data; frames, size, rate and windows are settled by nemo-cosmos prepare "
        "(--frames, --size, --fps, --step, --stride)"
    ),
    "dataloader_train": _instead("see the section data of conf/train.yaml; nothing stands for this one"),
    "dataloader_val": _NO_VALIDATION,
    # optimizer and schedule
    "optimizer.betas": _BETAS,
    "optimizer.fused": _instead(_ALWAYS),
    "optimizer.capturable": _instead(_ALWAYS),
    "optimizer.master_weights": _instead("fp32 master weights are always kept, and saved; leave it out"),
    "optimizer.optim_type": _instead("AdamW is the only optimizer; leave it out"),
    "scheduler.warm_up_steps": _same("optimizer.warmup_steps", only_element),
    "upload_reproducible_setup": _instead("config.yaml in the run folder is what reproduces a run"),
}
"""Of training a world model and of training a tokenizer."""

TRAINING: Mapping[str, OtherName] = {
    **SHARED,
    "diffusion": _same("objective"),
    "data_train": _instead("data.path names the shards, which nemo-cosmos prepare writes"),
    "data_val": _NO_VALIDATION,
    "trainer.run_validation": _NO_VALIDATION,
    "trainer.validation_iter": _NO_VALIDATION,
    "trainer.max_val_iter": _NO_VALIDATION,
    "trainer.cudnn.deterministic": _same("trainer.deterministic"),
    "checkpoint.load_training_state": _instead(
        "weights of model.init_from start a new run; a run goes on by itself where its own output_dir has a save"
    ),
    "checkpoint.strict_resume": _same("model.strict_init"),
    "dataloader_train.shuffle": _same("data.shuffle"),
    "dataloader_train.sampler": _instead("the order is data.shuffle by seed; leave it out"),
    "scheduler.cycle_lengths": _same("optimizer.cycle_steps", only_element),
    "scheduler.f_start": _same("optimizer.warmup_start", only_element),
    "scheduler.f_max": _same("optimizer.f_max", only_element),
    "scheduler.f_min": _same("optimizer.f_min", only_element),
    "scheduler": _instead(
        "the schedule is lambdalinear: optimizer.warmup_steps, warmup_start, f_max, f_min and cycle_steps"
    ),
    # parallel layout
    "model_parallel.tensor_model_parallel_size": _same("parallel.tensor"),
    "model_parallel.pipeline_model_parallel_size": _same("parallel.pipeline"),
    "model_parallel.virtual_pipeline_model_parallel_size": _same("parallel.virtual_pipeline"),
    "model_parallel.context_parallel_size": _same("parallel.context"),
    "model_parallel.sequence_parallel": _same("parallel.sequence"),
    "model.context_parallel_size": _same("parallel.context"),
    "trainer.strategy.tensor_model_parallel_size": _same("parallel.tensor"),
    "trainer.strategy.pipeline_model_parallel_size": _same("parallel.pipeline"),
    "trainer.strategy.context_parallel_size": _same("parallel.context"),
    "trainer.strategy.sequence_parallel": _same("parallel.sequence"),
    # Predict1 model
    "model.ema.enabled": _same("ema.enabled"),
    "model.ema.rate": _same("ema.rate"),
    "model.ema": _instead("one average with the power schedule is kept: ema.enabled and ema.rate"),
    "model.precision": _same("trainer.precision", _PRECISIONS),
    "model.latent_shape": _instead(_PREPARED.format("--frames, --size")),
    "model.vae": _instead(_PREPARED.format("--tokenizer")),
    "model.net": _instead("model.preset names the network, model.overrides={num_layers: 4} changes its fields"),
    "model.fsdp": _instead("parallel.distributed_optimizer=true shards the optimizer state; see docs on layouts"),
    "model.fsdp_enabled": _instead("parallel.distributed_optimizer=true shards the optimizer state"),
    "model.sigma_data": _same("objective.sigma_data"),
    "model.loss_add_logvar": _same("objective.loss_add_logvar"),
    "model.sde.p_mean": _same("objective.p_mean"),
    "model.sde.p_std": _same("objective.p_std"),
    "model.adjust_video_noise": _instead(
        "objective.sigma_multiplier is the factor: the square root of the latent frames"
    ),
    "model.conditioner.text.dropout_rate": _same("objective.text_dropout"),
    "model.conditioner.video_cond_bool.first_random_n_num_condition_t_max": _same("objective.condition.max_frames"),
    "model.conditioner.video_cond_bool.first_random_n_num_condition_t_min": _same("objective.condition.min_frames"),
    "model.conditioner.video_cond_bool.compute_loss_for_condition_region": _same(
        "objective.condition.compute_loss_for_condition_region"
    ),
    "model.conditioner.video_cond_bool.augment_sigma_sample_p_mean": _same("objective.condition.augment_sigma_mean"),
    "model.conditioner.video_cond_bool.augment_sigma_sample_p_std": _same("objective.condition.augment_sigma_std"),
    "model.conditioner.video_cond_bool.augment_sigma_sample_multiplier": _same(
        "objective.condition.augment_sigma_multiplier"
    ),
    "model.conditioner": _instead("objective.text_dropout and objective.condition.* are its settings here"),
    # Predict2 model
    "model.train_architecture": _same("lora.enabled", _LORA),
    "model.config.train_architecture": _same("lora.enabled", _LORA),
    "model.config.lora_rank": _same("lora.rank"),
    "model.config.lora_alpha": _same("lora.alpha"),
    "model.config.lora_target_modules": _instead(
        "lora.targets lists layers by their names in diffusers: [to_q,to_k,to_v]"
    ),
    "model.config.init_lora_weights": _instead("adapters start without effect; leave it out"),
    "model.config.ema.enabled": _same("ema.enabled"),
    "model.config.ema.rate": _same("ema.rate"),
    "model.config.precision": _same("trainer.precision", _PRECISIONS),
    "model.config.high_sigma_ratio": _same("objective.high_sigma_probability"),
    "model.config.adjust_video_noise": _instead(
        "objective.sigma_multiplier is the factor: the square root of the latent frames"
    ),
    "model.config.fsdp_shard_size": _instead("parallel.distributed_optimizer=true shards the optimizer state"),
    "model.config.loss_reduce": _instead("the loss is a mean; leave it out"),
    "model.config.loss_scale": _instead("it is 10, as released; leave it out"),
    "model.config.model_manager_config.dit_path": _same("model.init_from"),
    "model.config.pipe_config.conditioner.text.dropout_rate": _same("objective.text_dropout"),
    "model.config.pipe_config.min_num_conditional_frames": _same("objective.condition.min_frames"),
    "model.config.pipe_config.max_num_conditional_frames": _same("objective.condition.max_frames"),
    "model.config.pipe_config.sigma_conditional": _same("objective.condition.sigma_conditional"),
    "model.config.pipe_config.net": _instead(
        "model.preset names the network, model.overrides={num_layers: 4} changes its fields"
    ),
    "model.config.pipe_config.state_t": _instead(_PREPARED.format("--frames")),
    "model.config.pipe_config.resolution": _instead(_PREPARED.format("--size")),
    "model.config.pipe_config.tokenizer": _instead(_PREPARED.format("--tokenizer")),
    "model.config": _instead("see the sections model, objective, ema and lora of conf/train.yaml"),
    # NeMo's factories
    "optim.config.lr": _same("optimizer.lr"),
    "optim.config.weight_decay": _same("optimizer.weight_decay"),
    "optim": _instead("see the section optimizer of conf/train.yaml"),
    "data.global_batch_size": _same("data.global_batch"),
    "data.micro_batch_size": _same("data.micro_batch"),
    "resume.restore_config.path": _same("model.init_from"),
    "log.log_dir": _same("output_dir"),
    # Groups of the original's configuration
    "net": _instead("model.preset names the network"),
    "vae": _instead(_PREPARED.format("--tokenizer")),
    "conditioner": _instead("objective.text_dropout and objective.condition.* are its settings here"),
    "ckpt_klass": _instead("checkpoints have one format; leave it out"),
    "ckpt_type": _instead("checkpoints have one format; leave it out"),
    "callbacks": _instead("callbacks are not configured; leave it out"),
}
"""Of ``nemo-cosmos train``."""

TOKENIZER: Mapping[str, OtherName] = {
    **{name: other for name, other in SHARED.items() if name != "trainer.logging_iter"},
    "trainer.logging_iter": _same("trainer.log_every_n_steps"),
    "trainer.run_validation": _instead("it is on where data.val names clips"),
    "trainer.validation_iter": _same("validation.every_n_steps"),
    "trainer.max_val_iter": _same("validation.max_clips"),
    "checkpoint.load_training_state": _same("model.load_training_state"),
    "checkpoint.strict_resume": _instead("weights that do not match are an error; leave it out"),
    "model.config.ema.enabled": _same("ema.enabled"),
    "model.config.ema.beta": _same("ema.decay"),
    "model.config.precision": _same("trainer.precision", _PRECISIONS),
    "scheduler": _instead(
        "optimizer.schedule is warmup or warmup_cosine, with warmup_steps, decay_steps and min_ratio"
    ),
    "data_train": _instead("data.train names the videos, data.crop and data.num_frames what is cut from them"),
    "data_val": _instead("data.val names the videos"),
    "network": _instead("model.preset names the tokenizer, model.overrides changes its fields"),
    "metric": _instead("validation reports PSNR and SSIM; leave it out"),
}
"""Of ``nemo-cosmos tokenizer train``."""


EXPERIMENTS: Mapping[str, str] = {
    "video2world_action_bridge_2frames": "networks that are told a robot's actions are not trained here",
}
"""Experiments of the original commands that there are none of here, and why."""

CONFIG_FILES = (
    "cosmos_predict1/diffusion/training/config/config.py",
    "cosmos_predict1/diffusion/training/config/config_multiview.py",
    "cosmos_predict1/tokenizer/training/configs/config.py",
    "cosmos_predict2/configs/base/config.py",
)
"""What the original commands are given as ``--config``."""


def check_config_file(path: str) -> str:
    """What to tell a user who names the Python file of an original command.

    Raises:
        InputError: it is another file, whose settings would not be read.
    """
    if not path.replace("\\", "/").endswith(CONFIG_FILES):
        raise InputError(
            f"--config {path}: settings are not read from files; choose experiment=NAME and give what differs as "
            "key=value (nemo-cosmos experiments show NAME prints all of them)"
        )
    return f"--config {path} is not needed: the settings of every experiment are in conf/"


PAGE = """# Names of the original commands

Overrides that users of Cosmos-Predict1, Cosmos-Predict2 and NeMo's Cosmos recipes know. A name with another one beside
it is understood as that; the others end with the answer shown. `--config=FILE.py` and `--` before the overrides
are taken as they are. `python -m nemo_cosmos.other_names > docs/other_names.md` writes this page.

## nemo-cosmos train

{training}
## nemo-cosmos tokenizer train

{tokenizer}"""


def table(names: Mapping[str, OtherName]) -> str:
    """The table as Markdown: the written name, ours, and what else there is to say."""
    rows = ["| there | here | |", "|---|---|---|"]
    for written, name in sorted(names.items()):
        here = "" if name.key is None else f"`{name.key}`"
        rows.append(f"| `{written}` | {here} | {name.answer or _about(name.values)} |")
    return "\n".join(rows) + "\n"


def _about(values: Values | None) -> str:
    if values is None:
        return ""
    if callable(values):
        return "a list with one number, or the number"
    return ", ".join(
        f"{theirs}: {str(ours).lower() if isinstance(ours, bool) else ours}" for theirs, ours in values.items()
    )


if __name__ == "__main__":
    print(PAGE.format(training=table(TRAINING), tokenizer=table(TOKENIZER)), end="")
