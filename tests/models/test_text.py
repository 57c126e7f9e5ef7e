"""T5 text encoder: padding, truncation, determinism, the tiny one that tests and the demo use."""

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models import text as text_module
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "tiny"
    save_tiny_text_encoder(path, width=32, seed=3)
    return path


def test_zeros_after_the_true_length(folder):
    encoder = load_text_encoder(folder)
    captions = ["a red disc moves left", "", "a"]
    padded, rows = encoder.encode(captions), encoder.encode_trimmed(captions)
    assert padded.shape == (3, 512, 32) and encoder.width == 32
    assert [len(row) for row in rows] == [6, 1, 2]  # words and the closing token
    for full, row in zip(padded, rows, strict=True):
        assert torch.equal(full[: len(row)], row) and not full[len(row) :].any()
        assert row.abs().sum(dim=1).min() > 0


def test_embedding_does_not_depend_on_neighbours(folder):
    encoder = load_text_encoder(folder)
    captions = ["a blue star moves up", "a much longer caption about a robot arm that picks up the green bowl"]
    for alone, together in zip(
        [encoder.encode_trimmed([c])[0] for c in captions], encoder.encode_trimmed(captions), strict=True
    ):
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_different_captions_differ_clearly(folder):
    encoder = load_text_encoder(folder)
    left, right = encoder.encode_trimmed(["the disc moves left", "the disc moves right"])
    distance = (left - right).norm(dim=1)
    assert distance[3] > 0.8 * left[3].norm()  # the direction word
    odd = encoder.encode_trimmed(["🤖", "🚗", "é", "x1"])
    assert len({tuple(row.flatten().tolist()) for row in odd}) == 4


def test_long_captions_are_cut_to_the_maximum(folder):
    encoder = load_text_encoder(folder, max_length=16)
    assert encoder.encode(["word " * 100]).shape == (1, 16, 32)
    assert encoder.token_count("left" + " left" * 99) == 101


def test_same_seed_same_files(folder, tmp_path):
    save_tiny_text_encoder(tmp_path / "tiny", width=32, seed=3)
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "tiny" / file.name).read_bytes(), file.name
    save_tiny_text_encoder(tmp_path / "tiny", width=32, seed=4)  # replaces
    assert load_text_encoder(tmp_path / "tiny").name != load_text_encoder(folder).name


def test_name_does_not_depend_on_where_the_folder_is(folder, tmp_path):
    save_tiny_text_encoder(tmp_path / "deep" / "tiny", width=32, seed=3)
    assert load_text_encoder(tmp_path / "deep" / "tiny").name == load_text_encoder(folder).name


def test_empty_list(folder):
    encoder = load_text_encoder(folder)
    assert encoder.encode_trimmed([]) == [] and encoder.encode([]).shape == (0, 512, 32)


def test_dtype(folder):
    assert load_text_encoder(folder, dtype=torch.bfloat16).encode(["left"]).dtype == torch.bfloat16


def test_wrong_paths_are_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="gpt2"):
        load_text_encoder(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        load_text_encoder(tmp_path / "nowhere")


def test_tiny_encoder_never_replaces_a_foreign_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("x")
    with pytest.raises(InputError, match="data"):
        save_tiny_text_encoder(tmp_path / "data")
    assert (tmp_path / "data" / "precious.txt").exists()


def test_offloading_brings_each_block_and_takes_it_away_again(folder, monkeypatch):
    expected = load_text_encoder(folder).encode(["a red disc moves left"])
    encoder = load_text_encoder(folder)
    blocks = encoder.model.encoder.block
    resting = {name: p.data_ptr() for name, p in blocks.named_parameters()}
    text_module._offload_blocks(encoder.model, torch.device("cpu"))
    brought = []
    real = torch.Tensor.to

    def copying(self, *args, **kwargs):  # a move between devices always copies; on the CPU alone it would not
        brought.append(self.data_ptr())
        return real(self, *args, **kwargs).clone()

    monkeypatch.setattr(torch.Tensor, "to", copying)
    output = encoder.model(input_ids=torch.tensor([[3, 4, 1]])).last_hidden_state
    monkeypatch.undo()
    assert set(resting.values()) <= set(brought)
    assert {name: p.data_ptr() for name, p in blocks.named_parameters()} == resting
    assert torch.equal(encoder.encode(["a red disc moves left"]), expected) and output.isfinite().all()
