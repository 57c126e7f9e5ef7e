"""The files of a distributed save: index, tensors, plain values beside them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import pickletools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch.distributed.checkpoint import FileSystemReader, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.metadata import Metadata
from torch.futures import Future

from nemo_cosmos.atomic import write_bytes
from nemo_cosmos.checkpoint.index import check_index
from nemo_cosmos.checksums import Checksum, HashingFile, of_archive, of_files
from nemo_cosmos.errors import InputError, require_file

_THREADS = 4
"""Files that a rank reads at a time."""
INDEX = ".metadata"
COMMON = "common.pt"
BUFFERS = "buffers"
"""In the common file: what released files carry beside parameters, as the run's first weights had it."""
TENSORS = "weights"
"""The folder of the tensors in a save."""
_FORMAT_FILE = "metadata.json"
_FORMAT = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch",
           "common_backend_version": 1}  # fmt: skip

_RECORDS = tuple(f"torch.distributed.checkpoint.{name}" for name in ("metadata", "planner", "filesystem"))
_OTHERS = {("torch", "Size"), ("torch.serialization", "_get_layout"), ("pathlib", "PosixPath"),
           ("pathlib._local", "PosixPath")}  # fmt: skip


_NUMBERING = ("PUT", "BINPUT", "LONG_BINPUT")


class _IndexUnpickler(pickle.Unpickler):
    """Admits the record classes of torch's distributed checkpoint and what they are made of, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _RECORDS or module == "torch" or (module, name) in _OTHERS:
            found = super().find_class(module, name)
            is_record = isinstance(found, type) and found.__module__ == module and module in _RECORDS
            if is_record or isinstance(found, torch.dtype) or (module, name) in _OTHERS:
                return found
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which has no place in a checkpoint's index")


def _check_numbering(content: bytes) -> None:
    """UnpicklingError where a pickle numbers its values beyond their count, or tells of more bytes than it has.

    The unpickler takes memory by such numbers, as given. Files of PyTorch leave the numbering to the reader.
    """
    for opcode, number, _ in pickletools.genops(content):
        if opcode.name in _NUMBERING and int(number or 0) > len(content):
            raise pickle.UnpicklingError(f"it numbers a value {number}, more than it holds")


class CheckpointReader(FileSystemReader):
    """torch's reader with a restricted unpickler and the index read once.

    Args:
        folder: ``iter_…`` of a run, or the ``weights`` folder in it.

    Raises:
        InputError: there is no distributed checkpoint, or its index is broken.
    """

    def __init__(self, folder: Path) -> None:
        folder = tensors_folder(folder)
        super().__init__(folder)
        self.folder = folder
        path = folder / INDEX
        try:
            content = path.read_bytes()
            _check_numbering(content)
            index = _IndexUnpickler(io.BytesIO(content)).load()
        except FileNotFoundError:
            raise InputError(f"{folder}: no distributed checkpoint there, its index {path.name} is missing") from None
        except Exception as error:  # a broken pickle raises nearly anything
            raise InputError(f"{path}: not a readable index ({type(error).__name__}: {error})") from error
        if not isinstance(index, Metadata):
            raise InputError(f"{path}: expected the index of a checkpoint, found {type(index).__name__}")
        check_index(index, str(path))
        self.index = index

    @property
    def has_ema(self) -> bool:
        """Whether the save holds a moving average."""
        return any(name.startswith("ema.") for name in self.index.state_dict_metadata)

    def __contains__(self, key: str) -> bool:
        return key in self.index.state_dict_metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Several files at a time."""
        by_file: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            by_file.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        done: Future[None] = Future()
        with ThreadPoolExecutor(_THREADS) as pool:
            read = super().read_data
            list(pool.map(lambda items: read(LoadPlan(items), planner).wait(), by_file.values()))
        done.set_result(None)
        return done

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.index


class HashingFileSystem(FileSystem):
    """PyTorch's files of a save, each with its checksum, made in the thread that writes it."""

    def __init__(self) -> None:
        self.checksums: dict[str, Checksum] = {}

    @contextlib.contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:
        with super().create_stream(path, mode) as stream:
            if mode != "wb":
                yield stream
                return
            hashing = HashingFile(cast(Any, stream))
            yield cast(io.IOBase, hashing)
            self.checksums[Path(path).name] = hashing.checksum

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        super().rename(path, new_path)
        self.checksums[Path(new_path).name] = self.checksums.pop(Path(path).name)


def read_common(folder: Path) -> dict[str, Any]:
    """What rank 0 wrote beside the tensors.

    Raises:
        InputError: the file is missing, broken, or holds anything but plain values and tensors.
    """
    path = folder / COMMON
    if path.exists():
        require_file(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; the save is not complete, resume from another one") from None
    except Exception as error:  # torch raises many types for a broken or unsafe file; all mean the same to the user
        raise InputError(f"{path}: not readable ({type(error).__name__}: {error})".splitlines()[0]) from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: found {type(values).__name__}, expected the state of a run")
    return values


def tensors_folder(folder: Path) -> Path:
    """Where in a save the tensors lie."""
    return folder / TENSORS if (folder / TENSORS).is_dir() else folder


def write_format(folder: Path, common: Mapping[str, Any]) -> dict[str, Checksum]:
    """Beside the tensors: plain values, and which format this is, as Megatron-Core looks for them.

    Returns:
        The checksums of these files.
    """
    torch.save(dict(common), folder / COMMON)
    write_bytes(folder / _FORMAT_FILE, json.dumps(_FORMAT).encode())
    return {COMMON: of_archive(folder / COMMON), _FORMAT_FILE: of_files([folder / _FORMAT_FILE])[0]}
