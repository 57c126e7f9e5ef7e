"""Speed of CV8x8x8-720p encode and decode against diffusers' module, and of a training step, on one GPU.

Both run with the same random weights, in bf16, on the same clip in the same process; the outputs are compared first.

    python bench/tokenizer.py                          # 720x1280, 49 frames, about 3 minutes on an H200
    python bench/tokenizer.py --size 64 64 --frames 9 --channels 8 --device cpu --dtype float32   # smoke test
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule, build_tokenizer
from nemo_cosmos.models.tokenizer.diffusers_export import to_diffusers_state_dict


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
    return ours.to(device, dtype), peer


def bench_inference(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> list[dict[str, object]]:
    """Encode and decode with diffusers and with every variant of ours."""
    ours, reference = build_pair(args.channels, device, dtype)
    generator = torch.Generator().manual_seed(1)
    video = (torch.rand(1, 3, args.frames, *args.size, generator=generator) * 2 - 1).to(device, dtype)
    rows: list[dict[str, object]] = []

    def record(name: str, work: str, run: Callable[[], Tensor], reference: Tensor | None) -> Tensor | None:
        try:
            result = run()
            row: dict[str, object] = {"variant": name, "work": work, **measure(run, device, args.repeats)}
        except (torch.OutOfMemoryError, RuntimeError) as error:
            rows.append({"variant": name, "work": work, "error": str(error).splitlines()[0][:160]})
            print(json.dumps(rows[-1]), flush=True)
            free(device)
            return None
        row["frames_per_second"] = args.frames / float(str(row["seconds"]))
        if reference is not None:
            row["relative_difference"] = difference(result, reference)
        rows.append(row)
        print(json.dumps(row), flush=True)
        return result

    with torch.no_grad():
        latent_frames = 1 + (args.frames - 1) // 8
        shape = (1, 16, latent_frames, args.size[0] // 8, args.size[1] // 8)
        latent = torch.randn(shape, generator=generator).to(device, dtype)
        encoded = record("diffusers", "encode", lambda: reference.encode(video).latent_dist.mode(), None)
        decoded = record("diffusers", "decode", lambda: reference.decode(latent).sample, None)
        reference.to("meta")
        free(device)
        record("ours", "encode", lambda: _encode(ours, video), encoded)
        record("ours", "decode", lambda: ours.decode(latent), decoded)
        ours.to(memory_format=torch.channels_last_3d)
        record("ours channels_last", "encode", lambda: _encode(ours, video), encoded)
        record("ours channels_last", "decode", lambda: ours.decode(latent), decoded)
        if not args.no_compile:
            ours.compile_blocks(dynamic=False)
            record("ours channels_last compiled", "encode", lambda: _encode(ours, video), encoded)
            record("ours channels_last compiled", "decode", lambda: ours.decode(latent), decoded)
    return rows


def _encode(module: TokenizerModule, video: Tensor) -> Tensor:
    latent = module.encode(video)
    assert isinstance(latent, Tensor)
    return latent


def bench_training(args: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    """Forward, backward and AdamW on 121 x 256 x 256 crops under bf16 autocast, plain and with checkpointing."""
    rows: list[dict[str, object]] = []
    frames, size = (121, 256) if device.type == "cuda" else (9, 32)
    video = torch.rand(1, 3, frames, size, size, device=device) * 2 - 1
    for name, checkpointing, compiled in (
        ("train", False, False),
        ("train checkpointing", True, False),
        ("train compiled", False, True),
    ):
        if compiled and args.no_compile:
            continue
        module = build_tokenizer("CV8x8x8-720p", channels=args.channels).to(device)
        module.to(memory_format=torch.channels_last_3d).train()
        module.enable_checkpointing(checkpointing)
        if compiled:
            module.compile_blocks(dynamic=False)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=device.type == "cuda")

        def step(module: TokenizerModule = module, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                loss = (module(video).reconstruction.float() - video).abs().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        try:
            row: dict[str, object] = {"variant": name, "frames": frames, "size": size}
            row |= measure(step, device, max(args.repeats // 2, 1))
            row["frames_per_second"] = frames / float(str(row["seconds"]))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            row = {"variant": name, "error": str(error).splitlines()[0][:160]}
        rows.append(row)
        print(json.dumps(row), flush=True)
        del module, optimizer, step
        free(device)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), metavar=("H", "W"))
    parser.add_argument("--frames", type=int, default=49, help="1 + 8k")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--json", help="write all rows to this file")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    rows = bench_inference(args, device, getattr(torch, args.dtype))
    if not args.no_train:
        rows += bench_training(args, device)
    seconds = {(row["variant"], row.get("work")): row.get("seconds") for row in rows}
    for work in ("encode", "decode"):
        base = seconds.get(("diffusers", work))
        for (variant, kind), value in seconds.items():
            if kind == work and variant != "diffusers" and isinstance(base, float) and isinstance(value, float):
                print(f"{work}: {variant} is {base / value:.2f}x diffusers", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
