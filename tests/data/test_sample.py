"""Collating records into batches."""

import pytest
import torch

from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity, collate, pad_text
from nemo_cosmos.errors import InputError


def make_sample(key="a", tokens=3, shape=(4, 3, 4, 6), **extra):
    return LatentSample(key, torch.randn(shape), torch.randn(tokens, 8), "caption", 24.0, 9, (32, 48, 64, 96), **extra)


def test_collate_pads_text_with_zero_rows_and_keeps_positions():
    first, second = make_sample("a", tokens=3), make_sample("b", tokens=5)
    batch = collate([(7, first), (3, second)], text_length=16)
    assert batch.position.tolist() == [7, 3] and batch.position.dtype == torch.int64
    assert batch.text.shape == (2, 16, 8)
    assert torch.equal(batch.text[0, :3], first.text) and not batch.text[0, 3:].any()
    assert torch.equal(batch.text[1, :5], second.text) and not batch.text[1, 5:].any()
    assert torch.equal(batch.latent[1], second.latent)
    assert batch.padding_mask.shape == (2, 1, 4, 6) and not batch.padding_mask.any()
    assert batch.keys == ["a", "b"] and batch.plucker is None and len(batch) == 2


def test_collate_takes_the_mask_of_samples_that_have_one():
    mask = torch.zeros(1, 4, 6, dtype=torch.uint8)
    mask[..., 0] = 1
    batch = collate([(0, make_sample("a", padding_mask=mask)), (1, make_sample("b"))], text_length=8)
    assert batch.padding_mask.sum(dim=(1, 2, 3)).tolist() == [4, 0]


def test_to_keeps_frame_rate_and_positions_exact():
    sample = make_sample()
    sample.fps = 29.97
    batch = collate([(2**40, sample)], text_length=8).to("cpu", torch.bfloat16)
    assert batch.latent.dtype == batch.text.dtype == batch.padding_mask.dtype == torch.bfloat16
    assert batch.fps.item() == pytest.approx(29.97, abs=1e-5) and batch.position.item() == 2**40


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"shape": (4, 3, 4, 4)}, ["'latent'", "a: (4, 3, 4, 6)", "b: (4, 3, 4, 4)"]),
        ({"plucker": torch.zeros(6, 3, 4, 6)}, ["'plucker'", "'a'"]),
    ],
)
def test_collate_names_samples_that_do_not_fit(others, words):
    with pytest.raises(InputError) as caught:
        collate([(0, make_sample("a")), (1, make_sample("b", **others))], text_length=8)
    assert all(word in str(caught.value) for word in words)


def test_text_longer_than_the_padding_is_an_error():
    with pytest.raises(InputError, match="'clip'"):
        pad_text(torch.zeros(9, 4), 8, name="clip")


def test_identity_survives_json_and_names_wrong_keys():
    identity = TokenizerIdentity("CV8x8x8-720p", "ab" * 32, 8, 8, 16)
    assert TokenizerIdentity.from_json(identity.to_json()) == identity
    with pytest.raises(InputError, match="sha256"):
        TokenizerIdentity.from_json({"name": "x"})


def test_texts_of_views_are_padded_one_by_one():
    text = torch.arange(1.0, 13.0).reshape(3, 2, 2)
    text[1] = 0  # A view without a caption.
    padded = pad_text(text, 4)
    assert padded.shape == (12, 2)
    for view, rows in enumerate(padded.split(4)):
        torch.testing.assert_close(rows[:2], text[view])
        assert not rows[2:].any()


@pytest.mark.parametrize("views", [None, 2])
def test_batches_travel_as_stored_and_become_what_they_were(views):
    def stored(key, tokens):
        sample = make_sample(key, tokens, shape=(4, 4, 4, 6))
        sample.latent, sample.text = sample.latent.bfloat16(), sample.text.half()
        if views is not None:
            sample.text, sample.view_ids = sample.text.repeat(views, 1, 1), torch.arange(views)
        return sample

    samples = [(0, stored("a", 3)), (1, stored("b", 3))]
    expected, batch = collate(samples, 8), collate(samples, 8, as_stored=True)
    assert batch.latent.dtype == torch.bfloat16 and expected.latent.dtype == expected.text.dtype == torch.float32
    assert (batch.text.dtype == torch.float16) is (views is None)
    widened = batch.to(dtype=torch.float32)
    for name in ("latent", "text", "fps", "padding_mask", "position"):
        value = getattr(widened, name)
        assert value.dtype == getattr(expected, name).dtype and torch.equal(value, getattr(expected, name)), name
