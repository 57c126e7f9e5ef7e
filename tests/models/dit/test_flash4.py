"""When FlashAttention-4 is taken; its kernel runs on a GPU alone, so another stands in for it here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.doctor.compute import check_long_attention
from nemo_cosmos.models.dit import flash4
from nemo_cosmos.models.dit.attention import scaled_dot_product


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    flash4.kernel.cache_clear()
    yield
    flash4.kernel.cache_clear()


def tensor(tokens: int = flash4.LEAST_TOKENS, **changed: Any) -> Any:
    """What the choice looks at, without memory behind it; on a GPU unless said otherwise."""
    shape = (1, tokens, 4, changed.pop("width", 128))
    return SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, shape=shape, device="cuda", **changed)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


@pytest.mark.usefixtures("hopper")
def test_long_sequences_on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flash4.suits(tensor(), tensor())
    assert not flash4.suits(tensor(), tensor(512)) and not flash4.suits(tensor(flash4.LEAST_TOKENS - 1), tensor())
    assert not flash4.suits(tensor(width=64), tensor(width=64))
    for name, value in (("dtype", torch.float32), ("is_cuda", False)):
        other = tensor()
        setattr(other, name, value)
        assert not flash4.suits(other, other), name
    for capability in ((8, 0), (10, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert not flash4.suits(tensor(), tensor())


@pytest.mark.usefixtures("hopper")
def test_deterministic_runs_do_without() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert not flash4.suits(tensor(), tensor())
    finally:
        torch.use_deterministic_algorithms(False)


def heads_last(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, s, h, d), as FlashAttention-4 takes them."""
    assert q.shape[1:] == (6, 2, 8) and k.shape[1] == 5
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


@pytest.mark.parametrize("with_denominator", [False, True])
def test_it_gets_and_gives_tensors_in_its_own_order(with_denominator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType(flash4.MODULE)
    module.flash_attn_func = lambda *qkv: (heads_last(*qkv), None) if with_denominator else heads_last(*qkv)
    q, k, v = (torch.randn(tokens, 3, 2, 8, requires_grad=True) for tokens in (6, 5, 5))
    expected = scaled_dot_product(q, k, v)
    monkeypatch.setitem(sys.modules, flash4.MODULE, module)
    monkeypatch.setattr(flash4, "installed", lambda: True)
    monkeypatch.setattr(flash4, "suits", lambda q, k: True)
    found = scaled_dot_product(q, k, v)
    assert found.shape == (6, 3, 2, 8) and torch.allclose(found, expected, atol=1e-6)
    gradients = [torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (expected, found)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_pytorch_serves_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash4, "MODULE", "no_such_package.cute")
    monkeypatch.setattr(flash4, "suits", lambda q, k: True)
    assert not flash4.installed() and flash4.kernel() is None
    q = torch.randn(6, 1, 2, 8)
    assert scaled_dot_product(q, q, q).shape == q.shape


def test_pytorch_serves_where_it_does_not_load(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("no driver\nmore")

    monkeypatch.setattr(flash4, "installed", lambda: True)
    monkeypatch.setattr(flash4.importlib, "import_module", fail)
    monkeypatch.setattr(flash4, "suits", lambda q, k: True)
    q = torch.randn(6, 1, 2, 8)
    with caplog.at_level(logging.WARNING, "nemo_cosmos"):
        assert scaled_dot_product(q, q, q).shape == q.shape
    (record,) = caplog.records
    assert record.getMessage().endswith("cuDNN serves instead: no driver")
    (finding,) = check_long_attention(flash4.HOPPER)
    assert finding.verdict == "note" and "does not load" in finding.text


def test_the_doctor_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(check_long_attention(8))
    monkeypatch.setattr(flash4, "installed", lambda: False)
    (finding,) = check_long_attention(flash4.HOPPER)
    assert finding.verdict == "ok" and "nemo_cosmos[flash4]" in finding.text
    monkeypatch.setattr(flash4, "installed", lambda: True)
    monkeypatch.setattr(flash4, "kernel", lambda: heads_last)
    monkeypatch.setattr(flash4, "installed_version", lambda: "4.0")
    (finding,) = check_long_attention(flash4.HOPPER)
    assert finding.text == "FlashAttention-4 4.0 for self attention over 16,384 tokens and more"
