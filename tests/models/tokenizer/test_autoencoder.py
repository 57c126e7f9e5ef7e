"""The four tokenizers against reference values, released sizes and diffusers."""

from __future__ import annotations

import pytest
import torch

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import PRESETS, build_tokenizer
from nemo_cosmos.models.tokenizer.haar import HaarPatcher3D, HaarUnpatcher3D
from nemo_cosmos.models.tokenizer.quantizer import FSQuantizer
from nemo_cosmos.models.tokenizer.state_dict import infer_config

from .golden import fill_parameters, golden_video, hash_tensor

GOLDEN = {
    "CV8x8x8-720p": {
        "parameters": 577_136,
        "patches": ((1, 192, 3, 8, 8), 0.000177, 0.041653,
                    {0: -0.087413, 1: -0.038381, 7: -0.001627, 63: -0.152358, 36863: 0.045572}),
        "features": ((1, 16, 2, 4, 4), -0.097671, 0.351057,
                     {0: 0.222248, 1: 0.329634, 7: -0.441757, 63: 0.414465, 256: -0.582669, 511: 0.533743}),
        "latent": ((1, 16, 2, 4, 4), -0.084343, 0.410484,
                   {0: 0.238336, 1: 0.078213, 7: -0.128288, 63: -0.917688, 256: -0.571484, 511: -0.365887}),
        "reconstruction": ((1, 3, 9, 32, 32), -0.233925, 3.847009,
                           {0: -1.413384, 1: -0.199572, 7: 0.545252, 63: 0.102110, 13824: -6.020490, 27647: 3.727525}),
    },
    "CV4x8x8-360p": {
        "parameters": 452_256,
        "patches": ((1, 24, 5, 16, 16), 0.000012, 0.134123,
                    {0: 0.086771, 1: -0.285024, 7: 0.257030, 63: -0.328369, 30719: -0.302488}),
        "features": ((1, 16, 3, 4, 4), 0.028194, 0.405272,
                     {0: 0.287243, 1: 0.695116, 7: -0.208294, 63: -0.407913, 384: -0.108771, 767: 0.125360}),
        "latent": ((1, 16, 3, 4, 4), 0.076052, 0.369389,
                   {0: 0.265555, 1: -0.028619, 7: 0.350520, 63: 0.653106, 384: -0.008409, 767: -0.152479}),
        "reconstruction": ((1, 3, 9, 32, 32), 0.229963, 1.478054,
                           {0: -0.185994, 1: -0.071788, 7: 0.008874, 63: 0.256159, 13824: 0.130447, 27647: -0.181416}),
    },
    "DV8x16x16-720p": {
        "parameters": 597_414,
        "features": ((1, 16, 2, 2, 2), -0.029304, 0.334961,
                     {0: 0.075363, 1: -0.220705, 7: -0.128271, 63: 0.618251, 127: -0.244752}),
        "indices": [18796, 44771, 31604, 19253, 18796, 44771, 31605, 19253],
        "codes": ((1, 6, 2, 2, 2), 0.005208, 0.213542, {0: 0.0, 1: -0.25, 7: 0.25, 24: -0.5, 47: -0.5}),
        "reconstruction": ((1, 3, 9, 32, 32), 0.040247, 3.678438,
                           {0: 1.106549, 1: 0.662555, 7: -1.412434, 63: 2.122720, 13824: 2.328709, 27647: -1.096167}),
    },
    "DV4x8x8-360p": {
        "parameters": 463_686,
        "features": ((1, 32, 3, 4, 4), -0.062631, 0.397755,
                     {0: 0.267931, 1: 0.594556, 7: -0.030401, 63: -1.181799, 768: -0.651493, 1535: -0.083358}),
        "indices": [47458, 44980, 19244, 16604, 33483, 31908, 31987, 17067, 31597, 34541, 21750, 16620],
        "codes": ((1, 6, 3, 4, 4), -0.045139, 0.270833, {0: -0.5, 1: 0.0, 7: -0.25, 63: 0.25, 144: 0.0, 287: 0.0}),
        "reconstruction": ((1, 3, 9, 32, 32), -0.014681, 1.501387,
                           {0: 0.040466, 1: 0.143182, 7: 0.112164, 63: -0.096949, 13824: 0.427750, 27647: -0.589022}),
    },
}  # fmt: skip
FULL_SIZE = {
    "CV8x8x8-720p": (315, 105_653_696),
    "CV4x8x8-360p": (323, 110_208_816),
    "DV8x16x16-720p": (326, 110_898_294),
    "DV4x8x8-360p": (326, 112_619_766),
}


