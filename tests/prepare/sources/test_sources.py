"""Which source reads what lies at a path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources import KINDS, SourceOptions, open_source


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("words")
    return root


def opened(path: Path, kind: str = "auto") -> tuple[str, list[str], int | None]:
    source = open_source(path, kind)
    return source.kind, [clip.name for clip in source.clips], source.frames


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("videos/a.mp4", "metas/a.txt"), ("clips", ["videos/a.mp4"], None)),
        (("a.MOV", "a.txt"), ("clips", ["a.MOV"], None)),
        (("images/a.jpg", "metas/a.txt"), ("images", ["images/a.jpg"], 1)),
        (("images/day/a.JPEG", "metas/day/a.txt"), ("images", ["images/day/a.JPEG"], 1)),
        (("a.png", "a.txt", "b.webp", "b.txt"), ("images", ["a.png", "b.webp"], 1)),
        (("videos/a.mp4", "images/b.jpg", "metas/a.txt", "metas/b.txt"), ("clips", ["videos/a.mp4"], None)),
        (("a.mp4", "a.txt", "a.jpg"), ("clips", ["a.mp4"], None)),
    ],
)
def test_folders(tmp_path: Path, names: tuple[str, ...], expected: object) -> None:
    assert opened(write(tmp_path, *names)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"image": "a.jpg", "caption": "x"}, ("images", ["a.jpg"], 1)),
        ({"file_name": "a.png", "text": "x"}, ("images", ["a.png"], 1)),
        ({"file_name": "a.mp4", "text": "x"}, ("clips", ["a.mp4"], None)),
        ({"video": "a.mp4", "image": "cover.jpg", "caption": "x"}, ("clips", ["a.mp4"], None)),
    ],
)
def test_lists(tmp_path: Path, line: dict[str, str], expected: object) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps(line) + "\n")
    assert opened(tmp_path / "list.jsonl") == opened(tmp_path) == expected


def test_both_kinds_in_one_folder_are_said_aloud(tmp_path: Path) -> None:
    write(tmp_path, "videos/a.mp4", "images/b.jpg", "metas/a.txt", "metas/b.txt")
    assert "--layout images reads the images" in open_source(tmp_path).note
    assert opened(tmp_path, "images") == ("images", ["images/b.jpg"], 1)
    assert open_source(tmp_path, "images").note == ""


def test_images_have_captions_as_clips_do(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg", "images/b.jpg", "images/notes.doc", "metas/a.txt")
    with pytest.raises(InputError, match=r"1 clips have no caption: images/b\.jpg \(expected .*metas/b\.txt\)"):
        open_source(tmp_path)
    clips = open_source(tmp_path, options=SourceOptions(default_caption="none")).clips
    assert [clip.read_caption() for clip in clips] == ["words", "none"] and all(clip.still for clip in clips)
    source = open_source(tmp_path, options=SourceOptions(captions_needed=False))
    assert [clip.has_caption for clip in source.clips] == [True, False] and source.not_read == "1 .doc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "expected a JSON object with 'video'"),
        ('{"image": "a.jpg"}\n{"caption": "x"}', "line 2 has no 'image'"),
        ('{"image": 5}', "'image' is 5, expected a string"),
        ("", "names no clips"),
    ],
)
def test_malformed_lists_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "list.jsonl")


def test_what_is_not_there(tmp_path: Path) -> None:
    for kind in KINDS:
        with pytest.raises(InputError, match="neither a folder nor"):
            open_source(tmp_path / "gone", kind)
    with pytest.raises(InputError, match="holds no image: it holds no"):
        open_source(write(tmp_path, "a.mp4"), "images")
    with pytest.raises(InputError, match="layout 'zip': expected one of auto, dl3dv, nerfstudio, colmap, images"):
        open_source(tmp_path, "zip")
