"""Speed of CV8x8x8-720p encode and decode against diffusers' module, and of a training step, on one GPU.

Both run with the same random weights, in bf16, on the same clip in the same process; both outputs are compared with
those of the same weights in fp32.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule, build_tokenizer
from nemo_cosmos.models.tokenizer.diffusers_export import to_diffusers_state_dict
from nemo_cosmos.models.tokenizer.jit import script_tokenizer
from nemo_cosmos.precision import to_dtype


@dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
        size: height and width, pixels.
        frames: 1 + 8k.
        channels: width of the network; 128 is the released one.
        device, dtype: where, and in which precision.
        repeats: timed calls, of which the median counts.
        profile: print the largest kernels of every variant.
        compile: time compiled variants, too.
        train: time a training step, too.
    """

    size: tuple[int, int]
    frames: int
    channels: int
    device: str
    dtype: str
    repeats: int
    profile: bool
    compile: bool
    train: bool


def measure(run: Callable[[], Tensor], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds over ``repeats`` after two warm-up calls, and peak bytes allocated."""
    cuda = device.type == "cuda"
    for _ in range(2):
        run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    return {"seconds": sorted(seconds)[len(seconds) // 2], "peak_gib": peak / 2**30}


def kernel_table(run: Callable[[], object], device: torch.device, rows: int = 14) -> str:
    """The kernels that one call spends most time in, a line each: milliseconds, calls, name."""
    activity = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
    events = profile.key_averages()
    times = [
        (event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total, event.count, event.key)
        for event in events
    ]
    times.sort(reverse=True)
    lines = [f"  {sum(time for time, _, _ in times) / 1000:9.2f} ms in all"]
    lines += [f"  {time / 1000:9.2f} ms {count:5d}  {name[:110]}" for time, count, name in times[:rows]]
    return "\n".join(lines)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def difference(first: Tensor, second: Tensor) -> float:
    """Root mean square of the difference relative to the reference's."""
    a, b = first.float(), second.float()
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())


def build_pair(channels: int, device: torch.device, dtype: torch.dtype) -> tuple[TokenizerModule, Any]:
    """Our module and diffusers' with the same random weights."""
    from diffusers import AutoencoderKLCosmos

    torch.manual_seed(0)
    ours = build_tokenizer("CV8x8x8-720p", channels=channels).eval().requires_grad_(False)
    widths = [channels * mult for mult in ours.config.channels_mult]
    with torch.device("meta"):
        peer = AutoencoderKLCosmos(
            encoder_block_out_channels=(channels, *widths), decode_block_out_channels=(*widths, widths[-1])
        )
    peer = peer.to_empty(device="cpu").eval()
    # The Haar filters are buffers outside the state dict: build them anew where the empty module has no values.
    fresh = AutoencoderKLCosmos(encoder_block_out_channels=(8, 16, 32, 32), decode_block_out_channels=(16, 32, 32, 32))
    for (_, empty), (_, full) in zip(peer.named_buffers(), fresh.named_buffers(), strict=True):
        empty.copy_(full)
    peer.load_state_dict(to_diffusers_state_dict(ours.to_original()), strict=True)
    peer = peer.requires_grad_(False).to(device, dtype)
    return ours.to(device), peer


