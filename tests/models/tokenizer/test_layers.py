"""Fast forms of the tokenizers' layers against the plain ones, on whatever device is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from nemo_cosmos.models.tokenizer import attention, build_tokenizer
from nemo_cosmos.models.tokenizer.haar import HaarPatcher3D, HaarUnpatcher3D
from nemo_cosmos.models.tokenizer.jit import script_tokenizer
from nemo_cosmos.models.tokenizer.layers import frame_norm_16_bit, fused_frame_norm
from nemo_cosmos.upstream.compiler import allow_repeated_backward

from .golden import fill_parameters, golden_video, hash_tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("causal", [False, True])
def test_wide_attention(causal: bool, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 24**2)  # 5 sequences in parts of 2, 2 and 1
    torch.manual_seed(0)
    exact = [torch.randn(5, 24, 512, dtype=torch.float64).to(dtype).double().requires_grad_() for _ in range(3)]
    inputs = [tensor.detach().to(DEVICE, dtype).requires_grad_() for tensor in exact]
    expected = F.scaled_dot_product_attention(*exact, is_causal=causal)
    out = attention.wide_attention(*inputs, causal)
    assert out.dtype == dtype
    assert relative(out.cpu(), expected) < bound
    seed = torch.randn_like(expected)
    gradients = torch.autograd.grad(out, inputs, seed.to(DEVICE, dtype))
    for own, reference in zip(gradients, torch.autograd.grad(expected, exact, seed), strict=True):
        assert relative(own.cpu(), reference) < bound


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_fused_norm_keeps_precision_far_from_zero(silu: bool, offset: float) -> None:
    x = hash_tensor((3, 16, 12, 20), 1) + offset
    weight, bias = hash_tensor((16,), 2), hash_tensor((16,), 3)
    expected = F.group_norm(x.double(), 1, weight.double(), bias.double(), 1e-6)
    expected = F.silu(expected) if silu else expected
    out = fused_frame_norm(x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), silu)
    # Values near 100 are known to 4e-6 in fp32.
    assert relative(out.cpu(), expected) < (1e-6 if offset == 0 else 1e-4)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_norm_of_16_bit_values(silu: bool, offset: float) -> None:
    """Rounded once more than the exact one where SiLU follows, also where the mean is 20 standard deviations."""
    x = (hash_tensor((3, 16, 12, 20), 1) + offset).bfloat16()
    weight, bias = hash_tensor((16,), 2).bfloat16(), hash_tensor((16,), 3).bfloat16()
    expected = F.group_norm(x.double(), 1, weight.double(), bias.double(), 1e-6)
    expected = F.silu(expected) if silu else expected
    inputs = [tensor.to(DEVICE) for tensor in (x.contiguous(memory_format=torch.channels_last), weight, bias)]
    out = torch.jit.script(frame_norm_16_bit)(*inputs, silu, 1e-6)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert relative(out.cpu(), expected) < (4e-3 if silu else 2e-3)


@pytest.mark.parametrize("patch", [2, 4])
def test_haar_equals_its_definition(patch: int) -> None:
    """Level by level: low and high pass along t, h and w, then a division by 2√2."""
    video = hash_tensor((2, 3, 1 + 2 * patch, 4 * patch, 3 * patch), 5).double()
    y = torch.cat([video[:, :, :1].expand(-1, -1, patch - 1, -1, -1), video], dim=2)
    for _ in range({2: 1, 4: 2}[patch]):
        bands = [y]
        for axis in (2, 3, 4):
            halves = [(b.unflatten(axis, (-1, 2)).unbind(axis + 1)) for b in bands]
            bands = [(a + sign * b) / 2**0.5 for a, b in halves for sign in (1, -1)]
        y = torch.cat(bands, dim=1) / 8**0.5
    patches = HaarPatcher3D(patch).to(DEVICE)(video.float().to(DEVICE))
    torch.testing.assert_close(patches.cpu().double(), y, rtol=1e-5, atol=1e-6)
    back = HaarUnpatcher3D(patch).to(DEVICE)(patches)
    torch.testing.assert_close(back.cpu().double(), video, rtol=1e-5, atol=1e-6)


def test_haar_in_bf16_rounds_once() -> None:
    video = hash_tensor((1, 3, 5, 64, 64), 7).bfloat16()
    exact = HaarPatcher3D(4)(video.double()).bfloat16()
    patches = HaarPatcher3D(4).bfloat16().to(DEVICE)(video.to(DEVICE)).cpu()
    assert (patches != exact).float().mean() < 0.01
    torch.testing.assert_close(patches, exact, rtol=2**-7, atol=1e-6)


@on_gpu
@pytest.mark.parametrize("name", ["CV8x8x8-720p", "DV4x8x8-360p"])
def test_tuned_module_on_gpu(name: str) -> None:
    """Compiled and reordered, it equals the CPU's module, trains, and still exports."""
    overrides = {"z_channels": 32} if name == "DV4x8x8-360p" else {}
    plain = build_tokenizer(name, channels=8, **overrides)
    fill_parameters(plain)
    tuned = build_tokenizer(name, channels=8, **overrides)
    fill_parameters(tuned)
    tuned = tuned.cuda().tune()
    compiled = tuned.decoder.conv_out._compiled_call_impl
    assert tuned.cpu().cuda().tune().decoder.conv_out._compiled_call_impl is compiled
    video = golden_video()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected, out = plain(video), tuned(video.cuda())
        assert relative(out.reconstruction.cpu(), expected.reconstruction) < 1e-4
        expected.reconstruction.abs().mean().backward()
        out.reconstruction.abs().mean().backward()
        for (key, own), reference in zip(tuned.named_parameters(), plain.parameters(), strict=True):
            if float(reference.grad.norm()) > 1e-4:
                assert relative(own.grad.cpu(), reference.grad) < 1e-3, key
        scripted = script_tokenizer(tuned)["autoencoder"]
        assert relative(scripted(video.cuda())[0].cpu(), expected.reconstruction) < 1e-4
        with torch.no_grad():
            exact = relative(plain.bfloat16()(video.bfloat16()).reconstruction, expected.reconstruction)
            scripted.to(torch.bfloat16)
            assert relative(scripted(video.cuda().bfloat16())[0].cpu(), expected.reconstruction) < 1.5 * exact


