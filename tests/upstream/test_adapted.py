"""NeMo, Megatron-Core and PyTorch are changed within a run alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.training.shards import write_shards

ROOT = Path(__file__).parents[2]

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
