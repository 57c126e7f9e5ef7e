"""Training from shards on a machine that has none of the packages which only raw video and exports need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.parallel.runs import small_overrides
from tests.training.shards import write_shards

ROOT = Path(__file__).parents[2]
UNNEEDED = ("av", "PIL", "diffusers", "wandb", "nemo_run", "matplotlib", "onnx", "cv2", "imageio", "torchvision")

HIDE = f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {UNNEEDED}:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""
"""Code after which imports and searches find none of these packages, as where they are not installed."""


def test_trains_from_shards_without_what_only_raw_video_needs(tmp_path: Path) -> None:
    """Three steps and a save through the command, in this process and in the worker that reads the shards."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HIDE)
    shards = write_shards(tmp_path / "shards", shape=(3, 4, 6))
    run = tmp_path / "run"
    overrides = small_overrides(shards, run, "trainer.max_steps=3", "checkpoint.every_n_steps=2", "data.num_workers=1")
    result = subprocess.run(
        [sys.executable, "-m", "nemo_cosmos", "train", *overrides],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
    assert (run / "checkpoints" / "iter_000000003_ema_model.pt").is_file()
