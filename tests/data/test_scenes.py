"""From a scene on the disk to the frames and cameras of a sample: the poses are those of exactly these pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nemo_cosmos.camera.rays import plucker
from nemo_cosmos.data.resize import padding_mask, resize
from nemo_cosmos.data.scene_windows import SceneClip, SceneWindow, scene_windows
from nemo_cosmos.data.scenes import Scene, find_scenes
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.errors import InputError
from tests.data.scene_files import SIZE, colmap, number_of, picture, scene, transforms, write_folder, write_zip

PLAN = WindowPlan(5, (32, 48), "pad", fps=7.0)


def window(path: Path, plan: WindowPlan = PLAN, *, chunk: int = 0, seed: int = 0, **options: bool) -> SceneWindow:
    clip = SceneClip(
        "key", path, path.name, caption="a room", scene=Scene(path.stem, path, **options), chunk=chunk, seed=seed
    )
    (found,) = scene_windows(clip, plan, 8)
    return found


def shown(found: SceneWindow) -> list[int]:
    """Numbers of the pictures that frames show in their middle."""
    middle = found.frames[:, :, found.frames.shape[2] // 2, found.frames.shape[3] // 2]
    return [number_of(pixel) for pixel in middle.T.tolist()]


def positions(found: SceneWindow) -> Tensor:
    assert found.cameras is not None
    return found.cameras.poses[:, 0, 3] * found.scale


def changed(files: dict[str, bytes], **values: object) -> dict[str, bytes]:
    poses = json.loads(files["transforms.json"])
    return {**files, "transforms.json": json.dumps({**poses, **values}).encode()}


def test_poses_are_those_of_exactly_the_frames_that_are_shown(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", scene(70))
    starts = set()
    for chunk in range(6):
        found = window(path, chunk=chunk)
        assert shown(found) == list(range(found.start, found.start + 5))
        # One unit to the right with every picture, from wherever the chunk begins.
        assert positions(found).tolist() == pytest.approx([0, 1, 2, 3, 4])
        assert found.scale == pytest.approx(4) and found.fps == 7 and found.source_size == SIZE
        starts.add(found.start)
    assert len(starts) > 1


def test_the_last_chunk_has_all_its_poses(tmp_path: Path) -> None:
    found = window(write_zip(tmp_path / "s.zip", scene(5)))
    assert found.start == 0 and len(found.cameras) == found.frames.shape[1] == 5
    with pytest.raises(
        InputError, match="5 pictures with poses that follow each other, of 5 pictures: a sample takes 9"
    ):
        window(tmp_path / "s.zip", replace(PLAN, frames=9))


def test_57_frames_and_no_fewer(tmp_path: Path) -> None:
    plan = WindowPlan(57, (16, 32), "pad", fps=7.0)
    assert shown(window(write_zip(tmp_path / "whole.zip", scene(57)), plan)) == list(range(57))
    with pytest.raises(InputError, match=r"has 56 pictures.*takes 57"):
        window(write_zip(tmp_path / "short.zip", scene(56)), plan)


def test_places_depend_on_seed_scene_and_chunk_alone(tmp_path: Path) -> None:
    one, other = (write_zip(tmp_path / f"{name}.zip", scene(60)) for name in "ab")
    moved = write_zip(tmp_path / "elsewhere" / "a.zip", scene(60))
    starts = [
        [window(path, chunk=c, seed=s).start for c in range(4) for s in range(2)] for path in (one, other, moved)
    ]
    assert starts[0] == starts[2] != starts[1]
    assert len(set(starts[0])) > 2 and all(0 <= start <= 55 for start in starts[0])


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("folder", ["images", "images_4", "images_8", "Images"])
def test_zip_layouts_of_any_resolution_give_the_same_rays(tmp_path: Path, nested: bool, folder: str) -> None:
    scale = int(folder[7:] or 1)
    described = (SIZE[0] * scale, SIZE[1] * scale)
    path = write_zip(tmp_path / "s.zip", scene(6, folder=folder, described=described), nested=nested)
    found = window(path)
    # The focal length is the picture's width, whichever size the file speaks of; 32x48 shows it 27 x 48.
    assert found.cameras is not None and found.resized == (27, 48)
    assert found.cameras.intrinsics[0].tolist() == pytest.approx([48, 48, 24, 16], abs=0.51)
    assert shown(found) == list(range(found.start, found.start + 5))


def test_folders_and_zips_give_the_same_sample(tmp_path: Path) -> None:
    packed, unpacked = write_zip(tmp_path / "s.zip", scene()), write_folder(tmp_path / "s", scene())
    first, second = window(packed), window(unpacked)
    assert torch.equal(first.frames, second.frames) and first.start == second.start
    assert first.cameras is not None and second.cameras is not None
    assert torch.equal(first.cameras.poses, second.cameras.poses)


def test_frames_are_matched_by_name_whatever_their_order(tmp_path: Path) -> None:
    files = scene(12)
    poses = json.loads(files["transforms.json"])
    poses["frames"].reverse()
    found = window(write_zip(tmp_path / "s.zip", {**files, "transforms.json": json.dumps(poses).encode()}))
    assert shown(found) == list(range(found.start, found.start + 5))
    assert positions(found).tolist() == pytest.approx([0, 1, 2, 3, 4])


def test_numbers_without_leading_zeros_are_in_their_order(tmp_path: Path) -> None:
    names = [f"images/shot{n}.jpeg" for n in range(15)]
    files = {name: picture(n, kind="JPEG") for n, name in enumerate(names)}
    files["transforms.json"] = json.dumps(transforms(names)).encode()
    found = window(write_zip(tmp_path / "s.zip", files), replace(PLAN, frames=13))
    assert shown(found) == list(range(found.start, found.start + 13))


def test_a_chunk_never_spans_a_picture_without_a_pose(tmp_path: Path) -> None:
    files = scene(14)
    poses = json.loads(files["transforms.json"])
    del poses["frames"][6]
    path = write_zip(tmp_path / "s.zip", {**files, "transforms.json": json.dumps(poses).encode()})
    for chunk in range(12):
        assert 6 not in shown(window(path, chunk=chunk))
    with pytest.raises(InputError, match="7 pictures with poses that follow each other, of 14"):
        window(path, replace(PLAN, frames=9))


def test_each_side_is_scaled_by_its_own_factor(tmp_path: Path) -> None:
    # 3824x2146 made 4 times smaller is 956x536 (536.5): the sides' factors differ.
    files = scene(5, size=(268, 478), folder="images_8", described=(2146, 3824))
    found = window(write_zip(tmp_path / "s.zip", files), WindowPlan(5, (268, 478), "stretch"))
    assert found.cameras is not None
    expected = [3824 * 478 / 3824, 3824 * 268 / 2146, 239, 134]
    assert found.cameras.intrinsics[0].tolist() == pytest.approx(expected, rel=1e-9)


def test_portrait_scenes_are_padded_and_not_squashed(tmp_path: Path) -> None:
    files = scene(5, size=(64, 36), described=(64, 36))
    found = window(write_zip(tmp_path / "s.zip", files), WindowPlan(5, (64, 128), "pad"))
    assert found.resized == (64, 36) and found.cameras is not None
    assert found.cameras.intrinsics[0].tolist() == pytest.approx([36, 36, 18 + 46, 32])
    assert found.padding_mask is not None
    assert found.padding_mask[0, 0].tolist() == [1] * 6 + [0] * 5 + [1] * 5  # 46 columns left and right
    rays = plucker(found.cameras, (8, 16), padding_mask=found.padding_mask)
    assert not rays[:, :, found.padding_mask[0] == 1].any() and rays[:3, 0, :, 6:11].norm(dim=0).allclose(
        torch.ones(1)
    )


def test_bars_are_mirrored_however_wide_they_are() -> None:
    ramp = torch.arange(4, dtype=torch.uint8).expand(3, 2, 4)
    wide = resize(ramp, (2, 12), "pad", mirror=True)
    assert wide[0, 0].tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert resize(ramp[:, :, :1], (2, 4), "pad", mirror=True).shape == (3, 2, 4)


def test_the_padding_mask_of_16_to_9_covers_both_sides() -> None:
    mask = padding_mask((2160, 3840), (704, 1280), "pad", 8, nearest=True)
    assert mask is not None and mask[0].any(dim=0).nonzero().flatten().tolist() == [0, 1, 159]
    assert mask[0].all(dim=0).sum() == 3


def test_missing_sizes_are_those_of_the_pictures(tmp_path: Path) -> None:
    found = window(write_zip(tmp_path / "own.zip", scene(5, described=None)))
    assert found.cameras is not None
    assert found.cameras.intrinsics[0].tolist() == pytest.approx([48, 48, 24, 16], abs=0.51)
    # The centre tells that the intrinsics are those of pictures four times as large.
    large = changed(scene(5, described=None), fl_x=128, fl_y=128, cx=64, cy=36)
    found = window(write_zip(tmp_path / "large.zip", large))
    assert found.cameras is not None
    assert found.cameras.intrinsics[0].tolist() == pytest.approx([48, 48, 24, 16], abs=0.51)
    with pytest.raises(InputError, match="'w' and 'h' are missing, and cx=300"):
        window(write_zip(tmp_path / "odd.zip", changed(scene(5, described=None), cx=300, cy=9)))


def test_of_several_resolutions_the_smallest_that_is_large_enough_is_read(tmp_path: Path) -> None:
    files = scene(5, size=(180, 320), described=(180, 320))
    for scale in (2, 4, 8):
        size = (180 // scale, 320 // scale)
        files |= {n: c for n, c in scene(5, size, f"images_{scale}").items() if n != "transforms.json"}
    path = write_folder(tmp_path / "s", files)
    assert window(path, replace(PLAN, size=(32, 64))).source_size == (45, 80)
    assert window(path, replace(PLAN, size=(400, 400))).source_size == (180, 320)


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    files = {**scene(8), "images/frame_00003.png": picture(3, (20, 32))}
    with pytest.raises(InputError, match=r"frame_00003\.png has 20x32 pixels, others have 18x32"):
        window(write_zip(tmp_path / "s.zip", files))


def test_turned_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="made of pictures of 32x18 pixels, these have 18x32: they are turned"):
        window(write_zip(tmp_path / "s.zip", scene(6, described=(32, 18))))


def nan(poses: list) -> None:
    poses[2]["transform_matrix"][0][0] = float("nan")


def scaled(poses: list) -> None:
    poses[2]["transform_matrix"][0][0] = 1.5


def mirrored(poses: list) -> None:
    poses[2]["transform_matrix"][0][0] = -1.0


def doubled(poses: list) -> None:
    poses.append(poses[0])


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [(nan, "not finite"), (scaled, "no rotation"), (mirrored, "mirrored"), (doubled, "twice")],
)
def test_matrices_that_are_no_poses_are_refused(tmp_path: Path, break_it: object, reason: str) -> None:
    files = scene(6)
    poses = json.loads(files["transforms.json"])
    break_it(poses["frames"])  # type: ignore[operator]
    with pytest.raises(InputError, match=rf"transforms\.json.*{reason}"):
        window(write_zip(tmp_path / "s.zip", {**files, "transforms.json": json.dumps(poses).encode()}))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({k: v for k, v in scene(6).items() if k.startswith("images")}, r"no transforms\.json: there are no poses"),
        ({k: v for k, v in scene(6).items() if k == "transforms.json"}, "none of 6 posed pictures is there"),
        ({**scene(6), "transforms.json": b"{"}, "no JSON"),
        ({**scene(6), "images/frame_00001.jpg": picture(1, kind="JPEG")}, "1 frames are there twice"),
        ({**scene(6), "images/frame_00001.png": picture(1)[:30]}, r"frame_00001\.png cannot be read as an image"),
    ],
    ids=["no-poses", "no-pictures", "no-json", "twice", "cut-off"],
)
@pytest.mark.parametrize("packed", [True, False])
def test_broken_scenes_are_told_by_their_file(
    tmp_path: Path, files: dict[str, bytes], reason: str, packed: bool
) -> None:
    path = write_zip(tmp_path / "s.zip", files) if packed else write_folder(tmp_path / "s", files)
    with pytest.raises(InputError, match=reason):
        window(path)


def test_models_of_colmap_give_the_same_cameras(tmp_path: Path) -> None:
    expected = window(write_folder(tmp_path / "s", scene(12)))
    found = window(write_folder(tmp_path / "other" / "s", colmap(12)), colmap=True)
    assert found.cameras is not None and expected.cameras is not None and found.start == expected.start
    assert shown(found) == shown(expected)
    torch.testing.assert_close(found.cameras.poses, expected.cameras.poses)
    torch.testing.assert_close(found.cameras.intrinsics, expected.cameras.intrinsics)


def test_irregular_times_are_brought_to_the_rate(tmp_path: Path) -> None:
    files = scene(40)
    poses = json.loads(files["transforms.json"])
    for number, frame in enumerate(poses["frames"]):  # 14 pictures a second, then 7
        frame["time"] = number / 14 if number < 20 else 20 / 14 + (number - 20) / 7
    path = write_zip(tmp_path / "s.zip", {**files, "transforms.json": json.dumps(poses).encode()})
    found = window(path, replace(PLAN, frames=29))
    assert shown(found) == [*range(0, 20, 2), *range(20, 40)][found.start : found.start + 29]
    moved = torch.tensor(shown(found), dtype=torch.float64)
    assert positions(found).tolist() == pytest.approx((moved - moved[0]).tolist())


def test_scenes_are_found_in_any_depth_and_sorted(tmp_path: Path) -> None:
    write_zip(tmp_path / "2K" / "c.zip", scene(2))
    write_zip(tmp_path / "1K" / "deep" / "b.ZIP", scene(2))
    write_folder(tmp_path / "2K" / "a", scene(2))
    write_folder(tmp_path / "2K" / "c", scene(2))  # Unpacked beside its zip.
    write_zip(tmp_path / "cache" / "d.zip", scene(2))
    found = find_scenes(tmp_path, colmap=False, zips=True, apart=[tmp_path / "cache"])
    assert [(s.name, s.path.name) for s in found] == [("a", "a"), ("b", "b.ZIP"), ("c", "c.zip")]
    write_zip(tmp_path / "3K" / "a.zip", scene(2))
    with pytest.raises(InputError, match="2 scenes share a name"):
        find_scenes(tmp_path, colmap=False, zips=True, apart=[tmp_path / "cache"])
