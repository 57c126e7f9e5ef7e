"""The scripts whose names and flags users of Cosmos know."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cosmos.data.embeddings import read_embedding
from nemo_cosmos.models.text import save_tiny_text_encoder

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name, *arguments):
    return subprocess.run([sys.executable, TOOLS / name, *map(str, arguments)], capture_output=True, text=True)


def test_t5_script_writes_pickles_and_goes_on(tmp_path):
    (tmp_path / "metas").mkdir()
    (tmp_path / "metas/a.txt").write_text("a red disc moves left")
    save_tiny_text_encoder(tmp_path / "models/tiny", width=16)
    flags = ("--dataset_path", tmp_path, "--pretrained_model_name_or_path", "tiny", "--cache_dir", tmp_path / "models")
    result = tool("get_t5_embeddings.py", *flags)
    assert result.returncode == 0, result.stderr
    assert read_embedding(tmp_path / "t5_xxl/a.pickle").shape == (6, 16)


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
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
    ["get_t5_embeddings.py", "download_diffusion_example_data.py", "download_tokenizer_example_data.py"],
)
def test_help_shows_an_example(name):
    result = tool(name, "--help")
    assert result.returncode == 0 and f"python tools/{name}" in result.stdout
