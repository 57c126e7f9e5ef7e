"""The steps beside post-training: preparation, adapters, generation, the tokenizer."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from gpu_checks.commands import Context
from gpu_checks.inputs import base, clips, text_encoder, tokenizer
from gpu_checks.machine import GIB, NAN
from gpu_checks.training import FULL, train

WHOLE = 28
"""Layers of the 7B."""


def prepare(context: Context, gpus: Sequence[int]) -> None:
    source = clips(context)
    options = ["--frames", str(context.frames), "--size", context.size, "--text-encoder", str(text_encoder(context))]
    # Steps that run beside this one take the folder when it is whole.
    folder, start = context.work / "shards_in_the_making", time.time()
    output = context.run(
        "prepare", ["prepare", str(source), str(folder), "--tokenizer", str(tokenizer(context)), *options], gpus[:1]
    )
    busy, gib = context.monitor.since(start, gpus[:1])
    line = next(line for line in output.splitlines() if line.startswith("prepared"))
    context.run("validate", ["validate", str(folder)], gpus[:1])
    folder.rename(context.work / "shards")
    context.row("prepare", time.time() - start, gib, f"{line}; GPU busy {busy:.0%} of the time", True)


def adapters(context: Context, gpus: Sequence[int]) -> None:
    """The shipped LoRA experiment beside the whole frozen network: trained, saved, merged, generated from."""
    run, start = context.work / "adapters", time.time()
    weights = base(context, WHOLE)
    # A high rate, so that two steps show.
    settings = ["lora=all_linear", "optimizer.lr=0.01", "trainer.max_steps=2", "checkpoint.every_n_steps=2"]
    shape = ("--height", "32", "--width", "48") if context.machine.rehearse else ("--height", "256", "--width", "256")
    options = (*shape, "--num-frames", "9", "--chunk-frames", "9")
    # Where there is a second GPU, the base generates there in the meantime.
    with ThreadPoolExecutor(1) as pool:
        beside = len(gpus) > 1 and pool.submit(generate, context, "adapters_base", weights, gpus[-1:], *options)
        training = train(context, "adapters", run, gpus[:1], *settings, experiment=f"{FULL}_lora", layers=WHOLE)
        training.wait(lambda: training.process.poll() is not None and bool(training.said("saved ")), "its end")
        merged, _ = generate(context, "adapters_merged", run, gpus[:1], *options)
        plain, _ = beside.result() if beside else generate(context, "adapters_base", weights, gpus[:1], *options)
    difference = (merged - plain).abs().mean().item()
    value = f"{training.steps()[2]['seconds']:.1f} s a step; {training.said('saved ').split(': ', 1)[-1]}; "
    value += f"generated with merged adapters differs by {difference:.1f} levels"
    context.row("LoRA, 28 layers, one GPU", time.time() - start, training.memory(), value, difference > 0.1)


def generate(
    context: Context, name: str, model: Path, gpus: Sequence[int], *options: str, steps: int = 2
) -> tuple[Tensor, dict[str, float]]:
    """(frames, what the command measured) of the second of two videos: the first compiles."""
    from nemo_cosmos.data.video import read_frames

    output = context.work / "videos" / name
    batch = context.work / f"{name}.jsonl"
    batch.write_text("".join(json.dumps({"name": n, "prompt": "a red disc"}) + "\n" for n in ("first", "second")))
    arguments = ["--model", str(model), "--text-encoder", str(text_encoder(context)), "--no-guardrail", "--crf", "0"]
    arguments += ["--tokenizer", str(tokenizer(context)), "--output", str(output), "--batch", str(batch)]
    context.run(f"generate_{name}", ["generate", *arguments, "--num-steps", str(steps), *options], gpus)
    measured = json.loads((output / "second.json").read_text())["measured"]
    return read_frames(output / "second.mp4").float(), measured


def generation(context: Context, gpus: Sequence[int]) -> None:
    """The exported average at full size; alone and, where there are two GPUs, on both."""
    files = sorted((context.work / "run" / "checkpoints").glob("*_ema_model.pt"))
    files += sorted((context.work / "run" / "checkpoints").glob("*_reg_model.pt"))
    model = files[0] if files else base(context, WHOLE)
    shape = ["--height", "32", "--width", "48", "--num-frames", "9"] if context.machine.rehearse else []
    jobs = {"one": gpus[:1]} if len(gpus) == 1 else {"one": gpus[:1], "two": gpus[-2:]}
    start, steps = time.time(), 2
    # With three GPUs or more both run at once.
    with ThreadPoolExecutor(2 if len(gpus) > 2 else 1) as pool:
        calls = {
            name: pool.submit(generate, context, name, model, on, *shape, steps=steps) for name, on in jobs.items()
        }
        found = {name: call.result() for name, call in calls.items()}
    frames, measured = found["one"]
    value = f"{model.name}: {measured['seconds'] / steps:.2f} s a denoising step with its share of decoding, "
    gib = measured.get("peak_memory_bytes", NAN) / GIB
    value += f"{len(frames[0])} frames, spread {frames.std():.1f}"
    context.row("generate", time.time() - start, gib, value, bool(frames.std() > 1))
    if "two" in found:
        difference = (found["two"][0] - frames).abs().mean().item()
        value = f"{found['two'][1]['seconds'] / steps:.2f} s a step; differs by {difference:.3f} levels from one"
        context.row("generate, context 2", time.time() - start, NAN, value, difference < 1.0)


def tokenizer_training(context: Context, gpus: Sequence[int]) -> None:
    name = "CV4x8x8_360p" if context.machine.rehearse else "CV8x8x8_720p"
    run, start = context.work / "tokenizer_run", time.time()
    shape = ["data.num_frames=9", "data.crop=[32,32]"] if context.machine.rehearse else []
    settings = [
        f"experiment=Cosmos_Tokenize1_{name}_HDVILA", f"model.init_from={tokenizer(context)}", "data.val=null",
        f"data.train={clips(context)}/videos/*.mp4", f"output_dir={run}", "data.global_batch=1",
        "data.num_workers=1", "trainer.max_steps=1", "loss.perceptual.enabled=false", "checkpoint.statistics_clips=0",
    ]  # fmt: skip
    if context.machine.rehearse:
        settings += ["model.overrides={channels: 8}", "data.resolution=null"]
    context.run("tokenizer_train", ["tokenizer", "train", *settings, *shape], gpus[:1])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = next(record for record in records if "loss" in record)
    target = context.work / "tokenizer_jit"
    context.run("tokenizer_export", ["tokenizer", "export", str(tokenizer(context)), str(target), "--format", "jit"])
    device = "cpu" if context.machine.rehearse else "cuda"
    video = torch.rand(1, 3, 9, 64, 64, device=device).bfloat16() * 2 - 1
    with torch.no_grad():
        halves = [torch.jit.load(target / f"{half}.jit", map_location=device) for half in ("encoder", "decoder")]
        encoder, decoder = (half.to(torch.bfloat16) for half in halves)
        decoded = decoder(encoder(video)[0])
    finite = bool(torch.isfinite(decoded).all()) and decoded.shape == video.shape
    memory = record.get("memory_bytes", NAN) / GIB
    value = f"loss {record['loss']:.4f}; exported JIT files decode what they encode in bf16: {finite}"
    context.row("tokenizer step and export", time.time() - start, memory, value, finite)


def small_tokenizer(context: Context, gpus: Sequence[int]) -> None:
    """The tokenizer of nemo-cosmos-tiny with its passes replayed from a graph and without: same losses, less time."""
    start, steps = time.time(), 4 if context.machine.rehearse else 60
    videos = context.work / "worlds"
    context.run("worlds", ["sample-data", "worlds", str(videos), "--clips=48", "--held-out=1", "--without-photos"], [])
    shape = ["data.num_frames=5", "data.crop=[32,32]", "data.micro_batch=2"] if context.machine.rehearse else []
    records: dict[bool, list[dict[str, float]]] = {}
    for graph in (False, True):
        run = context.work / f"small_tokenizer_{graph}".lower()
        settings = [
            "experiment=tiny_tokenizer", f"output_dir={run}", f"data.train={videos}/train/videos/*.mp4",
            f"data.decoded={context.work}/decoded", "data.val=null", "data.global_batch=${data.micro_batch}",
            "checkpoint.statistics_clips=0", f"trainer.max_steps={steps}", "trainer.log_every_n_steps=1",
            f"trainer.cuda_graph={'null' if graph else 'false'}",
        ]  # fmt: skip
        context.run(f"small_tokenizer_{graph}".lower(), ["tokenizer", "train", *settings, *shape], gpus[:1])
        found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        records[graph] = [record for record in found if "loss" in record]
    seconds = {graph: min(record["seconds"] for record in found) for graph, found in records.items()}
    losses = {graph: [record["loss"] for record in found] for graph, found in records.items()}
    equal = losses[False] == losses[True]
    largest = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    value = f"{seconds[True] * 1e3:.0f} ms a step, {seconds[False] / seconds[True]:.2f} times as fast as without; "
    value += f"largest difference of {steps} losses {largest:.1e}"
    context.row("small tokenizer", time.time() - start, NAN, value, equal)