def bench_inference(args: Settings, device: torch.device, dtype: torch.dtype) -> list[dict[str, object]]:
    """Encode and decode with diffusers and with every variant of ours."""
    ours, reference = build_pair(args.channels, device, dtype)
    generator = torch.Generator().manual_seed(1)
    video = (torch.rand(1, 3, args.frames, *args.size, generator=generator) * 2 - 1).to(device, dtype)
    rows: list[dict[str, object]] = []

    def record(name: str, work: str, run: Callable[[], Tensor], exact: Tensor) -> None:
        try:
            began = time.perf_counter()
            result = run()
            row: dict[str, object] = {"variant": name, "work": work, "first_call": time.perf_counter() - began}
            row |= measure(run, device, args.repeats)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            rows.append({"variant": name, "work": work, "error": str(error).splitlines()[0][:160]})
            print(json.dumps(rows[-1]), flush=True)
            free(device)
            return
        row["frames_per_second"] = args.frames / float(str(row["seconds"]))
        row["difference_from_fp32"] = difference(result, exact)
        rows.append(row)
        print(json.dumps(row), flush=True)
        if args.profile:
            print(kernel_table(run, device), flush=True)

    with torch.no_grad():
        latent_frames = 1 + (args.frames - 1) // 8
        shape = (1, 16, latent_frames, args.size[0] // 8, args.size[1] // 8)
        latent = torch.randn(shape, generator=generator).to(device, dtype)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            exact_latent, exact_video = _encode(ours, video.float()), ours.decode(latent.float())
        ours.to(dtype)
        free(device)

        def both(name: str, encode: Callable[[], Tensor], decode: Callable[[], Tensor]) -> None:
            record(name, "encode", encode, exact_latent)
            record(name, "decode", decode, exact_video)

        peer = (lambda: reference.encode(video).latent_dist.mode(), lambda: reference.decode(latent).sample)
        both("diffusers", *peer)
        if args.compile:
            reference.encoder.compile(dynamic=False)
            reference.decoder.compile(dynamic=False)
            both("diffusers compiled", *peer)
        reference.to("meta")
        free(device)
        own = (lambda: _encode(ours, video), lambda: ours.decode(latent))
        both("ours", *own)
        both("ours, TorchScript", *_scripted(ours, video, latent))
        free(device)
        if args.compile:
            ours.compile_blocks(dynamic=False)
            both("ours compiled", *own)
    return rows


def _encode(module: TokenizerModule, video: Tensor) -> Tensor:
    latent = module.encode(video)
    assert isinstance(latent, Tensor)
    return latent


def _scripted(module: TokenizerModule, video: Tensor, latent: Tensor) -> tuple[Callable[[], Tensor], ...]:
    parts = script_tokenizer(module)
    return lambda: parts["encoder"](video)[0], lambda: parts["decoder"](latent)


def bench_training(args: Settings, device: torch.device) -> list[dict[str, object]]:
    """Forward, backward and AdamW on 121 x 256 x 256 crops under bf16 autocast, of diffusers' module and ours."""
    rows: list[dict[str, object]] = []
    frames, size = (121, 256) if device.type == "cuda" else (9, 32)
    video = torch.rand(1, 3, frames, size, size, device=device) * 2 - 1
    for name in ("diffusers", "ours", "ours compiled", "ours compiled, activation checkpointing"):
        if "compiled" in name and not args.compile:
            continue
        ours, peer = build_pair(args.channels, device, torch.float32)
        if name == "diffusers":
            module, reconstruct = peer, lambda peer=peer: peer(video).sample
        else:
            module, reconstruct = ours, lambda ours=ours: ours(video).reconstruction
            ours.enable_checkpointing("checkpointing" in name)
            if "compiled" in name:
                ours.compile_blocks(dynamic=False)
        module.train().requires_grad_(True)
        del ours, peer
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=device.type == "cuda")

        def step(
            reconstruct: Callable[[], Tensor] = reconstruct, optimizer: torch.optim.Optimizer = optimizer
        ) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                loss = (reconstruct().float() - video).abs().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        try:
            row: dict[str, object] = {"variant": name, "work": "train", "frames": frames, "size": size}
            row |= measure(step, device, args.repeats)
            row["frames_per_second"] = frames / float(str(row["seconds"]))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            row = {"variant": name, "work": "train", "error": str(error).splitlines()[0][:160]}
        rows.append(row)
        print(json.dumps(row), flush=True)
        if args.profile and "error" not in row:
            print(kernel_table(step, device), flush=True)
        del module, reconstruct, optimizer, step
        free(device)
    return rows


def run(settings: Settings) -> list[dict[str, object]]:
    """Print and return every figure, and print how much faster ours is."""
    device = torch.device(settings.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    rows = bench_inference(settings, device, to_dtype(settings.dtype))
    if settings.train:
        rows += bench_training(settings, device)
    seconds = {(row["variant"], row.get("work")): row.get("seconds") for row in rows}
    for work in ("encode", "decode", "train"):
        for peer in ("diffusers", "diffusers compiled"):
            base = seconds.get((peer, work))
            for (variant, kind), value in seconds.items():
                ours = kind == work and str(variant).startswith("ours")
                if ours and isinstance(base, float) and isinstance(value, float):
                    print(f"{work}: {variant} is {base / value:.2f}x {peer}", flush=True)
    return rows
