"""Camera poses and the Plücker rays that networks with camera control are given.

Poses are camera-to-world in OpenCV axes: x right, y down, z forwards. The conventions, the formulas and a worked
example are in docs/camera_control.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nemo_cosmos.choices import Fit
from nemo_cosmos.data.resize import geometry
from nemo_cosmos.errors import InputError

CHANNELS = 6
"""Of a ray: its unit direction d, then its moment m = t x d."""
CELL = 8
"""Pixels per latent cell, in height and width, of all Cosmos tokenizers that generate."""
TOLERANCE = 1e-4
"""How far a pose may be from a rotation; what is nearer is replaced by the nearest rotation."""
SMALLEST_SCALE = 1e-8
"""A camera whose centre moves less than this stands still: its trajectory is not scaled."""
FURTHEST = 1e12
FOCAL_LENGTHS = (1e-3, 1e9)


@dataclass(eq=False)
class Cameras:
    """The camera of every frame of a clip.

    Attributes:
        poses: (N, 4, 4) float64 camera-to-world matrices in OpenCV axes. Rotations that are orthonormal to 1e-4 are
            replaced by the nearest exact ones.
        intrinsics: (N, 4) float64 fx, fy, cx, cy in pixels of ``size``; the centre of the first pixel is at 0.5.
        size: height and width in pixels of the picture that the intrinsics describe.

    Raises:
        InputError: shapes do not fit, a number is not finite, a matrix is not a rotation and a translation, a focal
            length is not positive. The message names the frame by its number.
    """

    poses: Tensor
    intrinsics: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        self.poses, self.intrinsics = self.poses.double(), self.intrinsics.double()
        check_poses(self.poses)
        check_intrinsics(self.intrinsics, len(self.poses))
        self.size = (int(self.size[0]), int(self.size[1]))
        height, width = self.size
        if height < 1 or width < 1:
            raise InputError(f"size of the cameras' pictures is {height} x {width}: expected at least 1 x 1")
        self.poses = _nearest_rotations(self.poses)

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, frames: slice | Sequence[int] | Tensor) -> Cameras:
        """The cameras of some frames."""
        return replace(self, poses=self.poses[frames], intrinsics=self.intrinsics[frames])


def check_poses(poses: Tensor, names: Sequence[str] = ()) -> None:
    """Hold (N, 4, 4) poses to rotations and translations.

    Raises:
        InputError: names the first pose at fault, without ``names`` by its number, and what is wrong with it.
    """
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) == 0:
        raise InputError(f"poses have shape {tuple(poses.shape)}, expected (frames, 4, 4) with at least one frame")
    rotation = poses[:, :3, :3]
    faults = {
        "has numbers that are not finite": ~poses.isfinite().flatten(1).all(1),
        "has a last row that is not 0 0 0 1": (poses[:, 3] - poses.new_tensor([0, 0, 0, 1])).abs().amax(1) > TOLERANCE,
        f"has a centre further than {FURTHEST:g} from the origin": poses[:, :3, 3].abs().amax(1) > FURTHEST,
        "is no rotation: its columns are not orthonormal to 1e-4": _skew(rotation) > TOLERANCE,
        "is no rotation: its determinant is not +1 (a mirrored camera)": (_det(rotation) - 1).abs() > TOLERANCE,
    }
    for fault, found in faults.items():
        if found.any():
            frame = int(found.nonzero()[0])
            name = f"{names[frame]}: its pose" if names else f"pose {frame}"
            raise InputError(f"{name} {fault}; expected a camera-to-world matrix")


def _skew(rotation: Tensor) -> Tensor:
    """(N,) largest difference of R'R from the identity."""
    return (rotation.mT @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().flatten(1).amax(1)


def _det(rotation: Tensor) -> Tensor:
    """(N,) determinants."""
    return (torch.linalg.cross(rotation[..., 0], rotation[..., 1]) * rotation[..., 2]).sum(-1)


def _nearest_rotations(poses: Tensor) -> Tensor:
    """Rotations made orthonormal by two Newton steps towards the polar factor, which square the error twice."""
    poses, identity = poses.clone(), torch.eye(3, dtype=poses.dtype)
    for _ in range(2):
        rotation = poses[:, :3, :3]
        poses[:, :3, :3] = rotation @ (3 * identity - rotation.mT @ rotation) / 2
    poses[:, 3] = poses.new_tensor([0, 0, 0, 1])
    return poses


def check_intrinsics(intrinsics: Tensor, frames: int, names: Sequence[str] = ()) -> None:
    """InputError unless (frames, 4) numbers are focal lengths and a centre; as :func:`check_poses`."""
    if intrinsics.shape != (frames, 4):
        raise InputError(f"intrinsics have shape {tuple(intrinsics.shape)}, expected ({frames}, 4): fx, fy, cx, cy")
    least, most = FOCAL_LENGTHS
    focal, centre = intrinsics[:, :2], intrinsics[:, 2:]
    wrong = ~((focal >= least) & (focal <= most) & (centre.abs() <= most)).all(1)  # NaN compares as False.
    if wrong.any():
        frame = int(wrong.nonzero()[0])
        values = ", ".join(f"{value:g}" for value in intrinsics[frame].tolist())
        raise InputError(
            f"{names[frame] if names else f'camera {frame}'}: fx, fy, cx, cy = {values}; expected finite pixels, and "
            f"focal lengths of {least:g} to {most:g}"
        )


def swap_axes(poses: Tensor) -> Tensor:
    """(..., 4, 4) poses in OpenGL camera axes (y up, z backwards) -> in OpenCV's, and back; the world is as before."""
    return poses * poses.new_tensor([1, -1, -1, 1])


def relative(cameras: Cameras) -> Cameras:
    """The same cameras seen from the first one, whose pose becomes the identity."""
    rotation, centre = cameras.poses[:, :3, :3], cameras.poses[:, :3, 3]
    poses = torch.eye(4, dtype=torch.float64).repeat(len(cameras), 1, 1)
    poses[:, :3, :3] = rotation[0].mT @ rotation
    poses[:, :3, 3] = (centre - centre[0]) @ rotation[0]  # The difference first: far origins cost no digits.
    poses[0] = torch.eye(4, dtype=torch.float64)
    return replace(cameras, poses=poses)


def normalise(cameras: Cameras, scale: float | None = None) -> tuple[Cameras, float]:
    """Cameras relative to the first, with translations divided by a scale; and that scale.

    Args:
        cameras: those of one chunk: what the network sees at once.
        scale: what to divide by; None: the largest distance from the first camera, 1 where the camera stands still.

    Raises:
        InputError: a scale that is not positive and finite.
    """
    seen = relative(cameras)
    if scale is None:
        largest = float(seen.poses[:, :3, 3].norm(dim=-1).max())
        scale = largest if largest > SMALLEST_SCALE else 1.0
    if not 0 < scale < float("inf"):
        raise InputError(f"scale={scale} of a trajectory: expected a positive number")
    poses = seen.poses.clone()
    poses[:, :3, 3] /= scale
    return replace(seen, poses=poses), scale


def resized(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """Cameras of the pictures scaled to (height, width), each side by its own factor."""
    y, x = size[0] / cameras.size[0], size[1] / cameras.size[1]
    return replace(cameras, intrinsics=cameras.intrinsics * cameras.intrinsics.new_tensor([x, y, x, y]), size=size)


def padded(cameras: Cameras, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0) -> Cameras:
    """Cameras of the pictures with columns and rows of pixels added, or cut off where a number is negative."""
    size = (cameras.size[0] + top + bottom, cameras.size[1] + left + right)
    return replace(
        cameras, intrinsics=cameras.intrinsics + cameras.intrinsics.new_tensor([0, 0, left, top]), size=size
    )


def fitted(cameras: Cameras, size: tuple[int, int], fit: Fit) -> Cameras:
    """Cameras of the pictures as ``data.resize.resize`` brings them to (height, width)."""
    plan = geometry(cameras.size, size, fit)
    right, bottom = size[1] - plan.resized[1] + plan.left, size[0] - plan.resized[0] + plan.top
    return padded(resized(cameras, plan.resized), left=-plan.left, right=right, top=-plan.top, bottom=bottom)


def cell_centres(grid: tuple[int, int], cell: float | tuple[float, float] = CELL) -> Tensor:
    """(rows, columns, 2) float64 pixel positions x, y of the centres of the cells of a grid.

    Args:
        grid: rows and columns.
        cell: pixels per cell, or those in height and in width.
    """
    height, width = cell if isinstance(cell, tuple) else (cell, cell)
    y = (torch.arange(grid[0], dtype=torch.float64) + 0.5) * height
    x = (torch.arange(grid[1], dtype=torch.float64) + 0.5) * width
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def rays(cameras: Cameras, pixels: Tensor) -> Tensor:
    """(N, ..., 6) float64 unit directions d and moments m = t x d of the rays through pixels, poses taken as they are.

    Args:
        cameras: N of them.
        pixels: (..., 2) positions x, y, the same in every frame.
    """
    shape = (len(cameras), *[1] * (pixels.ndim - 1), 2)
    focal, centre = (part.view(shape) for part in cameras.intrinsics.split(2, dim=-1))
    offsets = (pixels.double().unsqueeze(0) - centre) / focal
    seen = torch.cat([offsets, torch.ones_like(offsets[..., :1])], dim=-1)
    seen = seen / seen.norm(dim=-1, keepdim=True)
    directions = torch.einsum("nij,n...j->n...i", cameras.poses[:, :3, :3], seen)
    position = cameras.poses[:, :3, 3].view(*shape[:-1], 3).expand_as(directions)
    return torch.cat([directions, torch.linalg.cross(position, directions)], dim=-1)


def plucker(
    cameras: Cameras,
    latent_size: tuple[int, int],
    cell: int = CELL,
    *,
    padding_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """(6, N, h, w) float32 rays of a chunk, one per frame and latent cell, as networks with camera control take.

    Args:
        cameras: those of the frames of the chunk as encoded, after resizing, cropping and padding.
        latent_size: (h, w) of the latent.
        cell: pixels per latent cell.
        padding_mask: (1, h, w) or (h, w), not zero where a cell is padding; its rays are zero.
        scale: as in :func:`normalise`.

    Raises:
        InputError: the cameras describe pictures of another size than the latent's, or the mask has another shape.
    """
    expected = (latent_size[0] * cell, latent_size[1] * cell)
    if cameras.size != expected:
        raise InputError(
            f"cameras of pictures of {cameras.size[0]} x {cameras.size[1]}, but a latent of {latent_size[0]} x "
            f"{latent_size[1]} cells stands for {expected[0]} x {expected[1]} pixels: resize and pad the cameras too"
        )
    chunk, _ = normalise(cameras, scale)
    found = rays(chunk, cell_centres(latent_size, cell)).permute(3, 0, 1, 2).float()
    if padding_mask is None:
        return found.contiguous()
    if tuple(padding_mask.shape) not in {latent_size, (1, *latent_size)}:
        raise InputError(f"padding mask has shape {tuple(padding_mask.shape)}, expected {(1, *latent_size)}")
    return (found * (padding_mask == 0)).contiguous()
