"""Folders of eight files as other tools write them: read lazily, and looked at before a run begins."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_cosmos.commands.preview import preview
from nemo_cosmos.commands.validate import validate
from nemo_cosmos.data.eight_files import PARTS, EightFileDataset
from nemo_cosmos.data.sample import collate
from nemo_cosmos.errors import InputError
from tests.interface.verbs import command


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def write_sample(
    folder: Path, number: int, *, frames: int = 17, grid: tuple[int, int] = (4, 6), maps: int | None = None
) -> None:
    """As the original tool writes it; the k-th ray map is filled with k."""
    generator = torch.Generator().manual_seed(number)
    height, width = grid
    latent_frames = 1 + (frames - 1) // 8
    latent = torch.randn(16, latent_frames, height, width, generator=generator).bfloat16()
    rays = torch.arange(maps or frames).float()[:, None, None, None].expand(-1, 6, height, width).contiguous()
    text = torch.zeros(512, 16).bfloat16()
    text[: 3 + number] = torch.randn(3 + number, 16, generator=generator).bfloat16()
    mask = torch.zeros(1, height, width).bfloat16()
    mask[:, :, [0, -1]] = 1
    tensors = {
        "video_latent": latent, "conditioning_latent": latent, "plucker_embeddings": rays, "padding_mask": mask,
        "image_size": torch.tensor([[height * 8, width * 8, height * 8, width * 8 - 24]]).half(),
        "t5_text_embeddings": text, "t5_text_mask": torch.ones(512).bfloat16(),
    }  # fmt: skip
    for name, value in tensors.items():
        torch.save(value, folder / f"{number}.{name}.pth")
    info = {"height": 720, "width": 1280, "fps": 7.0, "num_frames": frames, "video_path": "a.mp4", "caption": "a room"}
    (folder / f"{number}.info.json").write_text(json.dumps({**info, "start_frame": 5}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "samples"
    path.mkdir()
    for number in (0, 1, 2, 10):
        write_sample(path, number)
    return path


def test_samples_are_read_in_the_order_of_their_numbers(folder: Path) -> None:
    samples = EightFileDataset(folder)
    assert samples.keys == ["0", "1", "2", "10"] and samples.fps == [7.0] and samples.text_width == 16
    one = samples[3]
    assert one.latent.dtype == torch.bfloat16 and one.latent.shape == (16, 3, 4, 6)
    assert one.text.shape == (13, 16) and one.caption == "a room" and one.source == "a.mp4 from frame 5"
    assert (one.fps, one.num_frames, one.image_size) == (7.0, 17, (32, 48, 32, 24))
    assert one.padding_mask is not None and one.padding_mask[0, 0].tolist() == [1, 0, 0, 0, 0, 1]
    batch = collate([(0, samples[0]), (1, one)], 16)
    assert batch.plucker is not None and batch.plucker.shape == (2, 6, 3, 4, 6)


@pytest.mark.parametrize(("mapping", "frames"), [("first", [0, 1, 9]), ("last", [0, 8, 16]), ("middle", [0, 5, 13])])
def test_a_latent_frame_is_given_the_rays_of_the_chosen_frame(folder: Path, mapping: Any, frames: list[int]) -> None:
    rays = EightFileDataset(folder, mapping=mapping)[0].plucker
    assert rays is not None and rays[0, :, 0, 0].tolist() == frames


def test_a_map_too_few_is_refused_or_the_first_is_doubled(folder: Path) -> None:
    write_sample(folder, 3, maps=16)
    with pytest.raises(
        InputError, match=r"1 of 5 samples are broken \(3: 16 ray maps for 17 frames.*repair_poses=true"
    ):
        EightFileDataset(folder)
    rays = EightFileDataset(folder, repair_poses=True, mapping="last")[3].plucker
    assert rays is not None and rays[0, :, 0, 0].tolist() == [0, 7, 15]
    write_sample(folder, 4, maps=15)
    with pytest.raises(
        InputError, match=r"plucker_embeddings\.pth has shape \(15, 6, 4, 6\), expected \(17, 6, 4, 6\)"
    ):
        EightFileDataset(folder, repair_poses=True)


@pytest.mark.parametrize("part", PARTS)
def test_incomplete_samples_are_named(folder: Path, part: str) -> None:
    (folder / f"1.{part}").unlink()
    with pytest.raises(InputError, match=rf"1 of 4 samples are broken \(1: 1\.{part} missing\)"):
        EightFileDataset(folder)


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("padding_mask.pth", torch.zeros(1, 32, 48), r"expected \(1, 4, 6\)"),
        ("video_latent.pth", torch.zeros(16, 4, 4, 6), "does not fit 17 frames|expected"),
        ("image_size.pth", torch.zeros(4), r"expected \(1, 4\)"),
        ("t5_text_embeddings.pth", torch.zeros(512), "expected"),
        ("plucker_embeddings.pth", torch.zeros(17, 3, 4, 6), r"expected \(17, 6, 4, 6\)"),
        ("video_latent.pth", {"latent": torch.zeros(1)}, "expected a tensor of real numbers"),
        ("video_latent.pth", torch.zeros(2, dtype=torch.int64), "expected a tensor of real numbers"),
        ("t5_text_mask.pth", Code(), "not unpickled"),
    ],
)
def test_misshapen_and_foreign_files_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: Any, reason: str
) -> None:
    monkeypatch.chdir(folder)
    torch.save(value, folder / f"2.{part}")
    with pytest.raises(InputError, match=rf"1 of 4 samples are broken \(2: .*({reason})"):
        EightFileDataset(folder)
    assert not (folder / "hacked").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"fps": 0, "num_frames": 17}', '{"fps": 7, "num_frames": "17"}'])
def test_records_that_are_none_are_named(folder: Path, content: str) -> None:
    (folder / "0.info.json").write_text(content)
    with pytest.raises(InputError, match=r"1 of 4 samples are broken \(0: .*0\.info\.json"):
        EightFileDataset(folder)


def test_a_mask_of_one_side_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = torch.zeros(1, 4, 6)
    mask[:, :, 0] = 1
    torch.save(mask.bfloat16(), folder / "0.padding_mask.pth")
    with caplog.at_level(logging.WARNING):
        EightFileDataset(folder)
    assert "the padding mask of 1 samples covers one side" in caplog.text


def test_the_digest_changes_with_any_tensor(folder: Path) -> None:
    before = EightFileDataset(folder).digest
    assert EightFileDataset(folder).digest == before
    write_sample(folder, 2)
    assert EightFileDataset(folder).digest == before
    latent = torch.load(folder / "2.video_latent.pth", weights_only=True)
    latent[3, 1, 2, 2] += 1
    torch.save(latent, folder / "2.video_latent.pth")
    assert EightFileDataset(folder).digest != before


def test_buckets_are_the_shapes(folder: Path) -> None:
    write_sample(folder, 3, grid=(6, 4))
    buckets = EightFileDataset(folder).buckets
    assert [(bucket.shape, list(bucket.samples)) for bucket in buckets] == [
        ((16, 3, 4, 6), [0, 1, 2, 4]),
        ((16, 3, 6, 4), [3]),
    ]


def test_validate_lists_every_broken_sample(folder: Path) -> None:
    assert "fit for training" in command(validate, folder)
    write_sample(folder, 3, maps=16)
    (folder / "2.image_size.pth").unlink()
    latent = torch.load(folder / "1.video_latent.pth", weights_only=True)
    latent[0, 0, 0, 0] = float("nan")
    torch.save(latent, folder / "1.video_latent.pth")
    with pytest.raises(InputError, match="3 errors"):
        command(validate, folder)


def test_preview_shows_a_folder(folder: Path, tmp_path: Path) -> None:
    from nemo_cosmos.prepare.camera_dataset import save_tiny_models

    tokenizer, _ = save_tiny_models(tmp_path / "tiny")
    said = command(preview, folder, "--tokenizer", tokenizer, "--limit", 1, "--out", tmp_path / "page.html")
    assert "1 samples" in said and "4 of eight files each" in (tmp_path / "page.html").read_text()
