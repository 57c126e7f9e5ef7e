"""NeMo, Megatron-Core and PyTorch are changed within a run alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_cosmos.upstream.cpu import cuda_on_cpu
from nemo_cosmos.upstream.replaced import replaced, stand_ins
from tests.training.shards import write_shards

ROOT = Path(__file__).parents[1]

TRAIN = """
import sys
from pathlib import Path

import torch
import nemo_cosmos.cli, nemo_cosmos.training.run

LLM = "nemo.collections.llm"
OWNERS = (torch, torch.cuda, torch.cuda.nvtx, torch.Tensor, torch.nn.Module, torch.nn.functional)


def state():
    return [dict(vars(owner)) for owner in OWNERS], dict(sys.modules)


def check(before, when):
    for owner, attributes in zip(OWNERS, before[0]):
        changed = [name for name, value in attributes.items() if vars(owner).get(name) is not value]
        assert not changed, (when, owner, changed)
    assert "cuda" not in vars(torch.Tensor), when
    assert not [name for name, value in before[1].items() if sys.modules.get(name) is not value], when
    assert not [name for name, value in sys.modules.items() if value is None and name not in before[1]], when
    assert not [name for name in sys.modules if name.startswith(LLM)], when
    assert torch.zeros(1).type() == "torch.FloatTensor", when


assert not [name for name in sys.modules if name.startswith(LLM)]
from tests.parallel.runs import small_run

before = state()
shards, folder = map(Path, sys.argv[1:])
check(before, "after imports")
for name, steps in (("first", 1), ("second", 2)):
    nemo_cosmos.training.run.train(small_run(shards, folder / name, f"trainer.max_steps={steps}"))
    check(before, name)
    torch.distributed.destroy_process_group()

from megatron.core.distributed import distributed_data_parallel, param_and_grad_buffer
from nemo.lightning.callback_group import CallbackGroup

assert distributed_data_parallel.partition_buckets is param_and_grad_buffer.partition_buckets
assert CallbackGroup.get_instance()._callbacks
"""


def test_a_run_leaves_the_process_as_it_found_it(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(3, 4, 6))
    result = subprocess.run(
        [sys.executable, "-c", TRAIN, str(shards), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "second" / "checkpoints" / "iter_000000002_reg_model.pt").is_file()


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
