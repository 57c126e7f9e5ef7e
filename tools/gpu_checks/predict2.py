"""Predict2 at 2B: post-training on images, adapters on videos, and a video at full size beside diffusers."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from gpu_checks.commands import Context, kill
from gpu_checks.denoising import Found, Scene, rounding, time_diffusers, time_ours
from gpu_checks.inputs import one_at_a_time, random_shards, released_file, text_encoder
from gpu_checks.machine import GIB, NAN
from gpu_checks.training import Training, common_settings, is_rounded, relative, resume
from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.files import joint_file
from nemo_cosmos.commands.plan import recomputation, workload_of
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.size import network_size
from nemo_cosmos.planning.cost import layer_forward_flops, training_flops
from nemo_cosmos.planning.plan import Plan, make_plans, recommended
from nemo_cosmos.tokenizer_identity import TokenizerIdentity

TIMED, SAVED, LAST = 4, 6, 9
"""Text2Image: time is taken from step 4 on, when everything is compiled; saved after 6, killed after 9."""
LORA_TIMED, LORA_LAST = 2, 4
"""The same of the adapters' run, whose steps take many seconds; it is not saved."""
WAN = TokenizerIdentity("Wan2.1-VAE", "0" * 64, 4, 8, 16)
TEXT_TOKENS = 512
GPU_MEMORY = 80e9
"""That a rehearsal plans for."""


