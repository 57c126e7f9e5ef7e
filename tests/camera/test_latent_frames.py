"""Rays of pixel frames for latent frames."""

from __future__ import annotations

import pytest
import torch

from nemo_cosmos.camera.latent_frames import chosen_frames, frame_groups, num_latent_frames, to_latent_frames
from nemo_cosmos.camera.rays import plucker
from nemo_cosmos.errors import InputError
from tests.camera.test_rays import walk


def test_groups_are_those_of_a_causal_tokenizer() -> None:
    groups = frame_groups(57)
    assert len(groups) == 8 and [list(groups[0]), list(groups[1])] == [[0], list(range(1, 9))]
    assert [frame for group in groups for frame in group] == list(range(57))


@pytest.mark.parametrize(("frames", "latent"), [(1, 1), (9, 2), (17, 3), (57, 8), (121, 16)])
def test_latent_frames_of_a_clip(frames: int, latent: int) -> None:
    assert num_latent_frames(frames) == latent


@pytest.mark.parametrize(
    ("mapping", "frames"),
    [
        ("first", [0, 1, 9, 17, 25, 33, 41, 49]),
        ("middle", [0, 5, 13, 21, 29, 37, 45, 53]),
        ("last", [0, 8, 16, 24, 32, 40, 48, 56]),
    ],
)
def test_chosen_frames(mapping: str, frames: list[int]) -> None:
    assert chosen_frames(57, mapping) == frames  # type: ignore[arg-type]
    rays = torch.arange(57.0).expand(6, 57).reshape(6, 57, 1, 1)
    assert to_latent_frames(rays, mapping)[3, :, 0, 0].tolist() == frames  # type: ignore[arg-type]


def test_other_compressions_and_lengths() -> None:
    assert chosen_frames(13, "last", 4) == [0, 4, 8, 12]
    assert chosen_frames(5, "first", 1) == chosen_frames(5, "last", 1) == [0, 1, 2, 3, 4]
    assert chosen_frames(1, "middle", 8) == [0]


@pytest.mark.parametrize("mapping", ["first", "middle", "last", "mean"])
def test_frames_first_gives_the_same(mapping: str) -> None:
    rays = plucker(walk(9), (8, 12))
    mapped = to_latent_frames(rays, mapping)  # type: ignore[arg-type]
    assert mapped.shape == (6, 2, 8, 12)
    assert torch.equal(to_latent_frames(rays.transpose(0, 1), mapping, frames_first=True), mapped)  # type: ignore[arg-type]
    assert torch.equal(mapped[:, 0], rays[:, 0]) or mapping == "mean"
    torch.testing.assert_close(mapped[:, 0], rays[:, 0])


def test_the_mean_is_a_line_and_padding_stays_zero() -> None:
    mask = torch.zeros(8, 12)
    mask[:, 0] = 1
    mapped = to_latent_frames(plucker(walk(9), (8, 12), padding_mask=mask), "mean").double()
    direction, moment = mapped[:3], mapped[3:]
    assert mapped[..., 0].abs().max() == 0
    torch.testing.assert_close(direction[..., 1:].norm(dim=0), torch.ones(2, 8, 11).double(), atol=1e-6, rtol=0)
    assert (direction * moment).sum(0).abs().max() < 1e-6


@pytest.mark.parametrize("frames", [0, 2, 8, 56, 58])
def test_other_numbers_of_frames_are_refused(frames: int) -> None:
    for mapping in ("last", "mean"):
        with pytest.raises(InputError, match=f"^{frames} frames"):
            to_latent_frames(torch.zeros(6, frames, 2, 2), mapping)  # type: ignore[arg-type]


def test_other_shapes_and_mappings_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected \(6, frames, h, w\)"):
        to_latent_frames(torch.zeros(9, 6, 2, 2))
    with pytest.raises(InputError, match=r"expected \(frames, 6, h, w\)"):
        to_latent_frames(torch.zeros(9, 7, 2, 2), frames_first=True)
    with pytest.raises(InputError, match="'median'"):
        to_latent_frames(torch.zeros(6, 9, 2, 2), "median")  # type: ignore[arg-type]
