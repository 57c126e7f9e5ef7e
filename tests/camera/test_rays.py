"""Rays of cameras: the worked example of docs/camera_control.md, and what holds for all cameras."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nemo_cosmos.camera.rays import (
    Cameras,
    cell_centres,
    fitted,
    normalise,
    padded,
    plucker,
    rays,
    relative,
    resized,
    swap_axes,
)
from nemo_cosmos.errors import InputError

PAGE = Path(__file__).parents[2] / "docs/camera_control.md"


def rotation_y(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=torch.float64)


def random_rotation(seed: int) -> Tensor:
    """One that no axis is special to."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return basis * torch.linalg.det(basis).sign()


def rigid(rotation: Tensor, centre: list[float]) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = rotation, torch.tensor(centre, dtype=torch.float64)
    return matrix


def walk(frames: int = 9, size: tuple[int, int] = (64, 96)) -> Cameras:
    """A camera that turns and moves, with its own focal lengths and a centre off the middle."""
    poses = [
        rigid(random_rotation(3) @ rotation_y(0.05 * i), [0.3 * i, 0.1 * i * i, 2.0 - 0.2 * i]) for i in range(frames)
    ]
    return Cameras(torch.stack(poses), torch.tensor([[80.0, 75.0, 40.0, 36.0]]).repeat(frames, 1), size)


def example() -> Cameras:
    opengl = torch.stack([rigid(rotation_y(0.3), [1, 2, 3]), rigid(rotation_y(0.5), [2, 2, 1])])
    whole = Cameras(swap_axes(opengl), torch.tensor([[1800.0, 1800, 1920, 1080]]).repeat(2, 1), (2160, 3840))
    return padded(resized(whole, (704, 1252)), left=14, right=14)


def test_worked_example() -> None:
    cameras = example()
    expected = torch.tensor([586.875, 586.6666667, 640, 352], dtype=torch.float64)
    torch.testing.assert_close(cameras.intrinsics[0], expected, atol=1e-6, rtol=0)
    chunk, scale = normalise(cameras)
    assert scale == pytest.approx(math.sqrt(5), abs=1e-7)
    found = chunk.poses[1, :3, 3]
    torch.testing.assert_close(found, torch.tensor([0.691561, 0, 0.722318], dtype=torch.float64), atol=1e-6, rtol=0)
    embedding = plucker(cameras, (88, 160))
    assert embedding.shape == (6, 2, 88, 160) and embedding.dtype == torch.float32
    page = {}
    for place, *numbers in re.findall(r"^\| (\d+, \d+, \d+) \| (.+) \| (.+) \|$", PAGE.read_text("utf-8"), re.M):
        page[place] = [float(number) for part in numbers for number in part.split(",")]
    for place, numbers in {
        "0, 0, 0": [-0.681821, -0.373204, 0.629157, 0, 0, 0],
        "1, 0, 0": [-0.793224, -0.373204, 0.481159, 0.269572, -0.905711, -0.258094],
        "1, 87, 159": [0.543236, 0.373204, 0.752073, -0.269572, -0.127715, 0.258094],
    }.items():
        frame, row, column = map(int, place.split(","))
        torch.testing.assert_close(embedding[:, frame, row, column], torch.tensor(numbers), atol=1e-6, rtol=0)
        assert page.pop(place) == numbers
    assert not page


def test_rays_are_lines_and_start_at_the_first_camera() -> None:
    embedding = plucker(walk(), (8, 12)).double()
    direction, moment = embedding[:3], embedding[3:]
    torch.testing.assert_close(direction.norm(dim=0), torch.ones(9, 8, 12).double(), atol=1e-6, rtol=0)
    assert (direction * moment).sum(0).abs().max() < 1e-6
    assert moment[:, 0].abs().max() == 0
    assert moment[:, 1:].abs().amax((0, 2, 3)).min() > 0.01


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 1e5])
def test_rays_do_not_depend_on_the_world(scale: float) -> None:
    cameras = walk()
    world = rigid(random_rotation(7), [4.0, -1.0, 90.0])
    moved = world @ cameras.poses
    moved[:, :3, 3] *= scale
    other = Cameras(moved, cameras.intrinsics, cameras.size)
    torch.testing.assert_close(plucker(other, (8, 12)), plucker(cameras, (8, 12)), atol=1e-6, rtol=0)


