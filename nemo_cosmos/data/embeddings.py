"""Files of text embeddings as Cosmos tools keep them: ``t5_xxl/NAME.pickle`` beside ``metas/NAME.txt``.

A pickle holds a list with one NumPy array (tokens, width), the true tokens alone. Pickles can run code when loaded;
these are read by an unpickler that knows NumPy arrays and nothing else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.data.manifest import write_bytes
from nemo_cosmos.errors import InputError

DTYPES = ("float16", "float32")
"""NumPy has no bfloat16, so pickles cannot hold it."""

_arrays = [np.array([1.0], np.float16).__reduce__()[0], np.array([1.0], np.float16).__reduce_ex__(5)[0]]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # NumPy 1 and 2 name the module differently; both kinds of file are around.
    ("numpy.core.multiarray", "_reconstruct"): _arrays[0],
    ("numpy._core.multiarray", "_reconstruct"): _arrays[0],
    ("numpy.core.numeric", "_frombuffer"): _arrays[1],
    ("numpy._core.numeric", "_frombuffer"): _arrays[1],
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler for lists of NumPy arrays; any other global in the file is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_embedding(path: str | Path) -> Tensor:
    """Read a ``t5_xxl`` pickle: (tokens, width), in the stored floating-point type.

    Raises:
        InputError: the file is unreadable, holds anything but one 2-D floating-point array, or non-finite numbers.
    """
    path = Path(path)
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"{path} is not a pickled list of NumPy arrays: {error}; it was not loaded") from error
    array = content[0] if isinstance(content, list) and len(content) == 1 else content
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or array.shape[0] < 1:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{path} holds {found}; expected a list with one float array (tokens, width)")
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds numbers that are not finite; embed the caption again")
    return torch.from_numpy(np.ascontiguousarray(array))


def write_embedding(path: str | Path, embedding: Tensor, dtype: str = "float16") -> None:
    """Write (tokens, width) as Cosmos tools do; the file appears when complete."""
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    array = embedding.float().cpu().numpy().astype(dtype)
    write_bytes(Path(path), pickle.dumps([array]))
