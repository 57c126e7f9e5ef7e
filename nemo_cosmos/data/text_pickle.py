"""Pickles of a dictionary of texts, read without unpickling.

As in ``array_pickle`` the opcodes are followed on plain values, and whatever a dictionary of texts does not need is an
error, before anything of it has been called or made.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import Any

_MARK = object()
_IGNORED = frozenset({"PROTO", "FRAME"})
_TEXTS = frozenset(
    {
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),  # Texts of Python 2.
    }
)


def load_texts(content: bytes) -> dict[str, str]:
    """What a pickle of protocol 0 to 5 of a dictionary with texts as keys and values holds.

    Raises:
        UnpicklingError, ValueError, IndexError, KeyError: it holds anything else, or is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            return _dictionary(stack)
        if name in _TEXTS:
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "DICT":
            pairs = _above_mark(stack)
            stack.append({})
            _set(stack, pairs)
        elif name == "SETITEM":
            _set(stack, [stack.pop(-2), stack.pop()])
        elif name == "SETITEMS":
            _set(stack, _above_mark(stack))
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(str(argument))])
        elif name not in _IGNORED:
            what = f"{name} {str(argument)[:100]}" if argument is not None else name
            raise pickle.UnpicklingError(f"it has {what!a}, which no dictionary of texts needs")
    raise pickle.UnpicklingError("it ends early")


def _above_mark(stack: list[Any]) -> list[Any]:
    """Take everything above the topmost mark, and the mark."""
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _set(stack: list[Any], pairs: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, dict) or len(pairs) % 2 or not all(isinstance(item, str) for item in pairs):
        raise pickle.UnpicklingError("it holds more than texts")
    target.update(zip(pairs[::2], pairs[1::2], strict=True))


def _dictionary(stack: list[Any]) -> dict[str, str]:
    if len(stack) != 1 or not isinstance(stack[0], dict):
        raise pickle.UnpicklingError("it holds no dictionary")
    return stack[0]
