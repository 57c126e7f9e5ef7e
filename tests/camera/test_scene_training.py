"""Training on prepared scenes: shards and folders of eight files give the network the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_cosmos.commands.prepare import prepare
from nemo_cosmos.commands.validate import validate
from nemo_cosmos.data.record import read_data_record
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.prepare.camera_dataset import CameraDatasetSettings, prepare_camera_dataset, save_tiny_models
from nemo_cosmos.training.run import train
from nemo_cosmos.training.samples import open_samples
from tests.data.scene_files import colmap, scene, write_folder, write_zip
from tests.interface.verbs import command
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses, small_run

CAMERA = "tiny-video2world-camera"
WIDE_TEXT = "{num_layers: 2, hidden_size: 64, num_attention_heads: 4, text_width: 64, adaln_lora_dim: 8, max_frames: 16, max_height: 32, max_width: 32}"  # noqa: E501


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes as shards and as a folder of eight files, made by the commands."""
    path = tmp_path_factory.mktemp("work")
    for name in ("a", "b"):
        write_zip(path / "scenes" / f"{name}.zip", scene(30))
    (path / "captions.json").write_text(json.dumps({"a": "a room", "b": "a hall"}))
    tokenizer, text = save_tiny_models(path / "cache" / "tiny_models")
    said = command(
        prepare, path / "scenes", path / "shards", "--layout", "dl3dv", "--tokenizer", tokenizer,
        "--text-encoder", text, "--frames", 17, "--size", "32x48", "--chunks", 2, "--workers", 0,
        "--scene-captions", path / "captions.json",
    )  # fmt: skip
    assert "prepared 4 samples" in said and "scenes/hour" in said
    assert "fit for training" in command(validate, path / "shards")
    prepare_camera_dataset(
        CameraDatasetSettings(
            dataset_path=str(path / "scenes"), output_path=str(path / "folder"), tiny=True,
            video_processing_cache_path=str(path / "cache"), path_to_caption_dict=str(path / "captions.json"),
            num_chunks=2, height=32, width=48, num_frames=17, workers=0,
        )
    )  # fmt: skip
    return path


def config(data: Path, output: Path, *words: str) -> Any:
    return small_run(data, output, f"model.overrides={WIDE_TEXT}", "data.text_length=16", *words, preset=CAMERA)


def test_folders_and_shards_are_the_same_samples(work: Path, tmp_path: Path) -> None:
    dit = DiTConfig.preset(CAMERA, text_width=64)
    opened = [
        open_samples(config(work / name, tmp_path, "data.camera_frames=mean"), dit) for name in ("shards", "folder")
    ]
    assert opened[0].latent_shape == opened[1].latent_shape == (16, 3, 4, 6)
    assert len(opened[0].source) == 4 and opened[0].record.fps == opened[1].record.fps == [7.0]
    for number in range(4):
        shard, folder = (samples.source[number] for samples in opened)
        assert torch.equal(shard.latent, folder.latent)
        torch.testing.assert_close(shard.plucker, folder.plucker, atol=1e-6, rtol=1e-5)


def test_the_choice_of_frames_reaches_the_samples(work: Path, tmp_path: Path) -> None:
    dit = DiTConfig.preset(CAMERA, text_width=64)
    rays = {
        mapping: open_samples(config(work / "shards", tmp_path, f"data.camera_frames={mapping}"), dit)
        .source[0]
        .plucker
        for mapping in ("first", "last")
    }
    assert torch.equal(rays["first"][:, 0], rays["last"][:, 0]) and not torch.equal(rays["first"], rays["last"])


def test_a_run_on_a_folder_records_its_samples(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    words = ("checkpoint.export=false", "data.micro_batch=2", "data.global_batch=2", "trainer.max_steps=2")
    run_processes(1, train, config(work / "folder", output, *words), log=output / "logs")
    assert len(losses(output)) == 2 and all(map(math.isfinite, losses(output)))
    record = read_data_record(output)
    assert record is not None and record.samples == 4 and record.fps == [7.0]


def test_the_repair_is_for_folders_alone(work: Path, tmp_path: Path) -> None:
    dit = DiTConfig.preset(CAMERA, text_width=64)
    with pytest.raises(InputError, match=r"data\.repair_poses=true has no effect on shards"):
        open_samples(config(work / "shards", tmp_path, "data.repair_poses=true"), dit)


def test_options_of_scenes_are_refused_for_clips(work: Path, tmp_path: Path) -> None:
    (tmp_path / "clips" / "videos").mkdir(parents=True)
    (tmp_path / "clips" / "videos" / "a.mp4").write_bytes(b"")
    tiny = work / "cache" / "tiny_models"
    models = ("--tokenizer", tiny / "tokenizer", "--text-encoder", tiny / "text_encoder")
    for words, reason in (
        ((tmp_path / "clips", tmp_path / "o", *models, "--chunks", 2), "read as clips: chunks, seed"),
        ((work / "scenes", tmp_path / "o", *models, "--default-caption", "x", "--stride", 2), "holds scenes"),
        ((work / "scenes", tmp_path / "o", *models[:2], "--default-caption", "x"), "name a text encoder"),
        ((work / "scenes", tmp_path / "o", *models), "2 scenes have no caption"),
    ):
        with pytest.raises(InputError, match=reason):
            command(prepare, *words)
        assert not (tmp_path / "o").exists()


def test_own_captures_are_told_by_what_lies_there(work: Path, tmp_path: Path) -> None:
    tiny = work / "cache" / "tiny_models"
    models = ("--tokenizer", tiny / "tokenizer", "--text-encoder", tiny / "text_encoder")
    write_folder(tmp_path / "nerfstudio" / "garden", scene(18))
    write_folder(tmp_path / "colmap" / "garden", colmap(18))
    for kind in ("nerfstudio", "colmap"):
        for layout, place in ((("--layout", kind), tmp_path / kind), ((), tmp_path / kind / "garden")):
            out = tmp_path / f"out-{kind}-{len(layout)}"
            said = command(
                prepare, place, out, *layout, *models, "--default-caption", "a garden", "--frames", 17,
                "--size", "32x48", "--workers", 0,
            )  # fmt: skip
            assert "prepared 1 samples" in said
