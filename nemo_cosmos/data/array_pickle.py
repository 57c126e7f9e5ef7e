"""Pickles of NumPy float arrays, read without unpickling.

Neither Python's unpickler nor NumPy's rebuild functions are safe with states that a file makes up: they follow
addresses, sizes and indices as given. Here the opcodes that such pickles consist of are followed on plain values;
an array is made only at the end, from bytes that the file holds and a type out of a short list.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FLOATS = {"f2": "<f2", "f4": "<f4", "f8": "<f8"}
MOST_OPCODES = 1000
"""A list with one array takes fewer than a hundred."""

_END = object()
_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    # NumPy 1 and 2 name the module differently; both kinds of file are around.
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    # How protocols 0 to 2 write bytes.
    ("_codecs", "encode"): "encode",
}


@dataclass(frozen=True)
class _Name:
    """A function or class that the file asks for; it is never called."""

    name: str


@dataclass
class _Dtype:
    """A type as the file describes it, not looked at before it is used."""

    code: Any
    order: Any = None


@dataclass
class _Array:
    """An array; without ``value`` until its state is read."""

    value: np.ndarray[Any, Any] | None = None


def load_arrays(content: bytes) -> Any:
    """What a pickle of float arrays holds: an array, or (nested) lists and tuples of arrays and plain values.

    Read are protocols 0 to 5 of NumPy 1 and 2: little-endian float16, float32 and float64, in C or Fortran order.
    The arrays are read-only.

    Raises:
        UnpicklingError, ValueError, TypeError, IndexError, KeyError: anything else, or damaged.
    """
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count == MOST_OPCODES:
            raise pickle.UnpicklingError("it holds more than a list of arrays")
        if opcode.name == "STOP":
            return _unwrap(machine.stack.pop())
        machine.step(opcode.name, argument)
    raise pickle.UnpicklingError("it ends early")


def _unwrap(value: Any) -> Any:
    """Arrays for their stand-ins, in the value itself and in the list or tuple that it is."""
    if isinstance(value, list | tuple):
        return [item.value if isinstance(item, _Array) else item for item in value]
    return value.value if isinstance(value, _Array) else value


class _Machine:
    """Stack and memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _IGNORED:
            return
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise pickle.UnpicklingError(f"it has {opcode}, which no array needs")

    def above_mark(self) -> list[Any]:
        """Take everything above the topmost mark, and the mark."""
        items = []
        while (item := self.stack.pop()) is not _END:
            items.append(item)
        return items[::-1]

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def fold(self, count: int) -> None:
        """The topmost values become a tuple."""
        if len(self.stack) < count:
            raise pickle.UnpicklingError("it is damaged")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(values)

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise pickle.UnpicklingError("it is damaged")
        target.extend(values)

    def find(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise pickle.UnpicklingError("it is damaged")
        if (module, name) not in _NAMES:
            asked = f"{module[:100]}.{name[:100]}"
            raise pickle.UnpicklingError(f"it asks for {asked!a}")
        self.stack.append(_Name(_NAMES[module, name]))

    def find_stacked(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not (isinstance(function, _Name) and function.name in _CALLS and isinstance(arguments, tuple)):
            raise pickle.UnpicklingError("it calls what is no array")
        self.stack.append(_CALLS[function.name](*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(state, tuple):
            raise pickle.UnpicklingError("it is damaged")
        if isinstance(target, _Dtype):
            _version, target.order, *rest = state
            if rest[:3] != [None, None, None]:
                raise pickle.UnpicklingError("it holds structured values")
        elif isinstance(target, _Array):
            _version, shape, dtype, fortran, data = state
            target.value = _array(data, dtype, shape, "F" if fortran is True or fortran == 1 else "C")
        else:
            raise pickle.UnpicklingError("it sets the state of what is no array")


def _encode(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it is damaged")
    return text.encode("latin-1")


def _dtype(code: Any, _align: Any = False, _copy: Any = True) -> _Dtype:
    return _Dtype(code)


def _reconstruct(kind: Any, _shape: Any, _code: Any) -> _Array:
    if kind != _Name("ndarray"):
        raise pickle.UnpicklingError("it holds another kind of array")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(_array(data, dtype, shape, order))


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """An array over bytes of the file; UnpicklingError unless type, shape and number of bytes agree."""
    if not isinstance(dtype, _Dtype) or not isinstance(dtype.code, str) or dtype.code not in FLOATS:
        raise pickle.UnpicklingError("its values are not float16, float32 or float64")
    if dtype.order != "<":
        raise pickle.UnpicklingError("its values are not little-endian")
    if isinstance(data, str):  # Python 2 wrote bytes so.
        data = data.encode("latin-1")
    if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise pickle.UnpicklingError("it is damaged")
    # Each size is checked before they are multiplied: numbers in a pickle may have millions of digits.
    if not all(type(size) is int and 0 <= size <= len(data) for size in shape) or len(shape) > 8:
        raise pickle.UnpicklingError("its shape does not fit its bytes")
    kind = np.dtype(FLOATS[dtype.code])
    if math.prod(shape) * kind.itemsize != len(data):
        raise pickle.UnpicklingError("its shape does not fit its bytes")
    return np.frombuffer(bytes(data), kind).reshape(shape, order=order)


_CALLS: dict[str, Callable[..., Any]] = {
    "encode": _encode,
    "dtype": _dtype,
    "reconstruct": _reconstruct,
    "frombuffer": _frombuffer,
}
_IGNORED = frozenset({"PROTO", "FRAME"})
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _END}
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": lambda machine, _: machine.stack.append(machine.above_mark()),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.above_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.above_mark())),
    "TUPLE1": lambda machine, _: machine.fold(1),
    "TUPLE2": lambda machine, _: machine.fold(2),
    "TUPLE3": lambda machine, _: machine.fold(3),
    "GLOBAL": lambda machine, argument: machine.find(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find_stacked(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "MEMOIZE": lambda machine, _: machine.put(None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, argument: machine.put(argument)),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, argument: machine.stack.append(machine.memo[argument])
    ),
}