def small(name: str):
    overrides = {"z_channels": 32} if name == "DV4x8x8-360p" else {}
    module = build_tokenizer(name, channels=8, **overrides).eval()
    fill_parameters(module)
    return module


def check(tensor: torch.Tensor, expected: tuple) -> None:
    shape, mean, mean_abs, values = expected
    assert tuple(tensor.shape) == shape
    flat = tensor.detach().double().contiguous().flatten()
    # The references are printed to six decimals, and sums of large values round to about 1e-5 of the largest.
    scale = max(1.0, float(flat.abs().max()))
    assert flat.mean().item() == pytest.approx(mean, abs=1.5e-6 * scale)
    assert flat.abs().mean().item() == pytest.approx(mean_abs, rel=1e-5, abs=1e-6)
    for index, value in values.items():
        assert flat[index].item() == pytest.approx(value, rel=1e-5, abs=1.5e-6 * scale), index


@pytest.mark.parametrize("name", list(GOLDEN))
@torch.no_grad()
def test_reference_values(name: str) -> None:
    golden, module, video = GOLDEN[name], small(name), golden_video()
    assert sum(p.numel() for p in module.parameters()) == golden["parameters"]
    if "patches" in golden:
        check(module.encoder.patcher3d(video), golden["patches"])
    check(module.encoder(video), golden["features"])
    encoded = module.encode(video)
    if module.config.discrete:
        indices, codes = encoded
        assert indices.dtype == torch.int32
        assert indices.flatten()[: len(golden["indices"])].tolist() == golden["indices"]
        check(codes, golden["codes"])
        check(module.decode(indices), golden["reconstruction"])
    else:
        check(encoded, golden["latent"])
        check(module.decode(encoded), golden["reconstruction"])
    torch.testing.assert_close(
        module(video).reconstruction, module.decode(encoded[0] if module.config.discrete else encoded)
    )


@pytest.mark.parametrize("name", list(FULL_SIZE))
def test_full_size_keys_and_parameters(name: str) -> None:
    entries, parameters = FULL_SIZE[name]
    with torch.device("meta"):
        module = build_tokenizer(name)
    assert sum(p.numel() for p in module.parameters()) == parameters
    state = module.state_dict()
    assert len(state) == entries
    assert state["decoder.up.0.block.0.nin_shortcut.conv3d.weight"].shape == (256, 512, 1, 1, 1)
    assert ("encoder.down.1.downsample.conv1.conv3d.weight" in state) == (name != "CV8x8x8-720p")
    assert "encoder.down.1.downsample.conv2.conv3d.weight" not in state
    assert infer_config(state, name=name) == module.config if not module.config.discrete else True


@pytest.mark.parametrize("patch", [2, 4])
def test_haar_is_inverted_exactly(patch: int) -> None:
    video = hash_tensor((2, 3, 1 + 2 * patch, 4 * patch, 3 * patch), 5)
    patches = HaarPatcher3D(patch)(video)
    assert patches.shape == (2, 3 * patch**3, 3, 4, 3)
    torch.testing.assert_close(HaarUnpatcher3D(patch)(patches), video, rtol=1e-5, atol=1e-6)


