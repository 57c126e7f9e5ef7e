"""Captions of scenes: JSON or a pickle of texts, which is never unpickled."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources.scene_captions import caption_of, read_scene_captions

CAPTIONS = {"a/0": "a room", "a/1": "the window", "b": "ein Zimmer für zwei", "long": "x" * 70_000}


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(CAPTIONS, protocol))
    assert read_scene_captions(tmp_path / "c.pkl") == CAPTIONS
    one = {"a/0": "same", "b/0": "same"}  # The second value is fetched from the pickle's memory.
    (tmp_path / "one.pkl").write_bytes(pickle.dumps(one, protocol))
    assert read_scene_captions(tmp_path / "one.pkl") == one


def test_json_is_read_with_and_without_a_mark(tmp_path: Path) -> None:
    text = json.dumps(CAPTIONS, ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "c.json").write_text(f"\n {text}", encoding=encoding) if encoding == "utf-8" else (
            tmp_path / "c.json"
        ).write_text(text, encoding=encoding)
        assert read_scene_captions(tmp_path / "c.json") == CAPTIONS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"a/0": Code()}), "no dictionary of texts needs"),
        (pickle.dumps(Code()), "no dictionary of texts needs"),
        (b"cos\nsystem\n(S'touch hacked'\ntR.", "no dictionary of texts needs"),
        (pickle.dumps({"a/0": 3}), "no dictionary of texts needs"),
        (pickle.dumps({"a/0": ["x"]}), "no dictionary of texts needs"),
        (pickle.dumps({"a/0": {}}), "more than texts"),
        (pickle.dumps("text"), "no dictionary"),
        (pickle.dumps(CAPTIONS)[:-1], "was not loaded"),
        (pickle.dumps(CAPTIONS)[:40], "was not loaded"),
        (b"", "was not loaded"),
        (b"\x80\x04r\xff\xff\xff\x7f.", "was not loaded"),
        (b'{"a/0": 3}', "caption of 'a/0' is a int"),
        (b'["a"]', "holds a list"),
        (b'{"a/0": ', "no JSON"),
        (b'{"a/0": "\\ud800"}', "no UTF-8 text"),
    ],
)
def test_anything_else_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pkl").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_scene_captions(tmp_path / "c.pkl")
    assert [file.name for file in tmp_path.iterdir()] == ["c.pkl"]


def test_a_chunk_without_a_caption_takes_that_of_its_scene() -> None:
    assert caption_of(CAPTIONS, "a", 1) == "the window"
    assert caption_of(CAPTIONS, "a", 2) == "a room"
    assert caption_of(CAPTIONS, "b", 5) == "ein Zimmer für zwei"
    assert caption_of(CAPTIONS, "c", 0) is None
