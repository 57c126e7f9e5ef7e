"""Our transformer against diffusers' on one GPU: forward and backward of a slice of the 7B network.

    python bench/dit.py                      # 56,320 and 8,192 tokens, bf16, 4 layers; about 4 minutes on an H200
    python bench/dit.py --smoke              # a tiny network on the CPU

Both networks have the same weights, see the same sample and ask for cuDNN's attention first. TFLOP/s are model FLOPs,
3 × L × (28·S·D² + 4·S·(S + M)·D + 4·M·text·D), over the median time of a step. Needs torch,
megatron-core and diffusers.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from nemo_cosmos.bench.step import (
    Case,
    Measurement,
    build_diffusers,
    build_ours,
    call_diffusers,
    call_ours,
    kernel_times,
    output_difference,
    time_step,
)
from nemo_cosmos.models.dit import DiTConfig

START = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - START:6.1f} s] {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--skip-diffusers", action="store_true", help="time and profile our network alone")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    arguments = parser.parse_args()
    results: list[dict[str, object]] = []
    if arguments.smoke:
        tiny = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": 32, "adaln_lora_dim": 8}
        config = DiTConfig.preset("predict1-7b-video2world", **tiny)
        cases = [Case(config, (3, 8, 12), torch.float32, "cpu", text_tokens=8, steps=2, warmup=1)]
    else:
        config = DiTConfig.preset("predict1-7b-video2world", num_layers=arguments.layers)
        cases = [Case(config, (16, 88, 160), steps=5, warmup=2), Case(config, (8, 64, 64), steps=20, warmup=4)]
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
    numerics = [torch.float32] if arguments.smoke else [torch.float32, torch.bfloat16]
    for dtype in [] if arguments.skip_diffusers else numerics:
        small = DiTConfig.preset("predict1-7b-video2world", num_layers=2, hidden_size=512, num_attention_heads=4)
        case = Case(small, (5, 16, 24), dtype, cases[0].device)
        difference = output_difference(case)
        results.append({"check": "output against diffusers", "dtype": str(dtype), "difference": difference})
        say(f"output against diffusers' on the same weights, {dtype}: {difference:.2e}")
    for case in cases:
        measured: list[Measurement] = []
        ours = build_ours(case)
        runs = [("ours", ours, call_ours)]
        if not arguments.skip_diffusers:
            theirs = build_diffusers(case, ours)
            # One compiled module, timed first, and the same module eagerly: compile() would change it in place.
            runs += [("diffusers compiled", torch.compile(theirs, dynamic=False), call_diffusers)]
            runs += [("diffusers eager", theirs, call_diffusers)]
        for name, model, call in runs:
            try:
                measurement = time_step(name, case, model, call)
            except torch.cuda.OutOfMemoryError as error:
                say(f"{name}: out of memory ({error})")
                gc.collect()
                torch.cuda.empty_cache()
                continue
            measured.append(measurement)
            results.append({"tokens": case.tokens, "layers": config.num_layers, **vars(measurement)})
            say(
                f"{case.tokens:6,} tokens  {name:20} {measurement.seconds * 1e3:9.2f} ms  "
                f"{measurement.tflops:6.1f} TFLOP/s  {measurement.peak_bytes / 2**30:6.2f} GiB"
            )
            if case.device != "cpu" and name != "diffusers eager":
                times = kernel_times(case, model, call)
                results.append({"tokens": case.tokens, "kernels of": name, **times})
                kinds = ", ".join(f"{kind} {value:.2f}" for kind, value in sorted(times["kinds"].items()))
                say(f"    kernels, ms: {kinds}; sum {sum(times['kinds'].values()):.2f}")
                if name == "ours":
                    for kernel, milliseconds, count in times["longest"]:
                        print(f"        {milliseconds:9.2f} ms ×{count:<4} {kernel}", flush=True)
        for other in measured[1:]:
            say(f"{case.tokens:6,} tokens  ours / {other.name}: {measured[0].tflops / other.tflops:.3f} of its speed")
        del runs, ours, model
        if not arguments.skip_diffusers:
            del theirs
        torch._dynamo.reset()
        gc.collect()
        if case.device != "cpu":
            torch.cuda.empty_cache()
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