def test_opengl_and_opencv_poses_give_the_same_rays() -> None:
    cameras = walk()
    opengl = cameras.poses @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    again = Cameras(swap_axes(opengl), cameras.intrinsics, cameras.size)
    torch.testing.assert_close(plucker(again, (8, 12)), plucker(cameras, (8, 12)), atol=1e-6, rtol=0)


def test_the_principal_point_of_the_first_camera_looks_along_z() -> None:
    cameras = relative(walk())
    found = rays(cameras, cameras.intrinsics[0, 2:])[0]
    torch.testing.assert_close(found, torch.tensor([0, 0, 1.0, 0, 0, 0]).double(), atol=1e-12, rtol=0)


def test_a_point_seen_in_two_frames_lies_on_both_rays() -> None:
    cameras = fitted(walk(), (64, 64), "crop")
    point = cameras.poses[0, :3, 3] + cameras.poses[0, :3, :3] @ torch.tensor([0.3, -0.2, 8.0]).double()
    for frame in (0, 5):
        seen = torch.linalg.inv(cameras.poses[frame]) @ torch.cat([point, torch.ones(1).double()])
        focal, centre = cameras.intrinsics[frame].split(2)
        direction, moment = rays(cameras[[frame]], seen[:2] / seen[2] * focal + centre)[0].split(3)
        # The distance of a point p from the line (d, m) is |p x d - m|.
        assert (torch.linalg.cross(point, direction) - moment).norm() < 1e-4 * seen[2]


def test_mirrored_rolled_and_reversed_cameras_have_other_rays() -> None:
    """The six channels tell right from left, up from down, and forwards from backwards."""
    cameras, still = walk(5), plucker(walk(5), (8, 12))
    for sign in ([-1.0, 1, 1], [1, -1, 1], [1, 1, -1]):
        other = relative(cameras)
        other.poses[:, :3, 3] *= torch.tensor(sign).double()
        assert (plucker(other, (8, 12)) - still).abs().max() > 0.01


def test_a_camera_that_stands_still_is_not_scaled() -> None:
    poses = torch.stack([rigid(random_rotation(1) @ rotation_y(0.1 * i), [5e6, 3.3, -7.1]) for i in range(3)])
    cameras = Cameras(poses, torch.tensor([[80.0, 80, 48, 32]]).repeat(3, 1), (64, 96))
    assert normalise(cameras)[1] == 1.0
    assert plucker(cameras, (8, 12))[3:].abs().max() == 0


def test_a_given_scale_is_used_instead_of_the_chunks_own() -> None:
    own, scale = normalise(walk())
    double, _ = normalise(walk(), 2 * scale)
    torch.testing.assert_close(double.poses[:, :3, 3], own.poses[:, :3, 3] / 2)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="positive"):
            normalise(walk(), wrong)


def test_normalisation_is_of_the_chunk_and_does_nothing_twice() -> None:
    chunk, scale = normalise(walk()[2:6])
    assert chunk.poses[:, :3, 3].norm(dim=-1).max() == pytest.approx(1)
    again, one = normalise(chunk)
    assert scale != pytest.approx(1) and one == pytest.approx(1)
    torch.testing.assert_close(again.poses, chunk.poses)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (128, 80)])
def test_intrinsics_follow_the_pixels_through_resizing(fit: str, size: tuple[int, int]) -> None:
    """A spot drawn at a place of the source is found where the new intrinsics say that its ray meets the picture."""
    from nemo_cosmos.data.resize import resize

    cameras = walk(1, (192, 288))
    image = torch.zeros(3, 192, 288, dtype=torch.uint8)
    image[:, 100:116, 150:166] = 255
    before = rays(cameras, torch.tensor([158.0, 108.0]))[0, :3]
    small = resize(image, size, fit)[0].float()  # type: ignore[arg-type]
    rows, columns = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    place = torch.stack([(columns * small).sum(), (rows * small).sum()]) / small.sum()
    after = fitted(cameras, size, fit)  # type: ignore[arg-type]
    assert after.size == size
    torch.testing.assert_close(rays(after, place)[0, :3], before, atol=6e-3, rtol=0)


