"""JSON of others into dataclasses: every value has the type and range that its field says, or the key is named.

Lists are looked at as a whole, a million records in a fraction of a second.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from nemo_cosmos.errors import InputError

T = TypeVar("T")
LARGEST = 2**63 - 1


def parse_json(content: bytes | str) -> Any:
    """``json.loads``, with ValueError for what is nested too deeply or too large for memory, too."""
    try:
        return json.loads(content)
    except (RecursionError, MemoryError) as error:
        raise ValueError("nested too deeply or too large") from error


def from_json(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a JSON object. Integers are from 0 to 2^63-1, numbers finite, text is without NUL.

    Args:
        kind: its fields are str, int, float, Any, dict[str, Any], dataclasses, lists of these, or with None.
        where: names the file in errors.

    Raises:
        InputError: no object, a key is missing or unknown, or a value is of another type or out of range.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(values).__name__}")
    hints, needed = _fields(kind)  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in hints]:
        raise InputError(f"{where}: unknown key {unknown[0][:100]!r}")
    if missing := [name for name in needed if name not in values]:
        raise InputError(f"{where}: the key {missing[0]!r} is missing")
    return kind(**{name: _column([value], hints[name], f"{where}: {name}")[0] for name, value in values.items()})


@lru_cache
def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Types of the fields by name, and the names of those without a default."""
    known = fields(kind)
    hints = typing.get_type_hints(kind)
    needed = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    return {field.name: hints[field.name] for field in known}, needed


def plain_name(name: str, where: str) -> str:
    """A file's name; InputError when it leads into another folder or is none."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or len(name.encode("utf-8", "replace")) > 255:
        raise InputError(f"{where}: {name[:100]!r} is not the name of a file in the same folder")
    return name


def _column(values: Sequence[Any], hint: Any, where: str) -> Sequence[Any]:
    """Values of one type; dataclasses among them are made from their objects."""
    if hint is Any:
        return values
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = [a for a in arguments if a is not type(None)]
        given = iter(_column([value for value in values if value is not None], inner, where))
        return [None if value is None else next(given) for value in values]
    if is_dataclass(hint) and isinstance(hint, type):
        return [from_json(hint, value, where) for value in values]
    wanted: type = origin or hint
    allowed: set[type] = {int, float} if wanted is float else {wanted}
    if other := set(map(type, values)) - allowed:
        raise InputError(f"{where}: expected {wanted.__name__}, found {other.pop().__name__}")
    if origin is list:
        if is_dataclass(arguments[0]):
            return [list(_column(value, arguments[0], where)) for value in values]
        _column(list(chain.from_iterable(values)), arguments[0], where)
    elif origin is dict:
        _column(list(chain.from_iterable(value.values() for value in values)), arguments[1], where)
    elif values:
        _range(values, hint, where)
    return values


def _range(values: Sequence[Any], hint: Any, where: str) -> None:
    if hint is int and not 0 <= min(values) <= max(values) <= LARGEST:
        raise InputError(f"{where}: expected integers from 0 to 2^63-1")
    if hint is float and not (all(map(math.isfinite, filter(_is_float, values))) and max(map(abs, values)) < LARGEST):
        raise InputError(f"{where}: expected finite numbers")
    if hint is str and any("\0" in value for value in values):
        raise InputError(f"{where}: expected text without NUL")


def _is_float(value: Any) -> bool:
    return isinstance(value, float)
