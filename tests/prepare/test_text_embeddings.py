"""``t5_xxl`` pickles: the exact format, resuming, and files that want to run code."""

import os
import pickle

import numpy as np
import pytest
import torch

from nemo_cosmos.data.embeddings import read_embedding, write_embedding
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder, text_encoder_name
from nemo_cosmos.prepare import text_embeddings
from nemo_cosmos.prepare.text_embeddings import embed_captions, embed_dataset, recorded_encoder


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    save_tiny_text_encoder(path, width=16)
    return path


def dataset(path, captions):
    (path / "metas").mkdir(parents=True)
    for name, caption in captions.items():
        (path / "metas" / f"{name}.txt").write_text(caption, encoding="utf-8")
    return path


def run(path, folder, **options):
    return list(
        embed_captions(path, lambda: load_text_encoder(folder), encoder_name=text_encoder_name(folder), **options)
    )


def test_format_is_a_list_with_one_float16_array_of_the_true_tokens(tmp_path, encoder_folder):
    captions = {"a": "a red disc moves left", "b": "", "c": "🤖 grüße\n"}
    path = dataset(tmp_path / "d", captions)
    assert run(path, encoder_folder, batch_size=2) == [0, 2, 3]
    encoder = load_text_encoder(encoder_folder)
    for name, caption in captions.items():
        with (path / "t5_xxl" / f"{name}.pickle").open("rb") as file:
            content = pickle.load(file)  # as Cosmos tools read it
        assert isinstance(content, list) and len(content) == 1
        assert content[0].dtype == np.float16 and content[0].shape == (encoder.token_count(caption.strip()), 16)
        expected = encoder.encode_trimmed([caption.strip()])[0]
        torch.testing.assert_close(torch.from_numpy(content[0]).float(), expected, atol=2e-3, rtol=2e-3)
        assert torch.equal(read_embedding(path / "t5_xxl" / f"{name}.pickle"), torch.from_numpy(content[0]))
    assert recorded_encoder(path) == encoder.name


def test_goes_on_where_it_stopped(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {str(n): f"caption {n}" for n in range(5)})
    run(path, encoder_folder)
    before = {p: p.stat().st_mtime_ns for p in (path / "t5_xxl").glob("*.pickle")}
    gone = path / "t5_xxl" / "3.pickle"
    content = read_embedding(gone)
    gone.unlink()
    assert run(path, encoder_folder) == [4, 5]
    torch.testing.assert_close(read_embedding(gone), content, atol=2e-3, rtol=2e-3)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p != gone)

    def never():
        raise AssertionError("nothing is left to embed")

    assert list(embed_captions(path, never, encoder_name=text_encoder_name(encoder_folder))) == [5]


def test_embeddings_of_another_encoder_are_not_mixed(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"a": "x", "b": "y"})
    run(path, encoder_folder)
    (path / "t5_xxl" / "a.pickle").unlink()
    save_tiny_text_encoder(tmp_path / "other", width=16, seed=9)
    with pytest.raises(InputError, match="not of other-"):
        run(path, tmp_path / "other")


def test_edited_captions_are_embedded_again(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"a": "x", "b": "y", "c": "z"})
    run(path, encoder_folder)
    before = {p: p.read_bytes() for p in (path / "t5_xxl").glob("*.pickle")}
    (path / "metas" / "b.txt").write_text("a red disc moves left")
    (path / "metas" / "c.txt").write_text("z\n\n")  # the same once stripped
    assert run(path, encoder_folder) == [2, 3]
    assert [p.stem for p in before if p.read_bytes() != before[p]] == ["b"]
    assert run(path, encoder_folder) == [3]


def test_captions_in_subfolders(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"x": "top"})
    for name in ("a", "b"):
        (path / "metas" / name).mkdir()
        (path / "metas" / name / "x.txt").write_text(f"caption {name}")
    run(path, encoder_folder)
    found = [p.relative_to(path / "t5_xxl").as_posix() for p in (path / "t5_xxl").rglob("*.pickle")]
    assert sorted(found) == ["a/x.pickle", "b/x.pickle", "x.pickle"]
    values = [read_embedding(path / "t5_xxl" / name / "x.pickle") for name in ("a", "b")]
    assert not torch.equal(*values)


def test_embeddings_of_another_length_are_not_mixed(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"a": "x"})
    run(path, encoder_folder, max_length=512)
    (path / "metas" / "b.txt").write_text("y")
    with pytest.raises(InputError, match="at most 512 tokens, not of 77"):
        run(path, encoder_folder, max_length=77)
    assert run(path, encoder_folder, max_length=512) == [1, 2]


def test_float32(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"a": "x"})
    run(path, encoder_folder, dtype="float32")
    assert read_embedding(path / "t5_xxl" / "a.pickle").dtype == torch.float32
    with pytest.raises(InputError, match="bfloat16"):
        run(path, encoder_folder, dtype="bfloat16")


class Counting:
    """An encoder that notes what it is asked to embed."""

    def __init__(self, encoder):
        self.encoder, self.asked = encoder, []

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def encode_trimmed(self, captions):
        self.asked.extend(captions)
        return self.encoder.encode_trimmed(captions)