@on_gpu
def test_two_backward_passes_on_gpu() -> None:
    """The adaptive adversarial weight differentiates the same graph three times."""
    torch.compiler.reset()
    allow_repeated_backward()
    module = build_tokenizer("CV4x8x8-360p", channels=8).cuda().tune()
    video = golden_video().cuda()
    reconstruction = module(video).reconstruction
    loss = (reconstruction - video).abs().mean()
    (first,) = torch.autograd.grad(loss, module.last_layer(), retain_graph=True)
    (second,) = torch.autograd.grad(loss, module.last_layer(), retain_graph=True)
    loss.backward()
    assert torch.equal(first, second)
    torch.testing.assert_close(module.last_layer().grad, first)


def test_weights_have_the_strides_of_their_gradients() -> None:
    """Otherwise DistributedDataParallel warns that its copies may be slow."""
    module = build_tokenizer("CV4x8x8-360p", channels=8).to(DEVICE)
    module(golden_video().to(DEVICE)).reconstruction.abs().mean().backward()
    weight = module.encoder.down[0].block[0].conv1[0].conv3d.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d) and not weight.is_contiguous()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.stride() == parameter.stride(), name


def test_blocks_stay_whole_under_data_parallel() -> None:
    """PyTorch cuts compiled code at gradient buckets, the first after 1 MiB, unless it is told not to."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    def forward(parallel: bool) -> int:
        torch.compiler.reset()
        graphs.clear()
        module = build_tokenizer("CV4x8x8-360p", channels=64, channels_mult=(2, 2, 2), num_res_blocks=1)
        assert sum(p.nbytes for p in module.encoder.down[1].parameters()) > 2**20
        module.compile_blocks(dynamic=False, backend=backend)
        (DistributedDataParallel(module) if parallel else module)(torch.zeros(1, 3, 5, 16, 16))
        return len(graphs)

    alone = forward(parallel=False)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert forward(parallel=True) == alone > 0
    finally:
        dist.destroy_process_group()
