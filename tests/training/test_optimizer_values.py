"""AdamW and the schedule of the released recipes on numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from megatron.core.optimizer import Adam

from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.training.optimizer import learning_rate


def test_decay_is_decoupled_and_moments_are_corrected() -> None:
    main = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = Adam([main], lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for gradient, expected in ((0.5, 0.99890000002), (-0.25, 0.9985334105976773), (0.125, 0.9980920229147829)):
        main.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        assert main.item() == pytest.approx(expected, abs=1e-12)
        # Why the main parameters are fp32: in bf16 nothing would ever move.
        assert main.detach().bfloat16().item() == 1.0


@pytest.mark.parametrize(
    "size, factors",
    [
        ("2b", {0: 0.17, 1: 0.16983, 500: 0.085, 999: 0.00017, 1000: 0.0, 5000: 0.0}),
        ("14b", {0: 0.4, 500: 0.2, 1000: 0.0}),
    ],
)
def test_schedule_of_text2image(size: str, factors: dict[int, float]) -> None:
    config = load_config(TrainConfig, [f"experiment=predict2_text2image_training_{size}_cosmos_nemo_assets"]).optimizer
    for step, factor in factors.items():
        assert learning_rate(config, step) == pytest.approx(config.lr * factor, rel=1e-9)
