"""Finding clips and captions in the layouts that users have."""

import json

import pytest
import torch

from nemo_cosmos.data.clips import find_clips, not_read, read_caption_file
from nemo_cosmos.data.embeddings import record_captions, write_embedding
from nemo_cosmos.data.listing import expand_pattern
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
        (json.dumps({"video": "a\0b.mp4"}), "line 1: the 'video' .* NUL character"),
        (json.dumps({"video": "\ud800.mp4"}), "line 1: the 'video' .* is no UTF-8 text"),
    ],
)
def test_malformed_jsonl_is_named(tmp_path, text, words):
    touch(tmp_path / "list.jsonl", text)
    with pytest.raises(InputError, match=words):
        find_clips(tmp_path / "list.jsonl")


def test_captions_that_are_no_text_are_named(tmp_path):
    touch(tmp_path / "list.jsonl", json.dumps({"video": "a.mp4", "caption": "half \ud800"}))
    with pytest.raises(InputError, match=r"a\.mp4: its caption .* is no UTF-8 text"):
        find_clips(tmp_path / "list.jsonl")[0].read_caption()
    with pytest.raises(InputError, match=r"the default caption .* is no UTF-8 text"):
        find_clips(tmp_path / "list.jsonl", default_caption="byte \udcff")


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


def test_every_video_suffix_in_any_case_and_folder(tmp_path):
    """Captions lie at the same relative path, or flat where no other clip has the file name."""
    names = ["a.mp4", "B.MOV", "c.Mkv", "day/d.webm", "day/e.avi", "day/night/f.M4V"]
    for name in names:
        touch(tmp_path / "videos" / name)
    for name in ("a", "B", "c", "d", "day/e", "day/night/f"):
        touch(tmp_path / "metas" / f"{name}.txt", f"caption {name}")
    clips = find_clips(tmp_path)
    assert sorted(c.name for c in clips) == sorted(f"videos/{name}" for name in names)
    assert {c.key: c.read_caption() for c in clips}["day_d"] == "caption d"
    assert not_read(tmp_path) == ""


def test_what_is_not_read_is_counted_by_suffix(tmp_path):
    cosmos_folder(tmp_path)
    for name in ("x.MTS", "y.MTS", "sub/z.gif", "README", ".hidden.mts", ".cache/a.mp4"):
        touch(tmp_path / "videos" / name)
    assert not_read(tmp_path) == "2 .MTS, 1 .gif, 1 without suffix" and len(find_clips(tmp_path)) == 2
    touch(tmp_path / "plain" / "a.mp4")
    touch(tmp_path / "plain" / "a.txt", "x")
    touch(tmp_path / "plain" / "stray.txt", "x")
    assert not_read(tmp_path / "plain") == "1 .txt"
    touch(tmp_path / "empty" / "a.MTS")
    with pytest.raises(InputError, match=r"found 1 \.MTS"):
        find_clips(tmp_path / "empty")


def test_names_that_differ_by_folder_or_suffix_stay_apart(tmp_path):
    for name in ("a/x.mp4", "a_x.mp4", "a_x.mov"):
        touch(tmp_path / name)
        touch((tmp_path / name).with_suffix(".txt"), name)
    assert len({clip.key for clip in find_clips(tmp_path)}) == len({clip.title for clip in find_clips(tmp_path)}) == 3


def test_one_caption_file_is_not_shared_by_two_folders(tmp_path):
    for name in ("a/x.mp4", "b/x.mp4"):
        touch(tmp_path / "videos" / name)
    touch(tmp_path / "metas" / "x.txt", "which?")
    with pytest.raises(InputError, match=r"2 clips have no caption: videos/a/x\.mp4 \(expected .*metas/a/x\.txt"):
        find_clips(tmp_path)


def test_the_parent_of_datasets_is_no_dataset(tmp_path):
    cosmos_folder(tmp_path / "train")
    with pytest.raises(InputError, match=r"name one of them \(train\)"):
        find_clips(tmp_path)


@pytest.mark.parametrize("name", ["take [1]", "a b", "it's", '"q"', "-x", "100%", "a*b", "{x}", "über"])
def test_names_are_literal(tmp_path, name):
    cosmos_folder(tmp_path / name, (name,))
    (clip,) = find_clips(tmp_path / name)
    assert clip.video.name == f"{name}.mp4" and clip.read_caption() == f"caption {name}"
    assert expand_pattern(str(clip.video)) == [clip.video]


def test_patterns_inside_a_folder_whose_name_looks_like_one(tmp_path):
    for name in ("take [1]/a.mp4", "take [1]/b.mp4", "take 1/c.mp4"):
        touch(tmp_path / name)
    assert [p.name for p in expand_pattern(f"{tmp_path}/take [1]/*.mp4")] == ["a.mp4", "b.mp4"]
    assert [p.name for p in expand_pattern(f"{tmp_path}/take [0-9]/*.mp4")] == ["c.mp4"]
    assert [p.name for p in expand_pattern(f"{tmp_path}/**/[ac].mp4")] == ["c.mp4", "a.mp4"]


