"""Loss terms, schedules, flow, perceptual network and metrics of tokenizer training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerConfig, build_tokenizer
from nemo_cosmos.models.tokenizer.metrics import code_usage, frechet_distance, lpips, psnr, ssim
from nemo_cosmos.training.tokenizer import flow as flow_module
from nemo_cosmos.training.tokenizer.adversarial import PatchDiscriminator3D, adaptive_weight, generator_loss
from nemo_cosmos.training.tokenizer.config import (
    AdversarialConfig,
    ConsistencyConfig,
    FlowConfig,
    LossConfig,
    PerceptualConfig,
    ScheduleConfig,
)
from nemo_cosmos.training.tokenizer.flow import LucasKanade, clip_flow, flow_distance, make_estimator
from nemo_cosmos.training.tokenizer.losses import TokenizerLoss, kl_divergence, scheduled_weight
from nemo_cosmos.training.tokenizer.perceptual import Vgg16Features, feature_distance, gram_distance

TINY = {"channels": 4, "channels_mult": (1, 2, 2), "num_res_blocks": 1}


def texture(frames: int, size: int, dx: float, dy: float) -> torch.Tensor:
    """(1, 3, T, H, W): a smooth random texture that moves (dx, dy) pixels a frame."""
    torch.manual_seed(0)
    base = F.interpolate(torch.rand(1, 1, 12, 12), size=(2 * size, 2 * size), mode="bicubic", align_corners=True)
    out = []
    for t in range(frames):
        ys = torch.arange(size).float() + size / 2 - dy * t
        xs = torch.arange(size).float() + size / 2 - dx * t
        gx, gy = torch.meshgrid(xs / (2 * size - 1) * 2 - 1, ys / (2 * size - 1) * 2 - 1, indexing="xy")
        out.append(F.grid_sample(base, torch.stack([gx, gy], -1)[None], align_corners=True))
    return (torch.stack(out, 2) * 2 - 1).expand(-1, 3, -1, -1, -1)


def test_schedule_is_piecewise_constant() -> None:
    at = [scheduled_weight([10, 20], [0.0, 0.5, 1.0], step) for step in (0, 9, 10, 19, 20, 99)]
    assert at == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert scheduled_weight([500_000], [0.1, 0.073], 499_999) == 0.1
    assert scheduled_weight([0], [0.1], 0) == 0.1


@pytest.mark.parametrize(("dx", "dy"), [(1.5, -0.75), (-4.0, 3.0)])
def test_lucas_kanade_finds_translations(dx: float, dy: float) -> None:
    video = texture(2, 64, dx, dy)
    flow = LucasKanade()(video[:, :, 0], video[:, :, 1])[:, :, 12:-12, 12:-12]
    assert (flow.mean(dim=(0, 2, 3)) - torch.tensor([dx, dy])).abs().max() < 0.15
    assert (flow - torch.tensor([dx, dy]).view(1, 2, 1, 1)).abs().mean() < 0.25


def test_clip_flow_has_both_directions_in_full_size_pixels() -> None:
    video = texture(3, 96, 2.0, 0.0)
    flow = clip_flow(LucasKanade(), video, 2)[:, :, 12:-12, 12:-12].mean(dim=(2, 3))
    assert flow.shape == (4, 2)
    torch.testing.assert_close(flow[:, 0], torch.tensor([2.0, 2.0, -2.0, -2.0]), atol=0.3, rtol=0)


def test_recomputed_flow_has_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "RECOMPUTED_PAIRS", 3)  # 8 pairs in three parts
    torch.manual_seed(0)
    calls: list[int] = []

    class Counted(LucasKanade):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            calls.append(first.shape[0])
            return super().forward(first, second)

    video = torch.rand(1, 3, 5, 64, 64) * 2 - 1
    fakes = [(video * 0.9 + 0.05).requires_grad_() for _ in range(2)]
    values = [flow_distance(Counted(), video, fakes[i], 1, recompute=bool(i)) for i in range(2)]
    assert calls == [8, 8, 8, 3, 3, 2]
    for value in values:
        value.backward()
    assert sorted(calls[6:]) == [2, 3, 3]
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(fakes[1].grad, fakes[0].grad)


def test_flow_network_of_the_user(tmp_path: Path) -> None:
    class Constant(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return (first - second)[:, :2]

    torch.jit.script(Constant()).save(str(tmp_path / "flow.pt"))
    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    network = make_estimator(FlowConfig(estimator=str(tmp_path / "flow.pt")))
    torch.testing.assert_close(network(a, b), (a - b)[:, :2])
    with pytest.raises(InputError, match="lucas_kanade, raft or the path"):
        make_estimator(FlowConfig(estimator="farneback"))


def test_every_term_reports_raw_and_weighted_and_sums_up() -> None:
    module = build_tokenizer("CV4x8x8-360p", formulation="VAE", **TINY)
    config = LossConfig(
        color=ScheduleConfig(values=[2.0]),
        perceptual=PerceptualConfig(
            enabled=True, weights="random", gram=ScheduleConfig(enabled=True, boundaries=[5], values=[0.0, 0.5])
        ),
        flow=FlowConfig(enabled=True, boundaries=[5], values=[0.0, 0.25]),
        kl=ScheduleConfig(enabled=True, values=[1e-3]),
        video_consistency=ConsistencyConfig(enabled=True, boundaries=[5], values=[0.0, 0.5], num_frames=5, step=4),
        adversarial=AdversarialConfig(enabled=True, boundaries=[5], values=[0.0, 0.1], feature_matching=1.0),
    )
    loss = TokenizerLoss(config, module.config)
    judge = PatchDiscriminator3D(4, 2)
    video = texture(9, 32, 1.0, 0.0)

    def evaluate(step: int):
        return loss(
            step,
            video,
            module(video),
            reconstruct=lambda clips: module(clips).reconstruction,
            discriminator=judge,
            last_layer=module.last_layer(),
        )

    assert set(evaluate(0).raw) == {"color", "perceptual", "kl"}
    terms = evaluate(5)
    assert set(terms.raw) == {"color", "perceptual", "gram", "flow", "kl", "video_consistency", "adversarial"}
    for name, weight in (("color", 2.0), ("perceptual", 0.1), ("gram", 0.5), ("flow", 0.25), ("kl", 1e-3)):
        torch.testing.assert_close(terms.weighted[name], terms.raw[name] * weight)
    torch.testing.assert_close(terms.total, sum(terms.weighted.values()))
    terms.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert all(p.grad is None for p in judge.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": ScheduleConfig(boundaries=[5, 1], values=[1, 2])}, "do not fit"),
        ({"color": ScheduleConfig(boundaries=[5], values=[1, 2, 3])}, "do not fit"),
        ({"color": ScheduleConfig(enabled=False)}, "every loss term is off"),
        ({"kl": ScheduleConfig(enabled=True)}, "VAE formulation"),
        ({"video_consistency": ConsistencyConfig(enabled=True, num_frames=9, step=9)}, "overlap"),
        ({"perceptual": PerceptualConfig(enabled=True, weights="/none.pth")}, "does not exist"),
    ],
)
def test_wrong_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenizerLoss(LossConfig(**change), TokenizerConfig.preset("CV4x8x8-360p"))


def test_vgg_weights_from_a_file(tmp_path: Path) -> None:
    source = Vgg16Features("random")
    state = {f"features.{key}": value + 0.01 for key, value in source.features.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.zeros(2)}, tmp_path / "vgg16.pth")
    loaded = Vgg16Features(str(tmp_path / "vgg16.pth"))
    torch.testing.assert_close(loaded.features[0].weight, source.features[0].weight + 0.01)
    torch.save({"lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}, tmp_path / "vgg.pth")
    with pytest.raises(InputError, match="not the weights of VGG16"):
        Vgg16Features(str(tmp_path / "vgg.pth"))


def test_perceptual_and_gram_distances() -> None:
    vgg = Vgg16Features("random")
    x, y = torch.rand(4, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1
    a, b = vgg(x), vgg(y)
    assert [m.shape[1] for m in a] == [64, 128, 256, 512, 512] and [m.shape[2] for m in a] == [32, 16, 8, 4, 2]
    assert feature_distance(a, a) == 0 and feature_distance(a, b) > 0
    assert gram_distance(a, a, 2) == 0
    # Gram matrices forget where and when: shuffling a clip's frames changes nothing.
    assert gram_distance(a, [m[[1, 0, 2, 3]] for m in a], 2) < 1e-9
    heads = [torch.ones(m.shape[1]) for m in a]
    assert lpips(a, a, heads) == 0 and lpips(a, b, heads) > 0


def test_kl_of_a_standard_normal_is_zero() -> None:
    assert kl_divergence(torch.zeros(1, 8, 1, 2, 2)) == 0
    moments = torch.cat([torch.full((1, 4, 1, 2, 2), 2.0), torch.zeros(1, 4, 1, 2, 2)], 1)
    assert kl_divergence(moments).item() == pytest.approx(2.0)


def test_adaptive_weight_equalises_gradients() -> None:
    weight = torch.ones(4, requires_grad=True)
    ratio = adaptive_weight((weight * 3.0).sum(), (weight * 0.5).sum(), weight)
    assert ratio.item() == pytest.approx(6.0, rel=1e-3) and not ratio.requires_grad


def test_generator_loss_leaves_the_discriminator_trainable() -> None:
    judge = PatchDiscriminator3D(4, 2)
    fake = torch.rand(1, 3, 5, 16, 16, requires_grad=True)
    generator_loss(judge, torch.rand(1, 3, 5, 16, 16), fake, 1.0).backward()
    assert fake.grad is not None and all(p.requires_grad and p.grad is None for p in judge.parameters())


def test_psnr_and_ssim() -> None:
    video = (torch.arange(3 * 2 * 16 * 16).reshape(1, 3, 2, 16, 16) % 200 / 255.0) * 2 - 1
    brighter = video + 10 / 255.0 * 2
    assert psnr(video, brighter).item() == pytest.approx(20 * torch.log10(torch.tensor(25.5)).item(), abs=1e-3)
    assert ssim(video, video).item() == pytest.approx(1.0) and 0.5 < ssim(video, brighter).item() < 1.0
    noise = torch.rand_like(video) * 2 - 1
    assert ssim(video, noise).item() < 0.2


def test_code_usage_and_frechet_distance() -> None:
    usage, perplexity = code_usage(torch.tensor([0, 0, 1, 1]), 8)
    assert usage == 0.25 and perplexity == pytest.approx(2.0, rel=1e-5)
    torch.manual_seed(0)
    a = torch.randn(500, 3)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(a, a + 2.0) == pytest.approx(12.0, rel=1e-5)
