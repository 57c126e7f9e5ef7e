"""RAFT-large: equality with torchvision's raft_large, gradients, precision, sizes and weights files."""

from __future__ import annotations

import hashlib
import urllib.error
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerConfig, TokenizerOutput
from nemo_cosmos.training.tokenizer.config import FlowConfig, LossConfig
from nemo_cosmos.training.tokenizer.flow import make_estimator
from nemo_cosmos.training.tokenizer.losses import TokenizerLoss
from nemo_cosmos.training.tokenizer.raft import CorrelationPyramid, RaftLarge, load_raft
from tests.models.tokenizer.golden import fill_parameters, hash_tensor

# Computed by torchvision 0.28.0's raft_large in evaluation mode, with the weights of filled_raft.
KEYS, PARAMETERS = 169, 5_257_536
KEYS_AND_SHAPES_SHA256 = "23b50731fc53e26ae87cbca92e0532e4098a7c157a2269509c8f819e7860f434"
FLOW_AFTER_ITERATIONS = {  # flow[0, :, 20::80, 30::80] of golden_images
    1: [-0.4493, -0.3386, -2.366, 1.1146, -0.7109, 1.1708, -3.0169, 1.1665],
    4: [-5.0944, -7.1311, -13.2838, 2.7037, -1.2798, 5.1208, -9.8822, 3.8472],
    12: [-24.4127, -38.4258, -36.977, -1.9342, 0.8988, 11.0185, -22.6182, 1.5643],
}
GRADIENT_NORMS = [4.0224, 2.7143]  # of mean(flow²) after 4 iterations, at the first and the second image


def filled_raft(iterations: int = 12) -> RaftLarge:
    """Weights and batch statistics from the hash, the same on every platform."""
    network = RaftLarge(iterations).eval()
    fill_parameters(network)
    statistics = sorted((name, buffer) for name, buffer in network.named_buffers() if buffer.ndim == 1)
    for k, (name, buffer) in enumerate(statistics):
        buffer.copy_(hash_tensor(tuple(buffer.shape), 1000 + k, 0.1) + name.endswith("running_var"))
    return network


def golden_images() -> tuple[torch.Tensor, torch.Tensor]:
    first, second = hash_tensor((2, 1, 3, 128, 136), 5, 0.5).clamp(-1.0, 1.0)
    return first.requires_grad_(), second.requires_grad_()