def test_reconstructions_are_no_clips(tmp_path):
    cosmos_folder(tmp_path)
    touch(tmp_path / "videos" / "reconstructions" / "a.mp4")
    assert [clip.key for clip in find_clips(tmp_path)] == ["a", "b"]


def test_links_to_folders_are_followed_once(tmp_path):
    touch(tmp_path / "disk" / "a.mp4")
    touch(tmp_path / "metas" / "day" / "a.txt", "x")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "day").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "videos")
    assert [clip.name for clip in find_clips(tmp_path)] == ["videos/day/a.mp4"]


def test_lists_with_a_mark_and_blank_lines(tmp_path):
    touch(tmp_path / "list.jsonl", '\ufeff\n{"video": "a.mp4", "caption": "x\u2028y"}\n\n{"video": 3}\n')
    with pytest.raises(InputError, match="line 4: 'video' is 3"):
        find_clips(tmp_path / "list.jsonl")
    (tmp_path / "list.jsonl").write_bytes("{'ü'".encode("latin-1"))
    with pytest.raises(InputError, match=r"list\.jsonl is not UTF-8"):
        find_clips(tmp_path / "list.jsonl")


def embed(folder, names):
    """Pickles of one row and the record that the tool writes, for captions as they are now."""
    files = []
    for name in names:
        file = folder / "t5_xxl" / f"{name}.pickle"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_embedding(file, torch.zeros(1, 8))
        files.append((file, (folder / "metas" / f"{name}.txt").read_text()))
    record_captions(folder / "t5_xxl", files)


def test_an_embedding_belongs_to_its_caption(tmp_path):
    cosmos_folder(tmp_path)
    embed(tmp_path, ("a", "b"))
    assert len(find_clips(tmp_path, use_embeddings=True)) == 2
    touch(tmp_path / "metas" / "a.txt", "edited")
    with pytest.raises(InputError, match=r"1 text embeddings .* another caption.*: videos/a\.mp4; run tools/get_t5"):
        find_clips(tmp_path, use_embeddings=True)
    write_embedding(tmp_path / "t5_xxl" / "a.pickle", torch.ones(1, 8))  # by another tool, for the new caption
    assert len(find_clips(tmp_path, use_embeddings=True)) == 2
    embed(tmp_path, ("a",))
    with (tmp_path / "t5_xxl" / "captions.jsonl").open("a") as record:
        record.write('{"file": "a.pickle", "capt')  # a call that was stopped
    assert len(find_clips(tmp_path, use_embeddings=True)) == 2


def test_embeddings_are_known_wherever_they_are_put(tmp_path):
    cosmos_folder(tmp_path)
    files = [tmp_path / "t5_xxl" / f"{name}.pickle" for name in "ab"]
    files[0].parent.mkdir()
    for number, file in enumerate(files):
        write_embedding(file, torch.full((1, 8), number))
    record_captions(tmp_path / "t5_xxl", [(file, f"caption {file.stem}") for file in files])
    assert len(find_clips(tmp_path, use_embeddings=True)) == 2
    files[0].rename(tmp_path / "t5_xxl" / "kept")
    files[1].rename(files[0])
    (tmp_path / "t5_xxl" / "kept").rename(files[1])
    with pytest.raises(InputError, match=r"2 text embeddings .* exchanged: videos/a\.mp4, videos/b\.mp4"):
        find_clips(tmp_path, use_embeddings=True)


def test_two_clips_do_not_share_an_embedding(tmp_path):
    for name in ("a/x", "b/x"):
        touch(tmp_path / "videos" / f"{name}.mp4")
        touch(tmp_path / "metas" / f"{name}.txt", name)
    touch(tmp_path / "t5_xxl" / "x.pickle")
    with pytest.raises(InputError, match=r"2 clips have no text embedding: .*t5_xxl/a/x\.pickle.*t5_xxl/b/x\.pickle"):
        find_clips(tmp_path, use_embeddings=True)
    embed(tmp_path, ("a/x", "b/x"))
    files = [clip.embedding_file.relative_to(tmp_path) for clip in find_clips(tmp_path, use_embeddings=True)]
    assert [file.as_posix() for file in files] == ["t5_xxl/a/x.pickle", "t5_xxl/b/x.pickle"]


def test_embeddings_of_a_list(tmp_path):
    touch(tmp_path / "list.jsonl", '{"video": "sub/a.mp4", "caption": "x"}\n')
    touch(tmp_path / "t5_xxl" / "a.pickle")
    (clip,) = find_clips(tmp_path / "list.jsonl", use_embeddings=True)
    assert clip.embedding_file == tmp_path / "t5_xxl" / "a.pickle"
