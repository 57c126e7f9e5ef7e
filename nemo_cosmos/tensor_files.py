"""Files of ``torch.save`` that others wrote: read without unpickling freely."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.errors import InputError


def load_restricted(path: Path, *, mmap: bool = True) -> Any:
    """What ``torch.save`` wrote to a file: tensors, plain containers and ``io.BytesIO``, on the CPU.

    Args:
        mmap: big tensors are read when they are used; files in the format before PyTorch 1.6 are read at once.

    Raises:
        InputError: missing, damaged, or holding objects whose unpickling would run code.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a state dict saved with torch.save")
    try:
        # BytesIO is how Transformer Engine stores its extra state; its bytes are not looked into. Empty ones are
        # written as a call of `bytes`.
        with torch.serialization.safe_globals([io.BytesIO, bytes]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except Exception as error:  # torch raises many types for a broken or unsafe file; all mean the same to the user
        raise InputError(f"{path}: not a readable tensor file ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if not isinstance(error, pickle.UnpicklingError):
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    # torch's message advises to unpickle freely.
    unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it holds {unsafe[1]}, which is not unpickled" if unsafe else "damaged, or not made by torch.save"