def smooth_images(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    base = F.interpolate(hash_tensor((1, 3, 16, 16), 9, 0.5), size=(height, width + 3), mode="bicubic").clamp(-1, 1)
    return base[..., 3:], base[..., :-3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raft") / "raft_large.pth"
    torch.save(filled_raft().state_dict(), path)
    return path


def test_state_dict_is_torchvisions() -> None:
    state = RaftLarge().state_dict()
    lines = "\n".join(f"{key} {tuple(value.shape)}" for key, value in sorted(state.items()))
    assert len(state) == KEYS
    assert sum(p.numel() for p in RaftLarge().parameters()) == PARAMETERS
    assert hashlib.sha256(lines.encode()).hexdigest() == KEYS_AND_SHAPES_SHA256


@pytest.mark.parametrize("iterations", FLOW_AFTER_ITERATIONS)
def test_flow_is_torchvisions(iterations: int) -> None:
    with torch.no_grad():
        flow = filled_raft(iterations)(*golden_images())
    assert flow.shape == (1, 2, 128, 136)
    expected = torch.tensor(FLOW_AFTER_ITERATIONS[iterations])
    torch.testing.assert_close(flow[0, :, 20::80, 30::80].flatten(), expected, atol=2e-3, rtol=1e-4)


def test_gradients_of_both_images_are_torchvisions() -> None:
    images = golden_images()
    gradients = torch.autograd.grad(filled_raft(4)(*images).square().mean(), images)
    assert [g.norm().item() for g in gradients] == pytest.approx(GRADIENT_NORMS, rel=1e-3)


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_is_close_to_fp32(autocast: bool) -> None:
    images = smooth_images(64, 72)
    network = filled_raft(4)
    with torch.no_grad():
        exact = network(*images)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            rounded = (network if autocast else network.bfloat16())(*images)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_correlations_are_fp32_in_any_precision() -> None:
    first, second = hash_tensor((2, 1, 32, 9, 11), 3).bfloat16()
    exact = CorrelationPyramid(first.float(), second.float())
    with torch.autocast("cpu", torch.bfloat16):
        pyramid = CorrelationPyramid(first, second)
    assert [tuple(level.shape[2:]) for level in pyramid.levels] == [(9, 11), (4, 5), (2, 2), (1, 1)]
    for level, reference in zip(pyramid.levels, exact.levels, strict=True):
        torch.testing.assert_close(level, reference, atol=0, rtol=0)


def test_lookup_reads_the_second_map_around_the_position() -> None:
    """Channel 9·(x + 4) + (y + 4) of a level is the correlation (x, y) from the position, zero outside the map."""
    first, second = torch.ones(1, 4, 9, 11), torch.arange(99.0).view(1, 1, 9, 11).expand(1, 4, 9, 11) / 2
    position = torch.tensor([6.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 9, 11)
    found = CorrelationPyramid(first, second).lookup(position)[0, :, 0, 0]
    assert found.shape == (4 * 81,)
    window = found[:81].view(9, 9)
    torch.testing.assert_close(window[4 + 2, 4 - 1], torch.tensor(11.0 * 2 + 8))
    torch.testing.assert_close(window[4 - 3, 4 + 4], torch.tensor(11.0 * 7 + 3))
    assert window[:, 0].eq(0).all()  # y = −1
    coarse = (0 + 1 + 11 + 12) / 4 + 2 * 3 + 22 * 1.5  # level 1 at (3, 1.5)
    torch.testing.assert_close(found[81:162].view(9, 9)[4, 4], torch.tensor(coarse))


def test_sizes_that_8_does_not_divide_repeat_the_border() -> None:
    network = filled_raft(2)
    first, second = smooth_images(67, 77)
    wide = [F.pad(image, (1, 2, 2, 3), mode="replicate") for image in (first, second)]
    with torch.no_grad():
        flow, padded = network(first, second), network(*wide)
    assert wide[0].shape[2:] == (72, 80) and flow.shape[2:] == (67, 77)
    torch.testing.assert_close(flow, padded[:, :, 2:-3, 1:-2])


def test_small_frames_are_refused_with_the_minimum(weights: Path) -> None:
    network = load_raft(str(weights), 1)
    assert network(*smooth_images(64, 64)).isfinite().all()
    with pytest.raises(InputError, match=r"at least 64 x 64 pixels, not 63 x 64.*loss\.flow\.scale"):
        network(*smooth_images(63, 64))
    flow = FlowConfig(enabled=True, estimator="raft", weights=str(weights), scale=2)
    loss = TokenizerLoss(LossConfig(flow=flow), TokenizerConfig.preset("CV8x8x8-720p"))
    loss.check_crop(128, 160)
    with pytest.raises(InputError, match="not 60 x 80"):
        loss.check_crop(120, 160)


def test_the_term_teaches_the_reconstruction_alone(weights: Path) -> None:
    flow = FlowConfig(enabled=True, boundaries=[0], values=[0.5], estimator="raft", weights=str(weights), iterations=2)
    loss = TokenizerLoss(LossConfig(flow=flow), TokenizerConfig.preset("CV8x8x8-720p"))
    video = torch.stack(smooth_images(128, 128), dim=2)
    fake = (video + hash_tensor(tuple(video.shape), 4, 0.1)).requires_grad_()
    terms = loss(0, video, TokenizerOutput(fake, video, None, None), reconstruct=lambda clips: clips)
    terms.weighted["flow"].backward()
    assert terms.raw["flow"] > 0 and fake.grad is not None
    assert (fake.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()  # of both frames
    assert all(p.grad is None for p in loss.parameters())


def test_weights_files(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    loaded = make_estimator(FlowConfig(estimator="raft", weights=str(weights), iterations=3))
    assert isinstance(loaded, RaftLarge) and loaded.iterations == 3 and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())

    def refusal(content: dict) -> str:
        torch.save(content, tmp_path / "wrong.pth")
        with pytest.raises(InputError) as caught:
            load_raft(str(tmp_path / "wrong.pth"))
        return str(caught.value)

    renamed = {key.replace("mask_predictor.conv.", "mask."): value for key, value in state.items()}
    message = refusal(renamed)
    assert "wrong.pth: not the weights of RAFT-large" in message
    assert "2 missing, the first is mask_predictor.conv.weight; 2 unexpected, the first is mask.weight" in message
    small = {**state, "feature_encoder.conv.bias": torch.zeros(128)}
    assert "1 of another shape, the first is feature_encoder.conv.bias" in refusal(small)
    with pytest.raises(InputError, match="does not exist"):
        load_raft(str(tmp_path / "none.pth"))
    with pytest.raises(InputError, match=r"needs loss\.flow\.estimator=raft, not lucas_kanade"):
        make_estimator(FlowConfig(weights=str(weights)))


def test_published_weights_come_from_the_hub_folder(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str, *args: object, **options: object) -> None:
        assert url.startswith("https://download.pytorch.org/") and options["hash_prefix"] == "ff5fadd5"
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(InputError, match=r"cannot be fetched .*no route to host.*loss\.flow\.weights=FILE"):
        load_raft()
    target = tmp_path / "hub" / "checkpoints" / "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
    target.symlink_to(weights)
    assert load_raft().iterations == 12
