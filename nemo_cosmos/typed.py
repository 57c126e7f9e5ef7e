"""JSON and YAML of others into dataclasses: every value has its field's type and range, or the key is named.

Lists are looked at as a whole, a million records in a fraction of a second.
"""

from __future__ import annotations

import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from nemo_cosmos.errors import InputError, require_file

T = TypeVar("T")
LARGEST = 2**63 - 1
LARGEST_FILE = 1 << 26
"""Bytes of a JSON file that is read at once; indices and manifests have their own readers."""
LARGEST_INDEX = 1 << 30
LARGEST_YAML = 1 << 20
LONGEST_TUPLE = 64


def parse_json(content: bytes | str) -> Any:
    """``json.loads``, with ValueError for what is nested too deeply or too large for memory, too."""
    try:
        return json.loads(content)
    except (RecursionError, MemoryError) as error:
        raise ValueError("nested too deeply or too large") from error


def read_text(path: Path, most: int = LARGEST_FILE) -> str:
    """The UTF-8 text of a regular file, with or without a byte-order mark.

    Raises:
        InputError: it is missing, no file, larger than ``most`` bytes, unreadable or not UTF-8.
    """
    require_file(path)
    try:
        if path.stat().st_size > most:
            raise InputError(f"{path} has {path.stat().st_size} bytes, expected at most {most}: it is something else")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def read_object(path: Path, most: int = LARGEST_FILE) -> dict[str, Any]:
    """The JSON object in a file; InputError names the file where there is none."""
    try:
        values = parse_json(read_text(path, most))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is damaged: no JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def read_yaml(path: Path, most: int = LARGEST_YAML) -> Any:
    """The plain values of a YAML file: no aliases, which can make a small file large, no key twice, no tags.

    Raises:
        InputError: as :func:`read_text`, or it is not such YAML.
    """
    text = read_text(path, most)
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """:func:`read_yaml` of a text."""
    from nemo_cosmos.plain_yaml import PlainLoader, YAMLError

    try:
        return PlainLoader(text).get_single_data()
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"{where}, line {mark.line + 1}" if mark is not None else where
        raise InputError(f"{place}: not YAML that is read here ({problem or str(error).splitlines()[0]})") from error
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: not YAML that is read here ({str(error) or 'nested too deeply'})") from error


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
    return kind(
        **{
            name: value if _is_plain(value, hints[name]) else _column([value], hints[name], f"{where}: {name}")[0]
            for name, value in values.items()
        }
    )


def _is_plain(value: Any, hint: Any) -> bool:
    """Whether a single value is certainly of a type and in range: most are, and :func:`_column` is made for many."""
    kind = type(value)
    if kind is str:
        return hint is str and "\0" not in value
    if kind is int:
        return (hint is int and 0 <= value <= LARGEST) or (hint is float and abs(value) < LARGEST)
    if kind is float:
        return hint is float and abs(value) < LARGEST  # which NaN is not
    return value is None and _takes_none(hint)


@lru_cache
def _takes_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


@lru_cache
def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Types of the fields by name, and the names of those without a default."""
    known = fields(kind)
    hints = typing.get_type_hints(kind)
    needed = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    return {field.name: hints[field.name] for field in known}, needed


Limits = Mapping[str, tuple[float, float]]
"""By field: least and most."""


def check_fields(values: Any, limits: Limits, where: str) -> None:
    """Hold the fields of a dataclass object to their types, numbers also to limits; lists count as tuples.

    Args:
        limits: numbers without limits are from -(2^63-1) to 2^63-1; a tuple's limits hold for its elements.
        where: begins the message.

    Raises:
        InputError: names the first field at fault, its value and what is allowed.
    """
    hints = typing.get_type_hints(type(values))
    for item in fields(values):
        value, hint = getattr(values, item.name), hints[item.name]
        least, most = limits.get(item.name, (-LARGEST, LARGEST))
        if not _fits(value, hint):
            raise InputError(f"{where}{item.name}={_shown(value)}: expected {_expected(hint)}")
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not least <= number <= most:
                raise InputError(f"{where}{item.name}={_shown(value)}: expected {least:g} to {most:g}")


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Hold arguments of a function to the types that its signature states; others than its own are not looked at.

    Raises:
        InputError: names the first argument at fault, its value and what is expected.
    """
    hints = typing.get_type_hints(function)
    for name in inspect.signature(function).parameters:
        if name in values and not _fits(values[name], hints[name]):
            raise InputError(f"{name}={_shown(values[name])}: expected {_expected(hints[name])}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; a bool is no number, a whole number is a float too."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return isinstance(value, str) and value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > LONGEST_TUPLE:
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(map(_expected, typing.get_args(hint)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    names[Path] = "a path"
    return names.get(hint) or str(hint).replace("nemo_cosmos.", "")


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge number"
    return text if len(text) <= 80 else f"{text[:80]}…"


def plain_name(name: str, where: str) -> str:
    """A file's name; InputError when it leads into another folder or is none."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or len(name.encode("utf-8", "replace")) > 255:
        raise InputError(f"{where}: {name[:100]!r} is not the name of a file in the same folder")
    return name


def _column(values: Sequence[Any], hint: Any, where: str) -> Sequence[Any]:
    """Values of one type; dataclasses among them are made from their objects."""
    if hint is Any:
        return values
    origin, arguments = _parts(hint)
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


@lru_cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(hint), typing.get_args(hint)


def _range(values: Sequence[Any], hint: Any, where: str) -> None:
    if hint is int and not 0 <= min(values) <= max(values) <= LARGEST:
        raise InputError(f"{where}: expected integers from 0 to 2^63-1")
    if hint is float and not (all(map(math.isfinite, filter(_is_float, values))) and max(map(abs, values)) < LARGEST):
        raise InputError(f"{where}: expected finite numbers")
    if hint is str and any("\0" in value for value in values):
        raise InputError(f"{where}: expected text without NUL")


def _is_float(value: Any) -> bool:
    return isinstance(value, float)