def test_fsq_values() -> None:
    quantizer = FSQuantizer((8, 8, 8, 5, 5, 5))
    z = torch.zeros(1, 6, 1, 1, 4)
    z[..., 1], z[..., 2] = 10.0, -10.0
    z[0, :, 0, 0, 3] = torch.tensor([0.3, -0.7, 1.2, 0.5, -0.4, 2.0])
    indices, codes = quantizer(z)
    assert indices.flatten().tolist() == [32036, 63999, 0, 55765]
    expected = torch.tensor([[0.0] * 6, [0.75] * 3 + [1.0] * 3, [-1.0] * 6, [0.25, -0.5, 0.75, 0.5, -0.5, 1.0]])
    torch.testing.assert_close(codes[0, :, 0, 0].T, expected)
    bound = quantizer.bound(z)[0, :, 0, 0, 3]
    torch.testing.assert_close(
        bound, torch.tensor([0.959918, -2.270075, 2.557003, 0.925159, -0.760658, 1.929983]), rtol=0, atol=2e-6
    )
    single = quantizer.indices_to_codes(torch.tensor([[[[12345]]]])).flatten().tolist()
    assert single == [-0.75, 0.75, -1.0, 1.0, 1.0, -1.0]
    every = torch.arange(64000, dtype=torch.int32).view(1, 1, 8, 8000)
    assert torch.equal(
        quantizer.implicit_codebook.float().T.reshape(1, 6, 1, 8, 8000), quantizer.indices_to_codes(every)
    )


def test_fsq_gradient_passes_straight_through() -> None:
    quantizer = FSQuantizer((8, 5))
    z = torch.randn(1, 2, 1, 2, 2, requires_grad=True)
    quantizer(z)[1].sum().backward()
    reference = torch.autograd.functional.jacobian(lambda v: quantizer.bound(v).sum(dim=(0, 2, 3, 4)), z.detach())
    half = torch.tensor([4.0, 2.0]).view(2, 1, 1, 1, 1, 1)
    torch.testing.assert_close(z.grad, (reference / half).sum(0))


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("frames", [1, 17])
@torch.no_grad()
def test_causality_and_legal_lengths(name: str, frames: int) -> None:
    """Frames appended later change nothing before them, and single images are legal."""
    module = small(name)
    video = hash_tensor((1, 3, 17, 32, 48), 3, 0.5).clamp(-1, 1)
    features = module.encoder(video)
    t = 1 + (frames - 1) // module.config.temporal_compression
    torch.testing.assert_close(module.encoder(video[:, :, :frames]), features[:, :, :t], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_agrees_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    from nemo_cosmos.models.tokenizer.diffusers_export import to_diffusers_state_dict

    module = small("CV8x8x8-720p")
    peer = diffusers.AutoencoderKLCosmos(
        encoder_block_out_channels=(8, 16, 32, 32), decode_block_out_channels=(16, 32, 32, 32)
    ).eval()
    peer.load_state_dict(to_diffusers_state_dict(module.to_original()), strict=True)
    video = golden_video()
    ours, theirs = module.encode(video), peer.encode(video).latent_dist.mode()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.decode(ours), peer.decode(ours).sample, rtol=1e-5, atol=1e-4)


def test_checkpointing_gives_the_same_gradients() -> None:
    module, video = small("CV4x8x8-360p").train(), golden_video()
    gradients = []
    for enabled in (False, True):
        module.enable_checkpointing(enabled)
        module.zero_grad()
        module(video).reconstruction.abs().mean().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_vae_formulation_samples_only_in_training() -> None:
    module = build_tokenizer("CV4x8x8-360p", channels=8, formulation="VAE")
    video = golden_video()
    output = module(video)
    assert output.moments is not None and output.moments.shape[1] == 32
    assert not torch.equal(output.latent, output.moments[:, :16])
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(module(video).latent, module.encode(video))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 10, 32, 32), "nearest legal 9 or 17"),
        ((1, 3, 9, 32, 37), "width 37 .* nearest legal 32 or 40"),
        ((1, 1, 9, 32, 32), "expects"),
    ],
)
def test_illegal_shapes_are_named(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small("CV8x8x8-720p").encode(torch.zeros(shape))


def test_wrong_names_and_fields() -> None:
    with pytest.raises(InputError, match="CV8x8x8-720p"):
        build_tokenizer("CV8x8x8")
    with pytest.raises(InputError, match="did you mean 'z_channels'"):
        build_tokenizer("CV8x8x8-720p", z_channel=3)
