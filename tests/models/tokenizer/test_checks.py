"""Encoders and decoders refuse what they would turn into nonsense."""

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import VideoTokenizer, build_tokenizer
from nemo_cosmos.reconstruct.codec import TokenizerCodec

SMALL = {"channels": 8, "num_res_blocks": 1, "chunk_frames": 9}


@pytest.fixture(scope="module")
def continuous():
    return build_tokenizer("CV4x8x8-360p", **SMALL)


@pytest.fixture(scope="module")
def discrete():
    return build_tokenizer("DV4x8x8-360p", z_channels=8, **SMALL)


@pytest.fixture(scope="module")
def takers(continuous, discrete):
    """Everything that encodes, and everything that decodes continuous latents."""
    tokenizer = VideoTokenizer(continuous)
    codec = TokenizerCodec(
        continuous.config,
        lambda video: (continuous.encode(video),),
        continuous.decode,
        device=torch.device("cpu"),
        dtype=torch.float32,
        autoencode=lambda video: continuous.decode(continuous.encode(video)),
    )
    encoders = [continuous.encode, discrete.encode, tokenizer.encode, codec.encode, codec.autoencode]
    return encoders, [continuous.decode, continuous.decode_codes, tokenizer.decode, codec.decode]


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (torch.zeros(1, 3, 5, 16, 16, dtype=torch.uint8), r"uint8.*x / 127\.5 - 1"),
        (torch.full((1, 3, 5, 16, 16), 255.0), r"from 255 to 255.*\[-1, 1\]"),
        (torch.full((1, 3, 5, 16, 16), -1.5), r"from -1\.5"),
        (torch.full((1, 3, 5, 16, 16), float("nan")), "from nan"),
        (torch.zeros(0, 3, 5, 16, 16), "batch is empty"),
        (torch.zeros(1, 3, 0, 16, 16), "0 frames"),
        (torch.zeros(1, 3, 5, 0, 16), "height 0 .*nearest legal 8"),
        (torch.zeros(1, 4, 5, 16, 16), r"expects \(B, 3, T, H, W\)"),
    ],
)
def test_what_no_encoder_takes(takers, video, words):
    for encode in takers[0]:
        with pytest.raises(InputError, match=words):
            encode(video)


def test_rounding_beyond_the_range_is_no_mistake(takers):
    for encode in takers[0]:
        encode(torch.full((1, 3, 1, 8, 8), 1.004))


@pytest.mark.parametrize(
    ("latent", "words"),
    [
        (torch.zeros(0, 16, 2, 2, 2), "nothing is in them"),
        (torch.zeros(1, 16, 2, 0, 2), "nothing is in them"),
        (torch.zeros(1, 16, 2, 2, 2, dtype=torch.int64), "int64"),
        (torch.zeros(1, 3, 2, 2, 2), r"expects \(B, 16"),
    ],
)
def test_what_no_decoder_takes(takers, latent, words):
    for decode in takers[1]:
        with pytest.raises(InputError, match=words):
            decode(latent)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64, torch.uint16])
def test_indices_are_those_of_the_codebook(discrete, kind):
    last = discrete.config.codebook_size - 1
    discrete.decode(torch.tensor([0, last]).to(kind).view(1, 2, 1, 1))


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        (torch.full((1, 2, 1, 1), 64_000), "from 64000 to 64000.*0 to 63999"),
        (torch.full((1, 2, 1, 1), -1), "from -1"),
        (torch.zeros(1, 2, 1, 1), "integer indices"),
        (torch.ones(1, 2, 1, 1, dtype=torch.bool), "integer indices"),
        (torch.zeros(0, 2, 1, 1, dtype=torch.int64), "nothing is in them"),
    ],
)
def test_what_a_discrete_decoder_does_not_take(discrete, indices, words):
    with pytest.raises(InputError, match=words):
        discrete.decode(indices)


def test_training_looks_at_types_and_shapes_alone(continuous):
    """Its clips are made in range; reading their extremes would make each step wait."""
    continuous.forward(torch.full((1, 3, 1, 8, 8), 3.0))
    with pytest.raises(InputError, match="uint8"):
        continuous.forward(torch.zeros(1, 3, 1, 8, 8, dtype=torch.uint8))
