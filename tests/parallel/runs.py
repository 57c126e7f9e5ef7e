"""Short training runs whose numbers are compared between layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.training.callbacks import denoising_models
from nemo_cosmos.training.run import train
from tests.parallel.gather import gather_original

SMALL = "{num_layers: 4, hidden_size: 64, num_attention_heads: 4, text_width: 16, adaln_lora_dim: 8, max_frames: 16, max_height: 32, max_width: 32}"  # noqa: E501


def small_overrides(shards: Path, output: Path, *overrides: str, preset: str = "tiny-video2world") -> list[str]:
    """Arguments of ``nemo-cosmos train``: five steps of 4 layers of width 64 on a global batch of 4."""
    # One frame gives some rows of the modulation gradients that are nothing but rounding; a small eps blows them up.
    family = ["objective=rectified_flow", "optimizer.eps=1e-6"] if "predict2" in preset else ["objective=edm"]
    return [
        "experiment=demo_video2world", *family, f"model.preset={preset}", "model.init_from=null",
        f"model.overrides={SMALL}",
        f"data.path={shards}", f"output_dir={output}", "data.micro_batch=1", "data.global_batch=4",
        "data.num_workers=0", "data.text_length=8", "data.tokenizer=null",
        "objective.condition.min_frames=0",
        "objective.condition.max_frames=2", "objective.sigma_multiplier=2.0", "objective.text_dropout=0.2",
        "trainer.max_steps=5", "optimizer.lr=1e-3", "optimizer.cycle_steps=500",
        "optimizer.warmup_steps=0", "checkpoint.every_n_steps=1000", *overrides,
    ]  # fmt: skip


def small_run(shards: Path, output: Path, *overrides: str, preset: str = "tiny-video2world") -> TrainConfig:
    """The configuration of :func:`small_overrides`."""
    return load_config(TrainConfig, small_overrides(shards, output, *overrides, preset=preset))


class GradientCapture(pl.Callback):
    """Writes the first step's gradients, as the optimizer sees them, with released names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer: Any = trainer.optimizers[0].mcore_optimizer  # type: ignore[attr-defined]
        step = optimizer.step

        def capture_then_step() -> Any:
            optimizer.step = step
            self.capture(trainer)
            return step()

        optimizer.step = capture_then_step

    def capture(self, trainer: pl.Trainer) -> None:
        models = denoising_models(trainer)
        gradients = gather_original(
            [model.net for model in models], lambda parameters: [p.main_grad for p in parameters], self.path / ".g"
        )
        if gradients is not None:
            torch.save({k: v for k, v in gradients.items() if "pos_embedder.seq" not in k}, self.path / "gradients.pt")
        for model in models:
            if model.logvar is not None and torch.distributed.get_rank() == torch.distributed.get_world_size() - 1:
                torch.save(model.logvar[1].weight.main_grad, self.path / "logvar.pt")


def train_and_capture(cfg: TrainConfig) -> None:
    """A run with gradients written beside its checkpoints; needs ``parallel.distributed_optimizer=false``."""
    output = Path(cfg.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    train(cfg, callbacks=[GradientCapture(output)])


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


def exported(output: Path, step: int = 5, weights: str = "reg") -> dict[str, Tensor]:
    return torch.load(output / "checkpoints" / f"iter_{step:09d}_{weights}_model.pt", weights_only=True)


def worst_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest norm-relative difference over all tensors; the scale of a tensor is at least 1e-3 of the largest."""
    assert found.keys() == expected.keys()
    floor = 1e-3 * max(float(t.float().norm()) for t in expected.values())
    return max(
        float((found[k].float() - t.float()).norm()) / max(float(t.float().norm()), floor) for k, t in expected.items()
    )
