"""The batch of Video2World inference that is made from a folder of images."""

import json

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.batch_input import write_batch_input


def folder(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_images_beside_their_captions(tmp_path):
    data = folder(tmp_path / "d", {"b.PNG": "", "b.txt": " grüße 🤖\n", "a.jpg": "", "a.txt": "x", "notes.md": ""})
    assert write_batch_input(data, "out", tmp_path / "new/batch.json") == 2
    assert json.loads((tmp_path / "new/batch.json").read_text(encoding="utf-8")) == [
        {"input_video": str(data / "a.jpg"), "prompt": "x", "output_video": "out/a.mp4"},
        {"input_video": str(data / "b.PNG"), "prompt": "grüße 🤖", "output_video": "out/b.mp4"},
    ]


def test_the_cosmos_folder_and_outputs_of_one_name(tmp_path):
    data = folder(tmp_path / "d", {"images/a.jpg": "", "images/a.png": "", "images/s/c.jpg": ""})
    folder(data / "metas", {"a.txt": "x", "s/c.txt": "y"})
    write_batch_input(data, "out", tmp_path / "batch.json")
    requests = json.loads((tmp_path / "batch.json").read_text())
    assert [request["prompt"] for request in requests] == ["x", "x", "y"]
    assert len({request["output_video"] for request in requests}) == 3


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.jpg": ""}, r"1 of 1 images have no caption: .*a\.txt missing"),
        ({"a.mp4": ""}, "holds no image"),
        ({}, "no folder"),
    ],
)
def test_nothing_is_written_for_what_is_incomplete(tmp_path, files, words):
    data = folder(tmp_path / "d", files)
    with pytest.raises(InputError, match=words):
        write_batch_input(data, "out", tmp_path / "batch.json")
    assert not (tmp_path / "batch.json").exists()
