"""Camera control at 7B: adapters and patch embedding on 57 frames with rays; saved, killed, resumed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial

from gpu_checks.commands import Context, kill
from gpu_checks.inputs import random_shards, released_file
from gpu_checks.training import Training, common_settings, relative, resume
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.size import network_size
from nemo_cosmos.planning.cost import layer_forward_flops
from nemo_cosmos.tokenizer_identity import TokenizerIdentity

EXPERIMENT = "camera_control_7b_dl3dv_lora"
TOKENIZER = TokenizerIdentity("CV8x8x8-720p", "0" * 64, 8, 8, 16)
TIMED, SAVED, LAST = 3, 4, 6
"""Time is taken from step 3 on; saved after 4, killed after 6. Steps take many seconds."""
TEXT_TOKENS = 512


def networks(context: Context) -> tuple[DiTConfig, DiTConfig]:
    """That of the weights, without rays, and the one that is trained."""
    if context.machine.rehearse:
        sizes = {"num_layers": 2, "text_width": 32, "max_frames": 16}
        return DiTConfig.preset("tiny-video2world", **sizes), DiTConfig.preset("tiny-video2world-camera", **sizes)
    return DiTConfig.preset("predict1-7b-video2world"), DiTConfig.preset("predict1-7b-video2world-camera")


def camera(context: Context, gpus: Sequence[int]) -> None:
    """The shipped LoRA experiment beside the whole frozen 7B, from weights without rays, on one sample a step."""
    base, config = networks(context)
    frames = 2 if context.machine.rehearse else 8
    data = random_shards(context, context.work / "latents_with_rays", TOKENIZER, frames, config.text_width, rays=True)
    weights = released_file(context, base, f"{base.num_layers} layers without rays", "base_camera")
    settings = [
        f"experiment={EXPERIMENT}", f"model.init_from={weights}", f"data.path={data}",
        *common_settings(context, SAVED), "checkpoint.verify=size",
    ]  # fmt: skip
    if context.machine.rehearse:
        sizes = (
            f"{{num_layers: {config.num_layers}, text_width: {config.text_width}, max_frames: {config.max_frames}}}"
        )
        settings += ["model.preset=tiny-video2world-camera", f"model.overrides={sizes}", "data.text_length=32"]
    run = context.work / "camera"

    def start(name: str, *more: str) -> Training:
        return Training(context, name, run, gpus[:1], [*settings, *more])

    training = start("camera")
    training.wait(lambda: bool(training.said("saved ")), "the save")
    training.wait_for_step(LAST)
    kill(training.process)
    uninterrupted, steps = training.losses(), training.steps()
    seconds = statistics.median(steps[step]["seconds"] for step in range(TIMED, SAVED + 1))
    height, width = (int(side) // 8 for side in context.size.split("x"))
    tokens = config.token_grid(frames, height, width).num_tokens
    size = network_size(config)
    matrices, attention = layer_forward_flops(size, tokens, TEXT_TOKENS)
    # Frozen matrices have no gradient of their own.
    flops = size.num_layers * (2 * matrices + 3 * attention)
    grown = " ".join(context.log("camera").read_text(errors="replace").split())
    zero = "of plucker are zero" in grown
    value = f"{seconds:.2f} s a step of {tokens} tokens, {flops / seconds / 1e12:.0f} TFLOP/s; "
    value += f"{training.said('saved ').split(': ', 1)[-1]}; began with zero columns for the rays: {zero}; losses "
    value += " ".join(f"{loss:.4f}" for loss in uninterrupted.values())
    finite = all(math.isfinite(loss) for loss in uninterrupted.values())
    context.row("camera control LoRA, 7B", training.seconds, training.memory(), value, finite and zero)

    resumed = resume(partial(start, "camera_resumed"), run, SAVED, LAST)
    difference = relative(resumed.losses(), uninterrupted, SAVED, LAST)
    value = f"{resumed.said('resumed ').split(': ')[-1]}; steps {SAVED + 1} to {LAST}: losses differ by "
    value += f"{difference:.1e} from the run that was not interrupted"
    context.row("camera control kill -9 and resume", resumed.seconds, resumed.memory(), value, difference < 2e-3)
