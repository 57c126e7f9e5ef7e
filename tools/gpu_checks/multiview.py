"""Predict2 2B Multiview: whole training steps beside the times of NVIDIA's guide, a kill, a resumed run, adapters."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gpu_checks.attention import kernel_name
from gpu_checks.commands import Context, kill
from gpu_checks.inputs import random_shards, released_file
from gpu_checks.predict2 import GPU_MEMORY, WAN, timing_row
from gpu_checks.training import Training, common_settings, relative, resume
from nemo_cosmos.commands.plan import workload_of
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.size import network_size
from nemo_cosmos.planning.cost import layer_forward_flops, training_flops
from nemo_cosmos.planning.plan import Plan, make_plans

TIMED, LAST = 2, 4
"""Time is taken from step 2 on, when everything is compiled."""
SAVED, KILLED = 3, 5
EXPERIMENT = "predict2_multiview_{kind}_2b_{size}_10fps_7views_29frames_waymo5views"
TEXT_TOKENS = 512


@dataclass(frozen=True)
class Case:
    """Samples of 29 frames a camera, and what NVIDIA's guide says of them on eight H100 NVL.

    Attributes:
        name: of the experiment's size.
        rig: view ids.
        pixels: height and width.
        guide: GPU-seconds of a step there: eight times its seconds.
    """

    name: str
    rig: tuple[int, ...]
    pixels: tuple[int, int]
    guide: float

    def __str__(self) -> str:
        return f"Predict2 2B Multiview, {self.name}, {len(self.rig)} views"

    def frames(self, context: Context) -> int:
        """Latent frames of one view."""
        return 2 if context.machine.rehearse else 8

    def size(self, context: Context) -> tuple[int, int]:
        """Height and width in pixels."""
        return (32, 48) if context.machine.rehearse else self.pixels

    def latent(self, context: Context) -> tuple[int, int, int]:
        """Frames of all views, height and width."""
        height, width = (side // WAN.spatial_compression for side in self.size(context))
        return len(self.rig) * self.frames(context), height, width

    def settings(self, context: Context, kind: str = "training") -> list[str]:
        """Of a run of the experiment as it is shipped, on random weights and latents."""
        config, frames = network(context), self.frames(context)
        folder = context.work / f"latents_{self.name}_{len(self.rig)}"
        data = random_shards(
            context, folder, WAN, frames, config.text_width, size=self.size(context), rig=self.rig, fps=10.0
        )
        weights = released_file(context, config, "Predict2 2B multiview", "base_predict2_multiview")
        settings = [
            f"experiment={EXPERIMENT.format(kind=kind, size=self.name)}", f"model.init_from={weights}",
            f"data.path={data}", *common_settings(context, SAVED), "checkpoint.verify=size",
        ]  # fmt: skip
        if context.machine.rehearse:
            sizes = f"{{num_layers: {config.num_layers}, text_width: {config.text_width}}}"
            settings += ["model.preset=tiny-predict2-multiview", f"model.overrides={sizes}", "data.text_length=32"]
        return settings

    def flops(self, context: Context, *, adapters: bool = False) -> float:
        """Of one step; with adapters the frozen matrices have no gradient of their own."""
        config, views = network(context), len(self.rig)
        size, tokens = network_size(config), config.token_grid(*self.latent(context)).num_tokens
        if not adapters:
            return training_flops(size, tokens, views * TEXT_TOKENS, views)
        matrices, attention = layer_forward_flops(size, tokens, views * TEXT_TOKENS, views)
        return size.num_layers * (2 * matrices + 3 * attention)


SEVEN = Case("720p", tuple(range(7)), (704, 1280), 8 * 8.9)
FIVE = Case("480p", (4, 5, 0, 1, 2), (480, 848), 8 * 3.5)


def network(context: Context) -> DiTConfig:
    """The 2B, or a tiny one."""
    if context.machine.rehearse:
        return DiTConfig.preset("tiny-predict2-multiview", num_layers=2, text_width=32)
    return DiTConfig.preset("predict2-2b-multiview")


def plan_of(context: Context, case: Case, settings: Sequence[str], gpus: int) -> Plan | None:
    """The fastest that fits where the GPUs share each sample by context parallelism; None where none does."""
    config = load_config(TrainConfig, list(settings))
    size, work = workload_of(config, case.latent(context), len(case.rig))
    memory = context.machine.bytes_each or GPU_MEMORY
    plans = make_plans(size, work, config.parallel, gpus=gpus, gpu_memory=memory, global_batch=1)
    return next((plan for plan in plans if plan.fits and plan.layout.context == gpus), None)


def multiview(context: Context, gpus: Sequence[int]) -> None:
    """Seven views of 720p where attention need not be computed again, five of 480p on two GPUs; adapters."""
    seven_views(context, gpus)
    # In a rehearsal processes take long to start.
    some = gpus[:1] if context.machine.rehearse else gpus[:2]
    post_training(context, some)
    adapters(context, some)


def seven_views(context: Context, gpus: Sequence[int]) -> None:
    """Seven views of 720p on all GPUs, without a save; nothing where attention would be computed again."""
    settings = SEVEN.settings(context)
    plan = plan_of(context, SEVEN, settings, len(gpus))
    if plan is not None and plan.parallel.recompute != "full":
        run = context.work / "multiview_720p"
        training = Training(
            context, "multiview_720p", run, gpus, [*settings, *plan.overrides, "checkpoint.every_n_steps=1000"]
        )
        training.wait_for_step(LAST)
        kill(training.process)
        report(context, SEVEN, training, plan, SEVEN.flops(context), len(gpus))
        shutil.rmtree(run)


def report(context: Context, case: Case, training: Training, plan: Plan, flops: float, gpus: int) -> None:
    """Seconds, memory and speed of a GPU, beside the guide's."""
    seconds = statistics.median(training.steps()[step]["seconds"] for step in range(TIMED, LAST + 1))
    attention = kernel_name("cpu" if context.machine.rehearse else "cuda:0", context.machine.rehearse)
    more = f"{gpus} GPUs, {attention}, {case.guide / (seconds * gpus):.2f} times the guide's speed of a GPU; "
    timing_row(context, str(case), training, plan, flops / gpus, TIMED, LAST, more=more)


