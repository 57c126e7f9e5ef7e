"""The scripts whose names and flags users of Cosmos know."""

import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_cosmos.data.embeddings import read_embedding
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import save_tiny_text_encoder

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name, *arguments):
    return subprocess.run([sys.executable, TOOLS / name, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def run_here(monkeypatch):
    """Runs a script's main in this process, which has loaded what it needs."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(TOOLS / name), run_name="script")["main"]()

    return run


def test_t5_script_writes_pickles_and_goes_on(tmp_path):
    (tmp_path / "metas").mkdir()
    (tmp_path / "metas/a.txt").write_text("a red disc moves left")
    save_tiny_text_encoder(tmp_path / "models/tiny", width=16)
    flags = ("--dataset_path", tmp_path, "--pretrained_model_name_or_path", "tiny", "--cache_dir", tmp_path / "models")
    result = tool("get_t5_embeddings.py", *flags)
    assert result.returncode == 0, result.stderr
    assert read_embedding(tmp_path / "t5_xxl/a.pickle").shape == (6, 16)


def test_one_prompt_for_all_images_is_read_as_upstream_does(tmp_path, run_here):
    (tmp_path / "images").mkdir()
    for name in ("a", "b.c"):
        (tmp_path / f"images/{name}.jpg").touch()
    save_tiny_text_encoder(tmp_path / "google-t5/t5-11b", width=16)
    flags = (
        "--dataset_path",
        tmp_path,
        "--cache_dir",
        tmp_path,
        "--prompt",
        "An image of sks teal robot.",
        "--is_image",
    )
    run_here("get_t5_embeddings_from_cosmos_nemo_assets.py", *flags)
    for name in ("a", "b.c"):
        assert (tmp_path / f"metas/{name}.txt").read_text() == "An image of sks teal robot."
        with (tmp_path / f"t5_xxl/{name}.pickle").open("rb") as file:
            content = pickle.load(file)
        assert isinstance(content, list) and len(content) == 1
        assert content[0].dtype == np.float16 and content[0].ndim == 2 and content[0].shape[1] == 16


def test_prompts_of_a_table(tmp_path, run_here):
    (tmp_path / "table.csv").write_text('file_name,prompt\nvideos/0.mp4,"Pick up, then fold"\n1.mp4,push, gently\n')
    save_tiny_text_encoder(tmp_path / "tiny", width=16)
    flags = ("--dataset_path", tmp_path, "--meta_csv", tmp_path / "table.csv", "--prompt_prefix", "A robot.")
    run_here("get_t5_embeddings_from_groot_dataset.py", *flags, "--pretrained_model_name_or_path", tmp_path / "tiny")
    assert (tmp_path / "metas/0.txt").read_text() == "A robot. Pick up, then fold"
    assert (tmp_path / "metas/1.txt").read_text() == "A robot. push, gently"
    assert sorted(path.name for path in (tmp_path / "t5_xxl").glob("*.pickle")) == ["0.pickle", "1.pickle"]


def test_every_camera_has_captions_embeddings_and_a_prefix(tmp_path, run_here, caplog):
    cameras = ("front", "front_left", "front_right", "side_left", "side_right")
    for camera in cameras:
        (tmp_path / f"videos/pinhole_{camera}").mkdir(parents=True)
        for name in ("a", "b"):
            (tmp_path / f"videos/pinhole_{camera}/{name}.mp4").touch()
    (tmp_path / "metas/pinhole_front").mkdir(parents=True)
    (tmp_path / "metas/pinhole_front/a.txt").write_text("a car waits")
    save_tiny_text_encoder(tmp_path / "google-t5/t5-11b", width=16)
    flags = ("--dataset_path", tmp_path, "--cache_dir", tmp_path, "--prompt", "A video of car driving on the road.")
    run_here("get_t5_embeddings_from_waymo.py", *flags)
    prefixes = [read_embedding(tmp_path / f"cache/prefix_t5_embeddings_pinhole_{camera}.pickle") for camera in cameras]
    assert len({tuple(prefix.flatten().tolist()) for prefix in prefixes}) == 5
    road, waits = (tmp_path / f"t5_xxl/pinhole_{place}.pickle" for place in ("side_left/a", "front/a"))
    assert (tmp_path / "metas/pinhole_side_left/b.txt").read_text() == "A video of car driving on the road."
    assert not torch.equal(read_embedding(road)[:1], read_embedding(waits)[:1])
    assert "1 captions differ from the prompt and stay" in caplog.text
    with road.open("rb") as file:
        (array,) = pickle.load(file)
    assert array.dtype == np.float16 and len(list((tmp_path / "t5_xxl").rglob("*.pickle"))) == 10
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pickle")}
    (tmp_path / "metas/pinhole_front_left/b.txt").write_text("a car turns left")
    run_here("get_t5_embeddings_from_waymo.py", *flags)
    changed = [file for file, time in before.items() if file.stat().st_mtime_ns != time]
    assert changed == [tmp_path / "t5_xxl/pinhole_front_left/b.pickle"]
    (tmp_path / "my.yaml").write_text("cameras:\n  pinhole_front_left: {view_id: 3, prefix: Looks left.}\n")
    run_here("get_t5_embeddings_from_waymo.py", *flags, "--rig", tmp_path / "my.yaml")
    changed = [file.name for file, time in before.items() if file.stat().st_mtime_ns != time]
    assert sorted(changed) == ["b.pickle", "prefix_t5_embeddings_pinhole_front_left.pickle"]
    (tmp_path / "videos/pinhole_front/b.mp4").unlink()
    with pytest.raises(InputError, match="b: pinhole_front missing"):
        run_here("get_t5_embeddings_from_waymo.py", *flags)


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("get_t5_embeddings_from_cosmos_nemo_assets.py", ("--dataset_path", "nowhere"), "nowhere/videos is missing"),
        ("get_t5_embeddings_from_waymo.py", ("--dataset_path", "nowhere"), "expected videos/CAMERA/NAME.mp4"),
        ("get_t5_embeddings.py", ("--dataset_path", "nowhere"), "nowhere/metas holds no caption files"),
        ("download_diffusion_example_data.py", (), "give --do_download"),
        ("download_tokenizer_example_data.py", ("--do_clip", "--dataset_path", "nowhere"), "nowhere/metas"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(name, flags, words):
    result = tool(name, *flags)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: ") and words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "name",
    [
        "get_t5_embeddings.py",
        "get_t5_embeddings_from_cosmos_nemo_assets.py",
        "get_t5_embeddings_from_groot_dataset.py",
        "get_t5_embeddings_from_waymo.py",
        "extract_images_from_videos.py",
        "prepare_batch_input_json.py",
        "download_predict2_checkpoints.py",
        "download_diffusion_example_data.py",
        "download_tokenizer_example_data.py",
    ],
)
def test_help_shows_an_example(name):
    result = tool(name, "--help")
    assert result.returncode == 0 and f"python tools/{name}" in result.stdout
