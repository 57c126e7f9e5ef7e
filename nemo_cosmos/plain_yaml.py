"""YAML without aliases, tags, or keys that stand twice."""

from __future__ import annotations

from typing import Any

from yaml import AliasEvent, MappingNode, Node, SafeLoader, YAMLError
from yaml.constructor import ConstructorError

__all__ = ["PlainLoader", "YAMLError"]


class PlainLoader(SafeLoader):
    """PyYAML's safe loader for files whose values stand where they are used."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(AliasEvent):
            event = self.peek_event()
            raise ConstructorError(
                None, None, "aliases such as *name are not read, write the values out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise ConstructorError(None, None, f"the key {key.value[:80]!r} stands twice", key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)
