"""The scripts whose names and flags users of Cosmos know."""

import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nemo_cosmos.data.embeddings import read_embedding
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


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("get_t5_embeddings_from_cosmos_nemo_assets.py", ("--dataset_path", "nowhere"), "nowhere/videos is missing"),
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