@dataclass(frozen=True)
class Subject:
    """An experiment, its network, and the latent frames of its samples at full size and in a rehearsal."""

    experiment: str
    kind: str
    latent_frames: tuple[int, int]

    def frames(self, context: Context) -> int:
        """Latent frames."""
        return self.latent_frames[context.machine.rehearse]

    def network(self, context: Context) -> DiTConfig:
        """The 2B, or a tiny one."""
        if context.machine.rehearse:
            return DiTConfig.preset(f"tiny-predict2-{self.kind}", num_layers=2, text_width=32)
        return DiTConfig.preset(f"predict2-2b-{self.kind}")

    def weights(self, context: Context) -> Path:
        """Random ones, as a released file."""
        return released_file(context, self.network(context), f"Predict2 2B {self.kind}", f"base_predict2_{self.kind}")

    def latent(self, context: Context) -> tuple[int, int, int]:
        """Frames, height and width of the latent."""
        height, width = (int(side) // WAN.spatial_compression for side in context.size.split("x"))
        return self.frames(context), height, width

    def tokens(self, context: Context) -> int:
        """Of one sample."""
        return self.network(context).token_grid(*self.latent(context)).num_tokens


TEXT2IMAGE = Subject("predict2_text2image_training_2b_cosmos_nemo_assets", "text2image", (1, 1))
LORA = Subject("predict2_video2world_lora_training_2b_cosmos_nemo_assets", "video2world", (24, 3))


def settings_of(context: Context, subject: Subject, batch: int) -> list[str]:
    """Of a run of the experiment as it is shipped, on random weights and latents."""
    config, frames = subject.network(context), subject.frames(context)
    data = random_shards(context, context.work / f"latents_{frames}", WAN, frames, config.text_width)
    settings = [
        f"experiment={subject.experiment}", f"model.init_from={subject.weights(context)}", f"data.path={data}",
        *common_settings(context, SAVED), f"data.micro_batch={batch}", f"data.global_batch={batch}",
        "checkpoint.verify=size",
    ]  # fmt: skip
    if context.machine.rehearse:
        sizes = f"{{num_layers: {config.num_layers}, text_width: {config.text_width}}}"
        settings += [f"model.preset=tiny-predict2-{subject.kind}", f"model.overrides={sizes}", "data.text_length=32"]
    return settings


def plan_of(context: Context, subject: Subject, settings: Sequence[str]) -> Plan:
    """What `nemo-cosmos plan` recommends on one GPU of this machine."""
    config = load_config(TrainConfig, list(settings))
    size, work = workload_of(config, subject.latent(context))
    memory, batch = context.machine.bytes_each or GPU_MEMORY, config.data.global_batch
    plan = recommended(make_plans(size, work, config.parallel, gpus=1, gpu_memory=memory, global_batch=batch), batch)
    assert plan is not None, f"{subject.experiment} fits on no such GPU"
    return plan


def timing_row(
    context: Context, title: str, training: Training, plan: Plan, flops: float, timed: int, last: int, more: str = ""
) -> None:
    """Median seconds of the steps from ``timed`` to ``last``; ``flops`` of one step on one GPU."""
    steps = training.steps()
    records = [steps[step] for step in range(1, last + 1)]
    seconds = statistics.median(record["seconds"] for record in records[timed - 1 :])
    memory, predicted = training.memory(), plan.chosen.total / GIB
    value = f"{seconds:.3f} s a step, {flops / seconds / 1e12:.0f} TFLOP/s, {recomputation(plan)} recomputation; "
    value += f"{more}predicted {plan.seconds:.3f} s, {predicted:.1f} GiB; step 1 took {records[0]['seconds']:.1f} s; "
    value += "losses "
    value += " ".join(f"{record['loss']:.4f}" for record in records)
    finite = all(math.isfinite(record["loss"]) for record in records)
    context.row(title, training.seconds, memory, value, finite)


def predict2_text2image(context: Context, gpus: Sequence[int]) -> None:
    """All weights on images, one and four a step; saved, killed, resumed; the file with both kinds of weights."""
    one, four = (settings_of(context, TEXT2IMAGE, batch) for batch in (1, 4))
    plan, run = plan_of(context, TEXT2IMAGE, one), context.work / "predict2_text2image"
    flops = training_flops(network_size(TEXT2IMAGE.network(context)), TEXT2IMAGE.tokens(context), TEXT_TOKENS)

    def start(name: str, *more: str) -> Training:
        return Training(context, name, run, gpus[:1], [*one, *plan.overrides, *more])

    training = start("text2image")
    training.wait(lambda: bool(training.said("saved ")), "the save")
    training.wait_for_step(LAST)
    kill(training.process)
    uninterrupted, saved = training.losses(), training.said("saved ").split(": ", 1)[-1]
    timing_row(context, "Predict2 2B Text2Image, 1 image", training, plan, flops, TIMED, LAST)
    check_joint_file(context, run, saved)

    resumed = resume(partial(start, "text2image_resumed"), run, SAVED, LAST)
    difference = relative(resumed.losses(), uninterrupted, SAVED, LAST)
    value = f"{resumed.said('resumed ').split(': ')[-1]}; steps {SAVED + 1} to {LAST}: losses differ by "
    value += f"{difference:.1e} from the run that was not interrupted"
    context.row("Predict2 kill -9 and resume", resumed.seconds, resumed.memory(), value, difference < 2e-3)
    # Later steps need the room.
    shutil.rmtree(run)

    plan, run = plan_of(context, TEXT2IMAGE, four), context.work / "predict2_text2image_4"
    training = Training(
        context, "text2image_4", run, gpus[:1], [*four, *plan.overrides, "checkpoint.every_n_steps=1000"]
    )
    training.wait_for_step(LAST)
    kill(training.process)
    timing_row(context, "Predict2 2B Text2Image, 4 images", training, plan, 4 * flops, TIMED, LAST)


def check_joint_file(context: Context, run: Path, saved: str) -> None:
    """Regular weights and average in one file, each of all names; the average loads, and is not the other."""
    start, file = time.time(), joint_file(run / "checkpoints", SAVED)
    tensors = torch.load(file, mmap=True, weights_only=True)
    names = {
        kind: {name.removeprefix(kind) for name in tensors if name.startswith(kind)} for kind in ("net.", "net_ema.")
    }
    same = names["net."] == names["net_ema."] and len(tensors) == 2 * len(names["net."])
    rounded = is_rounded(run, SAVED, file)
    network = load_network(file, weights="ema", dtype=torch.bfloat16, verify_files="size")
    name = "final_layer.linear.weight"
    average = tensors[f"net_ema.{name}"].bfloat16()
    loaded, apart = torch.equal(network.get_parameter(name), average), not torch.equal(tensors[f"net.{name}"], average)
    value = f"{saved}; {file.parent.name}/{file.name}, {file.stat().st_size / 1e9:.2f} GB: "
    value += f"{len(names['net.'])} tensors each under net. and net_ema.: {same}; "
    value += f"regular ones are the main parameters rounded: {rounded}; the average "
    value += f"loads: {loaded}, and differs from them: {apart}"
    context.row("Predict2 joint file", time.time() - start, NAN, value, same and rounded and loaded and apart)


def predict2_lora(context: Context, gpus: Sequence[int]) -> None:
    """Adapters on 93 frames of 720p, as the experiment is shipped but for the recomputation that fits."""
    settings = settings_of(context, LORA, 1)
    plan, run = plan_of(context, LORA, settings), context.work / "predict2_lora"
    training = Training(
        context, "predict2_lora", run, gpus[:1], [*settings, *plan.overrides, "checkpoint.every_n_steps=1000"]
    )
    training.wait_for_step(LORA_LAST)
    kill(training.process)
    size = network_size(LORA.network(context))
    matrices, attention = layer_forward_flops(size, LORA.tokens(context), TEXT_TOKENS)
    # Frozen matrices have no gradient of their own.
    flops = size.num_layers * (2 * matrices + 3 * attention)
    title = f"Predict2 2B Video2World LoRA, {LORA.tokens(context)} tokens"
    timing_row(context, title, training, plan, flops, LORA_TIMED, LORA_LAST)


@one_at_a_time
def wan_vae(context: Context) -> Path:
    """A folder of diffusers' AutoencoderKLWan of the released size with random weights."""
    from diffusers import AutoencoderKLWan

    folder = context.work / "wan_vae"
    if not folder.exists():
        torch.manual_seed(0)
        tiny = {"base_dim": 4, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1} if context.machine.rehearse else {}
        AutoencoderKLWan(**tiny).save_pretrained(folder)
    return folder


def predict2_generation(context: Context, gpus: Sequence[int]) -> None:
    """A video with guidance through the command; then one network and its steps beside diffusers' in one process."""
    generate_video(context, gpus)
    config, weights, rehearse = LORA.network(context), LORA.weights(context), context.machine.rehearse
    device = "cpu" if rehearse else f"cuda:{gpus[0]}"
    scene = Scene(config, weights, wan_vae(context), LORA.latent(context), device, rehearse)
    small = Scene(config, weights, wan_vae(context), (2, 4, 6) if rehearse else (4, 32, 48), device, rehearse)
    start, found = time.time(), rounding(small)
    value = f"one evaluation of {small.tokens} tokens: ours differs from fp32 by {found.ours:.2e}, diffusers by "
    value += f"{found.theirs:.2e}, the two from each other by {found.between:.2e}"
    context.row("Predict2 network in bf16", time.time() - start, NAN, value, found.ours <= 1.5 * found.theirs)

    start, ours = time.time(), time_ours(scene)
    size = network_size(config)
    flops = 2 * size.num_layers * sum(layer_forward_flops(size, scene.tokens, TEXT_TOKENS))
    value = f"{ours.seconds:.2f} s a step with guidance, {flops / ours.seconds / 1e12:.0f} TFLOP/s"
    context.row("Predict2 denoising, ours", time.time() - start, ours.gib, value, math.isfinite(ours.seconds))
    start = time.time()

    def report(form: str, theirs: Found) -> None:
        value = f"{theirs.seconds:.2f} s a step with guidance, 35 steps of these are {35 * theirs.seconds:.0f} s "
        value += f"(extrapolated); ours takes {ours.seconds / theirs.seconds:.3f} times as long"
        ok = math.isfinite(theirs.seconds)
        context.row(f"Predict2 denoising, diffusers {form}", time.time() - start, theirs.gib, value, ok)

    time_diffusers(scene, report)


def generate_video(context: Context, gpus: Sequence[int]) -> None:
    """Seconds of one whole video from its first frame: sampling, decoding, and compilation at the first step."""
    start, output, rehearse = time.time(), context.work / "predict2_video", context.machine.rehearse
    height, width = context.size.split("x")
    picture, steps = context.work / "first_frame.png", 2 if rehearse else 35
    Image.new("RGB", (int(width), int(height)), (200, 30, 30)).save(picture)
    frames = 1 + (LORA.frames(context) - 1) * WAN.temporal_compression
    context.run(
        "predict2_generate",
        ["generate", "--model", str(LORA.weights(context)), "--tokenizer", str(wan_vae(context)), "--text-encoder",
         str(text_encoder(context)), "--input", str(picture), "--prompt", "a red disc", "--output", str(output),
         "--num-frames", str(frames), "--height", height, "--width", width, "--fps", "16", "--num-steps", str(steps),
         "--guidance", "7", "--no-guardrail", "--verify", "size"],
        gpus[:1],
    )  # fmt: skip
    measured = json.loads((output / "output.json").read_text())["measured"]
    value = f"{measured['seconds']:.1f} s for {measured['frames']} frames of {context.size}: {steps} steps with "
    value += f"guidance, {2 * (steps + 1)} evaluations, compilation and decoding"
    whole = measured["frames"] == frames and (output / "output.mp4").stat().st_size > 0
    gib = measured.get("peak_memory_bytes", NAN) / GIB
    context.row("Predict2 2B Video2World, generate", time.time() - start, gib, value, whole)
