"""What a dataclass that holds settings says of them: their dotted names and types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from typing import Any, cast


def types_of(schema: type) -> Mapping[str, Any]:
    """The type of each setting by its dotted name, sections and what they hold included, in the schema's order.

    ``X | None`` is X.
    """
    return _table(cast(Hashable, schema))


@cache
def _table(schema: Hashable) -> Mapping[str, Any]:
    return types.MappingProxyType(dict(_walk(cast(type, schema), "")))


def _walk(schema: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(schema)
    for item in dataclasses.fields(schema):
        name, kind = prefix + item.name, _without_none(hints[item.name])
        yield name, kind
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _walk(kind, f"{name}.")


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return inner[0] if len(inner) == 1 else hint
    return hint


def open_sections(schema: type) -> list[str]:
    """Names of the settings that are mappings, whose keys are the user's."""
    return [name for name, kind in types_of(schema).items() if typing.get_origin(kind) in (dict, Mapping)]


def is_section(schema: type, name: str) -> bool:
    """Whether a name is that of settings that belong together."""
    return dataclasses.is_dataclass(types_of(schema).get(name))


def is_text(schema: type, name: str) -> bool:
    """Whether a name is that of a setting whose values are text."""
    return types_of(schema).get(name) is str
