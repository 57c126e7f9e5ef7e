"""The recipes in NeMo-Run's own command line: `nemorun cosmos train --factory NAME config.optimizer.lr=1e-5`.

NeMo-Run finds this module through the entry point group `nemo_run.cli` and imports it there alone.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import nemo_run as run

from nemo_cosmos.compose import experiment_names
from nemo_cosmos.recipes.factory import recipe_factory
from nemo_cosmos.recipes.roots import ROOTS
from nemo_cosmos.recipes.task import train


def register() -> None:
    """Make `train` an entry point of the namespace `cosmos`, and every recipe a factory of it."""
    run.cli.entrypoint(train, namespace="cosmos")
    for root, schema in ROOTS.items():
        _evaluate_annotations(schema)
        for name in experiment_names(root):
            factory = recipe_factory(name, root)
            count = _as_union(int | None)
            factory.__annotations__ = {"num_nodes": count, "gpus_per_node": count, "overrides": Any}
            run.cli.factory(factory, target=train, name=name)


def _evaluate_annotations(schema: type[Any]) -> None:
    """Types instead of their names in the signature of a section's class, which NeMo-Run reads values by."""
    hints = typing.get_type_hints(schema)
    init: Any = schema.__init__
    init.__annotations__ = {item.name: _as_union(hints[item.name]) for item in dataclasses.fields(schema)}
    for hint in hints.values():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            _evaluate_annotations(hint)


def _as_union(hint: Any) -> Any:
    """``A | B`` in the older form, the only one that NeMo-Run 0.11 knows."""
    return typing.Union[typing.get_args(hint)] if isinstance(hint, types.UnionType) else hint  # noqa: UP007


register()
