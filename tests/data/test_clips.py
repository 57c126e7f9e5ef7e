"""Finding clips and captions in the layouts that users have."""

import json

import pytest

from nemo_cosmos.data.clips import find_clips, read_caption_file
from nemo_cosmos.errors import InputError


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def cosmos_folder(path, names=("b", "a")):
    for name in names:
        touch(path / "videos" / f"{name}.mp4")
        touch(path / "metas" / f"{name}.txt", f" caption {name}\n")


def test_cosmos_folder_is_sorted_by_key(tmp_path):
    cosmos_folder(tmp_path)
    touch(tmp_path / "videos" / "notes.md")
    touch(tmp_path / "hdvila-100M.jsonl", "{}")  # the download list of the guide is no dataset description
    clips = find_clips(tmp_path)
    assert [(c.key, c.name, c.read_caption()) for c in clips] == [
        ("a", "videos/a.mp4", "caption a"),
        ("b", "videos/b.mp4", "caption b"),
    ]


def test_plain_folder(tmp_path):
    touch(tmp_path / "one.MP4")
    touch(tmp_path / "one.txt", "words")
    assert [(c.key, c.read_caption()) for c in find_clips(tmp_path)] == [("one", "words")]


@pytest.mark.parametrize("keys", [("video", "caption"), ("file_name", "text")])
@pytest.mark.parametrize("given", ["file", "folder"])
def test_jsonl(tmp_path, keys, given):
    lines = [{keys[0]: f"sub/{n}.mp4", keys[1]: f"caption {n} 🤖"} for n in (2, 1)]
    touch(tmp_path / "metadata.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n")
    clips = find_clips(tmp_path / "metadata.jsonl" if given == "file" else tmp_path)
    assert [c.read_caption() for c in clips] == ["caption 1 🤖", "caption 2 🤖"]
    assert clips[0].video == tmp_path / "sub/1.mp4" and len({c.key for c in clips}) == 2


def test_clip_without_caption_is_named(tmp_path):
    cosmos_folder(tmp_path)
    (tmp_path / "metas" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"1 clips have no caption: videos/a\.mp4 .*--default-caption"):
        find_clips(tmp_path)
    clips = find_clips(tmp_path, default_caption="a road")
    assert [c.read_caption() for c in clips] == ["a road", "caption b"]


def test_jsonl_line_without_caption_is_named(tmp_path):
    touch(tmp_path / "list.jsonl", '{"video": "x.mp4", "caption": ""}\n{"video": "y.mp4"}\n')
    with pytest.raises(InputError, match=r"y\.mp4 \(line 2"):
        find_clips(tmp_path / "list.jsonl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "line 1 is not JSON"),
        ('["video"]', "line 1: expected a JSON object"),
        ('{"caption": "x"}', "line 1 has no 'video'"),
        ('{"video": 3, "caption": "x"}', "'video' is 3"),
        ("", "names no clips"),
    ],
)
def test_malformed_jsonl_is_named(tmp_path, text, words):
    touch(tmp_path / "list.jsonl", text)
    with pytest.raises(InputError, match=words):
        find_clips(tmp_path / "list.jsonl")


def test_two_clips_of_one_name_are_refused(tmp_path):
    line = '{"video": "x.mp4", "caption": "c"}\n'
    touch(tmp_path / "list.jsonl", line + line)
    with pytest.raises(InputError, match=r"share a name: x\.mp4"):
        find_clips(tmp_path / "list.jsonl")


def test_folder_without_clips(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.mp4 files"):
        find_clips(tmp_path)
    with pytest.raises(InputError, match="neither a folder"):
        find_clips(tmp_path / "nowhere")


def test_embeddings_are_found_or_named(tmp_path):
    cosmos_folder(tmp_path)
    touch(tmp_path / "t5_xxl" / "a.pickle")
    with pytest.raises(InputError, match=r"videos/b\.mp4 .*get_t5_embeddings"):
        find_clips(tmp_path, use_embeddings=True)
    touch(tmp_path / "t5_xxl" / "b.pickle")
    assert [c.embedding_file.name for c in find_clips(tmp_path, use_embeddings=True)] == ["a.pickle", "b.pickle"]


@pytest.mark.parametrize("content", ["grüße 🤖", "", "\ufeffwith a mark"])
def test_captions_of_any_text(tmp_path, content):
    touch(tmp_path / "c.txt", content)
    assert read_caption_file(tmp_path / "c.txt") == content.strip("\ufeff")


def test_caption_in_another_encoding_is_named(tmp_path):
    (tmp_path / "c.txt").write_bytes("grüße".encode("latin-1"))
    with pytest.raises(InputError, match=r"c\.txt is not UTF-8"):
        read_caption_file(tmp_path / "c.txt")


def test_odd_file_names_get_separate_keys(tmp_path):
    cosmos_folder(tmp_path, ("a.b", "a_b", "über", "clip 1", "🤖"))
    assert len({clip.key for clip in find_clips(tmp_path)}) == 5
