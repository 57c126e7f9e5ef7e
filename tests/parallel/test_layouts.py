"""Loss, gradients and parameters do not depend on the parallel layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, train_and_capture, worst_difference
from tests.training.shards import write_shards

LAYOUTS = {
    "tp2": (2, ["parallel.tensor=2"]),
    "tp2+sp": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
    "pp2": (2, ["parallel.pipeline=2"]),
    "pp2+vp2": (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
    "cp2 all-to-all": (2, ["parallel.context=2", "parallel.context_backend=all_to_all"]),
    "cp2 all-gather": (2, ["parallel.context=2", "parallel.context_backend=all_gather"]),
    "tp2+sp·cp2": (4, ["parallel.tensor=2", "parallel.sequence=true", "parallel.context=2"]),
    "pp2·cp2": (4, ["parallel.pipeline=2", "parallel.context=2"]),
    "tp2·pp2": (4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    "dp2": (2, []),
    "dp2·cp2": (4, ["parallel.context=2"]),
    "cp4 uneven": (4, ["parallel.context=4"]),
}
# Five frames of 5 × 3 patches: 75 tokens, which neither 2 nor 4 divides.
SHAPE = (5, 10, 6)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=SHAPE)


def run(shards: Path, output: Path, world_size: int, overrides: list[str], preset: str) -> Path:
    cfg = small_run(shards, output, "parallel.distributed_optimizer=false", *overrides, preset=preset)
    run_processes(world_size, train_and_capture, cfg, log=output / "logs")
    return output


@pytest.fixture(scope="session", params=["tiny-text2world", "tiny-video2world"])
def reference(
    request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    preset = request.param
    return preset, run(shards, tmp_path_factory.mktemp(preset) / "one", 1, [], preset)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, reference: tuple[str, Path], shards: Path, tmp_path: Path) -> None:
    preset, one = reference
    world_size, overrides = LAYOUTS[name]
    many = run(shards, tmp_path / "many", world_size, overrides, preset)
    loss = max(abs(a - b) / abs(b) for a, b in zip(losses(many), losses(one), strict=True))
    gradient = worst_difference(torch.load(many / "gradients.pt"), torch.load(one / "gradients.pt"))
    head = worst_difference({"w": torch.load(many / "logvar.pt")}, {"w": torch.load(one / "logvar.pt")})
    parameters = worst_difference(exported(many), exported(one))
    average = worst_difference(exported(many, weights="ema"), exported(one, weights="ema"))
    print(f"\n{name:16} {preset:18} loss {loss:.1e}  gradient {gradient:.1e}  head {head:.1e}  "
          f"parameters {parameters:.1e}  ema {average:.1e}")  # fmt: skip
    assert loss < 1e-6
    assert gradient < 1e-5
    assert head < 1e-5
    assert parameters < 1e-5
    assert average < 1e-5
