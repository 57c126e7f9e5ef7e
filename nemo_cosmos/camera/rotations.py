"""Rotations as quaternions w, x, y, z, and turns about an axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError


def from_quaternion(quaternion: Tensor) -> Tensor:
    """(N, 4) w, x, y, z of length 1 -> (N, 3, 3) rotations."""
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).view(*quaternion.shape[:-1], 3, 3)


def to_quaternion(rotation: Tensor) -> Tensor:
    """(N, 3, 3) rotations -> (N, 4) w, x, y, z of length 1 with w >= 0.

    Of the four forms, each divided by twice one component, the one with the largest component is taken.
    """
    r = rotation
    trace = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    a, b, c = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    forms = torch.stack(
        [
            torch.stack([1 + trace, a, b, c], -1),
            torch.stack([a, 1 + 2 * r[:, 0, 0] - trace, xy, xz], -1),
            torch.stack([b, xy, 1 + 2 * r[:, 1, 1] - trace, yz], -1),
            torch.stack([c, xz, yz, 1 + 2 * r[:, 2, 2] - trace], -1),
        ],
        dim=1,
    )
    best = forms.diagonal(dim1=1, dim2=2).argmax(-1)
    chosen = torch.nn.functional.normalize(forms[torch.arange(len(r)), best], dim=-1)
    return torch.where(chosen[:, :1] < 0, -chosen, chosen)


def to_unit_quaternions(where: str, names: Sequence[str], quaternions: Tensor) -> Tensor:
    """(N, 4) quaternions of a file, made length 1; InputError names the first that is far from it."""
    length = quaternions.norm(dim=-1, keepdim=True)
    wrong = ~((length[:, 0] - 1).abs() < 1e-2)
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise InputError(f"{where}: {names[i]}: quaternion of length {float(length[i]):g}, expected 1")
    return quaternions / length


def part_of_turn(turn: Tensor, share: Tensor) -> Tensor:
    """(N, 3, 3) rotations about the same axes by a (N,) share of the angle; half turns take either way round."""
    quaternion = to_quaternion(turn)
    half = torch.atan2(quaternion[:, 1:].norm(dim=-1), quaternion[:, 0])
    axis = torch.nn.functional.normalize(quaternion[:, 1:], dim=-1)
    angle = half * share
    return from_quaternion(torch.cat([angle.cos()[:, None], axis * angle.sin()[:, None]], dim=-1))


def about_axis(axis: int, angle: Tensor) -> Tensor:
    """(N, 3, 3) right-handed rotations by (N,) radians about x (0), y (1) or z (2)."""
    quaternion = torch.zeros(len(angle), 4, dtype=torch.float64)
    quaternion[:, 0], quaternion[:, 1 + axis] = (angle.double() / 2).cos(), (angle.double() / 2).sin()
    return from_quaternion(quaternion)
