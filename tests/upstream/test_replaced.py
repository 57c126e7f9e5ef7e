"""What stands in for parts of PyTorch and for packages does so for a while."""

from __future__ import annotations

import sys

import pytest
import torch

from nemo_cosmos.upstream.cpu import cuda_on_cpu
from nemo_cosmos.upstream.replaced import replaced, stand_ins


def test_cuda_calls_go_to_the_cpu_within_and_not_after_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("nothing is redirected beside a GPU")
    device_count = torch.cuda.device_count
    with pytest.raises(ZeroDivisionError), cuda_on_cpu() as outer, cuda_on_cpu() as inner:
        assert outer
        assert inner
        tensor = torch.zeros(2, device="cuda").cuda().to("cuda")
        assert tensor.device.type == "cpu"
        assert tensor.type() == "torch.cuda.FloatTensor"
        raise ZeroDivisionError
    assert torch.zeros(2).type() == "torch.FloatTensor"
    assert torch.cuda.device_count is device_count
    assert "cuda" not in vars(torch.Tensor)
    with cuda_on_cpu() as again:
        assert again
        assert torch.zeros(2).type() == "torch.cuda.FloatTensor"


def test_inherited_attributes_are_inherited_again_and_stand_ins_leave() -> None:
    class Base:
        word = "base"

    class Child(Base):
        pass

    with replaced(Child, {"word": "child"}):
        assert Child.word == "child"
    assert "word" not in vars(Child)
    with stand_ins({"a_package_that_nobody_has": None}):
        assert sys.modules["a_package_that_nobody_has"] is None
    assert "a_package_that_nobody_has" not in sys.modules


def test_norms_and_scaled_gradients_are_megatrons_own() -> None:
    from megatron.core.utils import local_multi_tensor_scale

    from nemo_cosmos.upstream.nemo import _l2_norm, _scale

    torch.manual_seed(0)
    gradients = [torch.randn(shape) * 10**n for n, shape in enumerate([(7,), (33, 65), (1,), (96, 192)])]
    norm, _ = _l2_norm(0, None, [gradients], False)
    assert norm.shape == (1,) and float(norm) == float(torch.norm(torch.tensor([torch.norm(g) for g in gradients])))
    ours, theirs = ([gradient.clone() for gradient in gradients] for _ in range(2))
    _scale(0, None, [ours, ours], 0.3)
    local_multi_tensor_scale(0, None, [theirs, theirs], 0.3)
    assert all(map(torch.equal, ours, theirs))
