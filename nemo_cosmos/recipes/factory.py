"""Makes the recipe of an experiment: a `run.Partial` whose settings are fields that can be changed."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nemo_cosmos.compose import experiment_file, unresolved_settings
from nemo_cosmos.recipes.extra import require_nemo_run
from nemo_cosmos.recipes.processes import check_processes
from nemo_cosmos.recipes.roots import ROOTS
from nemo_cosmos.recipes.task import checked, train

if TYPE_CHECKING:
    import nemo_run as run


def recipe_factory(name: str, root: str) -> Callable[..., run.Partial[None]]:
    """The function that makes the recipe of a shipped experiment.

    It takes ``num_nodes`` and ``gpus_per_node``, and overrides: settings by their dotted name
    (``**{"optimizer.lr": 1e-5}``), sections as dictionaries (``optimizer={"lr": 1e-5}``), choices by their name
    (``parallel="tensor4"``).
    """

    def factory(num_nodes: int | None = None, gpus_per_node: int | None = None, **overrides: Any) -> run.Partial[None]:
        return make_recipe(name, root, num_nodes, gpus_per_node, overrides)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = _first_comment(name, root)
    return factory


def make_recipe(
    name: str, root: str, num_nodes: int | None, gpus_per_node: int | None, overrides: Mapping[str, Any]
) -> run.Partial[None]:
    """The recipe of an experiment.

    Args:
        num_nodes, gpus_per_node: machines, and processes on each; none: as many as will be started. The layout is held
            to them where both are given, and a run that is started with other numbers is refused.
        overrides: Python values by dotted key.

    Returns:
        A partial of :func:`nemo_cosmos.recipes.task.train`. Settings that refer to others (``output_dir``, ``name``)
        are `${…}` in it and follow these until it is run.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, or a layout that does not fit; NeMo-Run
            is not installed.
    """
    require_nemo_run("recipes")
    import nemo_run as run

    schema, values = ROOTS[root], dict(overrides)
    given = {"trainer.num_nodes": num_nodes, "trainer.devices": gpus_per_node}
    if root == "train":
        values |= {key: number for key, number in given.items() if number is not None}
    settings = unresolved_settings(schema, [f"experiment={name}"], root=root, values=values)
    recipe = run.Partial(train, config=_as_fields(schema, settings))
    if num_nodes is not None and gpus_per_node is not None:
        check_processes(checked(schema(**_sections(schema, settings))), num_nodes, gpus_per_node)
    return recipe


def _as_fields(schema: type[Any], settings: Mapping[str, Any]) -> Any:
    """A section as a configuration of NeMo-Run, its inner sections too."""
    from nemo_cosmos.recipes.fields import Fields

    hints = typing.get_type_hints(schema)
    return Fields(
        schema,
        **{
            name: _as_fields(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
            for name, value in settings.items()
        },
    )


def _sections(schema: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with each section as an object of its class."""
    hints = typing.get_type_hints(schema)
    return {
        name: hints[name](**_sections(hints[name], value)) if dataclasses.is_dataclass(hints[name]) else value
        for name, value in settings.items()
    }


def _first_comment(name: str, root: str) -> str:
    """What an experiment's file says about it in its first lines."""
    lines = experiment_file(name, root).read_text(encoding="utf-8").splitlines()
    comment = [line[1:].strip() for line in lines if re.match("# (?!@)", line)]
    return comment[0] if comment else name