def post_training(context: Context, gpus: Sequence[int]) -> None:
    """Saved, killed, resumed."""
    settings, run = FIVE.settings(context), context.work / "multiview_480p"
    plan = plan_of(context, FIVE, settings, len(gpus))
    assert plan is not None, f"{FIVE} fits on no such GPU"

    def start(name: str, *more: str) -> Training:
        return Training(context, name, run, gpus, [*settings, *plan.overrides, *more])

    training = start("multiview_480p")
    training.wait(lambda: bool(training.said("saved ")), "the save")
    training.wait_for_step(KILLED)
    kill(training.process)
    uninterrupted = training.losses()
    report(context, FIVE, training, plan, FIVE.flops(context), len(gpus))
    resumed = resume(partial(start, "multiview_resumed"), run, SAVED, KILLED)
    difference = relative(resumed.losses(), uninterrupted, SAVED, KILLED)
    value = f"{resumed.said('resumed ').split(': ')[-1]}; steps {SAVED + 1} to {KILLED}: losses differ by "
    value += f"{difference:.1e} from the run that was not interrupted"
    context.row("Multiview kill -9 and resume", resumed.seconds, resumed.memory(), value, difference < 2e-3)
    shutil.rmtree(run)


def adapters(context: Context, gpus: Sequence[int]) -> None:
    """Adapters of the shipped experiment, without a save."""
    settings, run = FIVE.settings(context, "lora_training"), context.work / "multiview_lora"
    plan = plan_of(context, FIVE, settings, len(gpus))
    assert plan is not None, f"adapters of {FIVE} fit on no such GPU"
    training = Training(
        context, "multiview_lora", run, gpus, [*settings, *plan.overrides, "checkpoint.every_n_steps=1000"]
    )
    training.wait_for_step(LAST)
    kill(training.process)
    flops = FIVE.flops(context, adapters=True) / len(gpus)
    timing_row(context, f"{FIVE}, LoRA", training, plan, flops, TIMED, LAST, more=f"{len(gpus)} GPUs; ")
