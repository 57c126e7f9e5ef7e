"""The tokenizer download, with the hub replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_cosmos.download.tokenizers import REQUIRED, download
from nemo_cosmos.errors import InputError


def test_folder_layout(tmp_path: Path) -> None:
    asked = []

    def fetch(repo: str, *, local_dir: str, allow_patterns: list[str]) -> str:
        asked.append(repo)
        Path(local_dir).mkdir(parents=True)
        for name in REQUIRED:
            (Path(local_dir) / name).write_text("x")
        assert "*.jit" in allow_patterns
        return local_dir

    folders = download(["CV8x8x8-720p", "DV4x8x8-360p"], tmp_path, fetch)
    assert asked == ["nvidia/Cosmos-Tokenize1-CV8x8x8-720p", "nvidia/Cosmos-Tokenize1-DV4x8x8-360p"]
    assert [f.name for f in folders] == ["Cosmos-Tokenize1-CV8x8x8-720p", "Cosmos-Tokenize1-DV4x8x8-360p"]


def test_errors_name_what_to_do(tmp_path: Path) -> None:
    def refuse(repo: str, **_: object) -> str:
        raise OSError("no route")

    def incomplete(repo: str, *, local_dir: str, allow_patterns: list[str]) -> str:
        Path(local_dir).mkdir(parents=True)
        return local_dir

    with pytest.raises(InputError, match="unknown tokenizer type 'CV8x8x8'"):
        download(["CV8x8x8"], tmp_path, refuse)
    with pytest.raises(InputError, match="accept its licence"):
        download(["CV8x8x8-720p"], tmp_path, refuse)
    with pytest.raises(InputError, match=r"model\.pt is missing"):
        download(["CV8x8x8-720p"], tmp_path, incomplete)
