"""Loss, gradients and parameters do not depend on the parallel layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
    "cp3": (3, ["parallel.context=3"]),
}
# Five frames of 5 × 3 patches: 75 tokens, which neither 2 nor 4 divides; an image has 15. Of four frames each of two
# or four ranks has whole ones, which have a time each; of three ranks none has. Two frames of each of five cameras are
# 150 tokens: of two and three ranks none has whole views, of four some have padding.
SHAPES = {
    "video": (5, 10, 6), "image": (1, 10, 6), "even": (4, 10, 6), "rays": (5, 10, 6), "views": (2, 10, 6),
}  # fmt: skip
RIG = [4, 5, 0, 1, 2]
PRESETS = {
    "tiny-text2world": "video",
    "tiny-video2world": "video",
    "tiny-video2world-camera": "rays",
    "tiny-predict2-text2image": "image",
    "tiny-predict2-video2world": "even",
    "tiny-predict2-multiview": "views",
    "tiny-video2world-multiview": "views",
}
RECTIFIED_FLOW = ("tp2+sp", "pp2+vp2", "cp2 all-gather", "tp2+sp·cp2", "pp2·cp2", "dp2", "cp4 uneven", "cp3")
"""Layouts that the networks of Predict2, with times per frame, are run under."""
RAYS = ("tp2+sp", "pp2·cp2")
"""Those that networks with camera rays are: all that differs is what enters the patch embedding."""
VIEWS = {
    "tiny-predict2-multiview": ("tp2+sp·cp2", "pp2+vp2", "cp2 all-to-all", "cp4 uneven", "cp3"),
    "tiny-video2world-multiview": ("tp2+sp·cp2",),
}
"""Those of networks of several views, with text for each."""


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        kind: write_shards(
            folder / kind, shape=shape, plucker=kind == "rays", rigs=[RIG, RIG[::-1]] if kind == "views" else ()
        )
        for kind, shape in SHAPES.items()
    }


def layouts(preset: str) -> tuple[str, ...]:
    if preset in VIEWS:
        return VIEWS[preset]
    if "camera" in preset:
        return RAYS
    names = RECTIFIED_FLOW if "predict2" in preset else tuple(LAYOUTS)
    return tuple(name for name in names if name != "cp3" or PRESETS[preset] == "even")


def run(shards: dict[str, Path], output: Path, world_size: int, overrides: list[str], preset: str) -> Path:
    cfg = small_run(shards[PRESETS[preset]], output, "parallel.distributed_optimizer=false", *overrides, preset=preset)
    run_processes(world_size, train_and_capture, cfg, log=output / "logs")
    return output


@pytest.fixture(scope="session")
def references(shards: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs of one process, made when they are first asked for."""

    @cache
    def reference(preset: str) -> Path:
        return run(shards, tmp_path_factory.mktemp(preset) / "one", 1, [], preset)

    return reference


@pytest.mark.parametrize(
    "preset, name",
    [(preset, name) for preset in PRESETS for name in layouts(preset)],
)
def test_layout(
    name: str, preset: str, references: Callable[[str], Path], shards: dict[str, Path], tmp_path: Path
) -> None:
    one = references(preset)
    world_size, overrides = LAYOUTS[name]
    many = run(shards, tmp_path / "many", world_size, overrides, preset)
    loss = max(abs(a - b) / abs(b) for a, b in zip(losses(many), losses(one), strict=True))
    gradient = worst_difference(torch.load(many / "gradients.pt"), torch.load(one / "gradients.pt"))
    head = 0.0
    if "predict2" not in preset:
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
