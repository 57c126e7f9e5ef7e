"""Tables of the records that `layouts.py` writes."""

from __future__ import annotations

from typing import Any


def worst(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def report(records: list[dict[str, Any]], reference: dict[str, list[float]] | None) -> None:
    exact = [r for r in records if r["kind"] == "exact"]
    one = next((r for r in exact if r["layout"] == "one" and "losses" in r), reference)
    if exact:
        print("\nLargest relative difference over the steps")
        print(f"{'layout':16} {'GPUs':>4}  {'loss':>9} {'edm loss':>9} {'grad norm':>9}")
    for r in exact:
        if "failed" in r or one is None:
            print(f"{r['layout']:16} {r['world']:4}  {r.get('failed', 'no reference')}")
            continue
        differences = [worst(r[key], one[key]) for key in ("losses", "edm", "grad_norms")]
        mark = "" if differences[0] < 2e-3 else "   ABOVE 2e-3"
        print(f"{r['layout']:16} {r['world']:4}  " + " ".join(f"{d:9.1e}" for d in differences) + mark)
    timed = [r for r in records if r["kind"] == "time"]
    if timed:
        print(
            f"\n{'layout':16} {'GPUs':>4} {'samples':>7} {'s/step':>8} {'predicted':>9} {'TFLOP/s/GPU':>11} "
            f"{'peak GiB':>8} {'predicted':>9}   GiB sent per GPU and step"
        )
    for r in timed:
        if "failed" in r:
            print(f"{r['layout']:16} {r['world']:4}  {r['failed']}")
            continue
        batch = next(int(s.split("=")[1]) for s in r["settings"] if s.startswith("data.global_batch="))
        flops, predicted_bytes, predicted_seconds = prediction(r, batch)
        tflops = flops * batch / r["seconds"] / r["world"] / 1e12
        # Runs share a process: what an earlier one left behind is not this one's.
        peak = max(p - left for p, left in zip(r["peak_bytes"], r["left_over_bytes"], strict=True))
        sent = ", ".join(
            f"{key} {value / 2**30:.2f}" for key, value in sorted(r["sent_bytes_per_step"].items()) if value > 2**24
        )
        print(
            f"{r['layout']:16} {r['world']:4} {batch:7} {r['seconds']:8.3f} {predicted_seconds:9.3f} {tflops:11.1f} "
            f"{peak / 2**30:8.2f} {predicted_bytes / 2**30:9.2f}   {sent}"
        )


def prediction(record: dict[str, Any], batch: int) -> tuple[float, float, float]:
    """(model FLOPs of a sample, predicted bytes, predicted seconds) of a timed run."""
    from nemo_cosmos.config import TrainConfig, load_config
    from nemo_cosmos.models.dit import DiTConfig
    from nemo_cosmos.models.dit.size import network_size
    from nemo_cosmos.parallel.layout import validate_layout
    from nemo_cosmos.planning.cost import training_flops
    from nemo_cosmos.planning.memory import Workload, predict_memory
    from nemo_cosmos.planning.speed import predict_seconds

    config = load_config(TrainConfig, record["settings"])
    size = network_size(DiTConfig.preset(config.model.preset, **config.model.overrides))
    layout = validate_layout(config.parallel, size, world_size=record["world"], global_batch=batch)
    work = Workload(tokens=56_320, num_micro_batches=batch // layout.data)
    return (
        training_flops(size, work.tokens, work.text_tokens),
        predict_memory(size, layout, config.parallel, work).total,
        predict_seconds(size, layout, config.parallel, work),
    )