def test_equal_captions_are_embedded_once(tmp_path, encoder_folder, monkeypatch):
    monkeypatch.setattr(text_embeddings, "_RECORD_EVERY", 4)
    path = dataset(tmp_path / "d", {f"{n}": "the same" if n else "another" for n in range(11)})
    counting = Counting(load_text_encoder(encoder_folder))
    name = text_encoder_name(encoder_folder)
    steps = list(embed_captions(path, lambda: counting, encoder_name=name))
    assert sorted(counting.asked) == ["another", "the same"] and steps == [0, 4, 8, 11]
    content = {p.read_bytes() for p in (path / "t5_xxl").glob("*.pickle")}
    assert len(list((path / "t5_xxl").glob("*.pickle"))) == 11 and len(content) == 2
    (path / "metas/5.txt").write_text("now of its own")
    assert run(path, encoder_folder) == [10, 11], "each of the equal ones is recorded"


def test_a_caption_that_is_cut_is_named(tmp_path, encoder_folder, caplog):
    long = "a red disc moves left " * 110
    path = dataset(tmp_path / "d", {"a": long, "b": "short", "c": long, "d": "red " * 511, "e": "red " * 512})
    run(path, encoder_folder, max_length=512)
    assert read_embedding(path / "t5_xxl" / "a.pickle").shape == (512, 16)
    assert [
        record.getMessage().partition("metas/")[2] for record in caplog.records if record.name.startswith("nemo")
    ] == [
        "a.txt and 1 more of this text: only the first 512 of 551 text tokens are used",
        "e.txt: only the first 512 of 513 text tokens are used",
    ]


def test_pickles_that_another_tool_left_half_are_made_again(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"a": "x", "b": "y", "c": "z"})
    (path / "t5_xxl").mkdir()
    whole = pickle.dumps([np.ones((3, 16), np.float16)])
    save = {"a": whole, "b": whole[:-1], "c": b""}
    for name, content in save.items():
        (path / "t5_xxl" / f"{name}.pickle").write_bytes(content)
    (path / "t5_xxl" / "text_encoder.json").write_text(f'{{"name": "{text_encoder_name(encoder_folder)}"}}')
    assert run(path, encoder_folder) == [1, 3]
    assert (path / "t5_xxl" / "a.pickle").read_bytes() == whole
    assert all(read_embedding(path / "t5_xxl" / f"{name}.pickle").shape[1] == 16 for name in "bc")


def test_cache_dir_may_be_the_folder_of_the_encoder(tmp_path, encoder_folder):
    path = dataset(tmp_path / "d", {"a": "x"})
    embed_dataset(path, cache_dir=encoder_folder, device="cpu")
    assert read_embedding(path / "t5_xxl" / "a.pickle").shape[1] == 16


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("old_name", [False, True])
def test_pickles_of_numpy_1_and_2_are_read(tmp_path, protocol, old_name):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    content = pickle.dumps([array], protocol=protocol)
    new, old = b"numpy._core.", b"numpy.core."
    if old_name and protocol >= 4:
        start = content.index(new)
        length = content[start - 1]
        frame = content.index(b"\x95") + 1
        frame_length = int.from_bytes(content[frame : frame + 8], "little")
        content = bytearray(content.replace(new, old))
        content[start - 1] = length - 1
        content[frame : frame + 8] = (frame_length - 1).to_bytes(8, "little")
    elif old_name:
        content = content.replace(new, old)
    (tmp_path / "a.pickle").write_bytes(content)
    assert torch.equal(read_embedding(tmp_path / "a.pickle"), torch.from_numpy(array))


class Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: [np.array([x, None], dtype=object)]])
def test_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, wrap):
    target = tmp_path / "made"
    (tmp_path / "bad.pickle").write_bytes(pickle.dumps(wrap(Harmful(str(target)))))
    with pytest.raises(InputError, match=r"bad\.pickle .*mkdir.* was not loaded"):
        read_embedding(tmp_path / "bad.pickle")
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([torch.zeros(2, 2)]),
        pickle.dumps([np.zeros((2, 2), np.int64)]),
        pickle.dumps([np.zeros(4, np.float16)]),
        pickle.dumps([np.zeros((0, 4), np.float16)]),
        pickle.dumps([]),
        pickle.dumps({"a": 1}),
        pickle.dumps([np.full((2, 2), np.nan, np.float16)]),
        pickle.dumps([np.zeros((2, 2), np.float16)])[:-20],
    ],
)
def test_anything_but_one_float_array_is_refused(tmp_path, content):
    (tmp_path / "bad.pickle").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.pickle"):
        read_embedding(tmp_path / "bad.pickle")


def test_write_keeps_values(tmp_path):
    value = torch.randn(3, 4, dtype=torch.bfloat16)
    write_embedding(tmp_path / "a.pickle", value, "float32")
    assert torch.equal(read_embedding(tmp_path / "a.pickle"), value.float())


def test_no_captions(tmp_path):
    with pytest.raises(InputError, match="metas"):
        run(tmp_path, tmp_path)