def test_padding_counts_on_every_side_and_cuts_where_negative() -> None:
    cameras = padded(walk(), left=8, right=16, top=24, bottom=32)
    assert cameras.size == (120, 120)
    torch.testing.assert_close(cameras.intrinsics[0], torch.tensor([80.0, 75, 48, 60]).double())
    back = padded(cameras, left=-8, right=-16, top=-24, bottom=-32)
    assert back.size == (64, 96) and torch.equal(back.intrinsics, walk().intrinsics)


def test_padded_cells_are_zero() -> None:
    mask = torch.zeros(1, 8, 12, dtype=torch.bfloat16)
    mask[..., :2] = mask[..., -1:] = 1
    embedding, whole = plucker(walk(), (8, 12), padding_mask=mask), plucker(walk(), (8, 12))
    assert embedding[..., [0, 1, 11]].abs().max() == 0
    assert torch.equal(embedding[..., 2:11], whole[..., 2:11])
    with pytest.raises(InputError, match="padding mask"):
        plucker(walk(), (8, 12), padding_mask=mask[..., 1:])


def test_cells_of_any_grid() -> None:
    centres = cell_centres((2, 3), (16, 8))
    assert centres.shape == (2, 3, 2) and centres[1, 2].tolist() == [20, 24]
    assert rays(walk(), centres).shape == (9, 2, 3, 6)
    assert plucker(walk(), (4, 6), 16).shape == (6, 9, 4, 6)


def test_cameras_of_another_size_than_the_latent_are_refused() -> None:
    with pytest.raises(InputError, match=r"64 x 96.*80 x 96"):
        plucker(walk(), (10, 12))


def broken(frame: int, row: int, column: int, value: float) -> Tensor:
    poses = walk().poses.clone()
    poses[frame, row, column] = value
    return poses


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (broken(4, 0, 3, math.nan), "pose 4 has numbers that are not finite"),
        (broken(2, 1, 1, math.inf), "pose 2 has numbers"),
        (broken(3, 0, 0, 3.0), "pose 3 is no rotation"),
        (broken(0, 3, 0, 0.5), "pose 0 has a last row"),
        (broken(1, 0, 3, 1e200), "pose 1 has a centre further"),
        (walk().poses * torch.tensor([1.0, 1, -1, 1]), "pose 0 is no rotation: its determinant"),
        (walk().poses[:, :3], r"shape \(9, 3, 4\)"),
        (walk().poses[:0], r"shape \(0, 4, 4\)"),
    ],
)
def test_what_is_no_pose_is_refused_by_its_number(poses: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cameras(poses, walk().intrinsics[: len(poses)], (64, 96))


@pytest.mark.parametrize(
    "values", [[0.0, 8, 1, 1], [8, -1, 1, 1], [math.nan, 8, 1, 1], [8, 8, math.inf, 1], [1e-300, 1, 1, 1]]
)
def test_intrinsics_that_no_camera_has_are_refused(values: list[float]) -> None:
    intrinsics = walk().intrinsics.clone()
    intrinsics[5] = torch.tensor(values)
    with pytest.raises(InputError, match="camera 5: fx, fy"):
        Cameras(walk().poses, intrinsics, (64, 96))
    with pytest.raises(InputError, match=r"\(8, 4\)"):
        Cameras(walk().poses, intrinsics[1:], (64, 96))


def test_rotations_written_with_few_digits_become_exact() -> None:
    rounded = (walk().poses * 1e5).round() / 1e5
    cameras = Cameras(rounded, walk().intrinsics, (64, 96))
    rotation = cameras.poses[:, :3, :3]
    assert (rotation.mT @ rotation - torch.eye(3)).abs().max() < 1e-14
    assert torch.equal(cameras.poses[:, :3, 3], rounded[:, :3, 3])
