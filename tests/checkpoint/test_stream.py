"""Files of tensors written one tensor at a time."""

from __future__ import annotations

import resource
import zipfile
from collections.abc import Iterator, Mapping
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.checksums import verify
from nemo_cosmos.errors import InputError

TENSORS = {
    "net.matrix": torch.randn(50, 30),
    "net.half": torch.randn(7).bfloat16(),
    "net.view": torch.arange(12.0).view(3, 4).t(),
    "counter": torch.tensor(5),
    "empty": torch.empty(0, 3),
}


@pytest.mark.parametrize("mmap", [False, True])
def test_equals_what_torch_saves(mmap: bool, tmp_path: Path) -> None:
    save_tensors(tmp_path / "model.pt", TENSORS)
    found = torch.load(tmp_path / "model.pt", weights_only=True, mmap=mmap)
    assert list(found) == list(TENSORS)
    assert all(torch.equal(found[name], t) and found[name].dtype == t.dtype for name, t in TENSORS.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "model.pt.checksums.json"]


def test_is_a_whole_zip_file(tmp_path: Path) -> None:
    save_tensors(tmp_path / "model.pt", TENSORS)
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert archive.testzip() is None


class OneAtATime(Mapping[str, Tensor]):
    """Makes tensors when they are asked for, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return iter(TENSORS)

    def __len__(self) -> int:
        return len(TENSORS)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return tuple(TENSORS[name].shape)

    def dtype_of(self, name: str) -> torch.dtype:
        return TENSORS[name].dtype

    def __getitem__(self, name: str) -> Tensor:
        self.made.append(name)
        return TENSORS[name]


def test_asks_for_each_tensor_once(tmp_path: Path) -> None:
    tensors = OneAtATime()
    save_tensors(tmp_path / "model.pt", tensors)
    assert tensors.made == list(TENSORS)


def fill_disk(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    with pytest.raises(InputError, match="could not be written"):
        save_tensors(folder / "model.pt", {"big": torch.zeros(100_000)})


def test_full_disk_leaves_the_file_before(tmp_path: Path) -> None:
    save_tensors(tmp_path / "model.pt", TENSORS)
    process = get_context("forkserver").Process(target=fill_disk, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert list(torch.load(tmp_path / "model.pt", weights_only=True)) == list(TENSORS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "model.pt.checksums.json"]
    verify(tmp_path / "model.pt", "full")
