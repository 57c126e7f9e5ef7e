"""One name for each precision, ``bf16``, ``fp16`` and ``fp32``; the long names that files hold are understood, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_cosmos.errors import InputError

if TYPE_CHECKING:
    import torch

LONG = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""By short name: as PyTorch, NumPy and the records of prepared folders call it."""
_SHORT = {long: short for short, long in LONG.items()}


def short_name(name: str) -> str:
    """``bfloat16`` is ``bf16``; what is no long name of a precision stays as it is."""
    return _SHORT.get(name, name)


def long_name(name: str, what: str = "precision") -> str:
    """``bf16`` or ``bfloat16`` to ``bfloat16``.

    Raises:
        InputError: no precision; the message begins with ``what``.
    """
    short = short_name(name)
    if short not in LONG:
        raise InputError(f"{what} {name!r}: expected one of {', '.join(LONG)}")
    return LONG[short]


def to_dtype(name: str) -> torch.dtype:
    """The dtype of a precision, by either of its names; InputError for others."""
    import torch

    dtype = getattr(torch, long_name(name))
    assert isinstance(dtype, torch.dtype)
    return dtype


def shown_dtype(dtype: torch.dtype) -> str:
    """``bf16`` for ``torch.bfloat16``; dtypes without a short name keep PyTorch's."""
    return short_name(str(dtype).removeprefix("torch."))
