"""Rays meet the points that the pictures show, and other rays do not."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from nemo_cosmos import cli
from nemo_cosmos.bench import reprojection as module
from nemo_cosmos.bench.reprojection import reprojection


def test_points_lie_on_the_rays_of_both_frames(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "camera", "check", "--rooms", "3", "--frames", "9"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "largest distance" in said
    assert {found.fit for found in reprojection(3, 9)} == {"pad", "crop", "stretch"}
    assert all(found.points > 500 and found.largest < 1e-9 for found in reprojection(3, 9))


@pytest.mark.parametrize("wrong", ["axes", "one scale", "half a pixel", "next frame"])
def test_wrong_conventions_are_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual mistakes: OpenGL axes kept, one scale for x and y, pixel corners, poses of the frames after."""
    true_fit, true_parse = module.fitted, module.parse_transforms

    def parsed(*arguments: Any) -> Any:
        track = true_parse(*arguments)
        if wrong == "axes":
            track.cameras.poses *= torch.tensor([1.0, -1, -1, 1]).double()
        if wrong == "next frame":
            track.cameras.poses = track.cameras.poses.roll(-1, 0)
        return track

    def fitted(cameras: Any, size: Any, fit: Any) -> Any:
        found = true_fit(cameras, size, fit)
        if wrong == "one scale":
            found.intrinsics[:, 1] = found.intrinsics[:, 0]
        if wrong == "half a pixel":
            found.intrinsics[:, 2:] -= 0.5
        return found

    monkeypatch.setattr(module, "parse_transforms", parsed)
    monkeypatch.setattr(module, "fitted", fitted)
    assert max(found.largest for found in reprojection(3, 9)) > 1e-3
