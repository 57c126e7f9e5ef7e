"""What settings may hold: values in their ranges, no secrets, and little of what interpolation can do."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import os
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_cosmos.errors import InputError
from nemo_cosmos.precision import short_name
from nemo_cosmos.secrets import holds_secret, is_secret_name
from nemo_cosmos.typed import LARGEST

BELOW_ONE = 1 - 1e-12
ABOVE_ZERO = 1e-12
ENVIRONMENT = ("OUTPUT_ROOT", "DATA_ROOT", "SCRATCH", "TMPDIR", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID")
"""Variables that ${oc.env:NAME} may take: places and numbers of jobs."""


def check_settings(config: Any, prefix: str = "") -> None:
    """Hold the values of a configuration object to the choices, ranges and lengths that the schema's fields state.

    A section that names the class it ``BUILDS`` is held to what that class takes. A precision under its long name, as
    earlier versions wrote it, becomes the short one.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            check_settings(value, f"{name}.")
            continue
        choices = item.metadata.get("choices")
        if choices and isinstance(value, str) and value not in choices and short_name(value) in choices:
            value = short_name(value)
            setattr(config, item.name, value)
        if choices and value not in choices:
            raise InputError(f"{name}={value}: expected one of {', '.join(map(_as_written, choices))}")
        least, most = item.metadata.get("minimum", -LARGEST), item.metadata.get("maximum", LARGEST)
        _check_value(name, value, least, most, str(_range(least, most)))
        if isinstance(value, list | tuple):
            _check_list(name, value, item.metadata)
    if isinstance(builds := getattr(type(config), "BUILDS", None), str):
        _check_network(builds, config, prefix)


def _check_list(name: str, value: Any, allowed: Mapping[str, Any]) -> None:
    form = allowed.get("form")
    if form is not None and len(value) != len(form):
        raise InputError(f"{name}={list(value)}: expected [{','.join(form)}]")


def _check_network(builds: str, model: Any, prefix: str) -> None:
    """Hold a section's ``preset`` and ``overrides`` to the class that is built of them.

    The class is named as ``module:Class``: networks stand on a floor above settings.
    """
    module, _, name = builds.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about what they would like to find beside them
        network = getattr(importlib.import_module(module), name)
    for key, overrides in (("preset", {}), ("overrides", model.overrides)):
        try:
            network.preset(model.preset, **overrides)
        except InputError as error:
            raise InputError(f"{prefix}{key}: {error}") from error


_ELEMENTS: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
}


def check_elements(hint: Any, value: Any, name: str) -> None:
    """Hold what lists of plain values contain to a schema's types, before anything converts it; sections are entered.

    Raises:
        InputError: names the element, its value and what is expected.
    """
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        hints = typing.get_type_hints(hint)
        for key in set(value) & set(hints):
            check_elements(hints[key], value[key], f"{name}.{key}" if name else key)
        return
    if typing.get_origin(hint) is not list:
        hint = next((kind for kind in typing.get_args(hint) if typing.get_origin(kind) is list), None)
    if hint is None or not isinstance(value, list | tuple):
        return
    kinds, expected = _ELEMENTS.get(typing.get_args(hint)[0], ((object,), ""))
    for place, inner in enumerate(value):
        refers = isinstance(inner, str) and "${" in inner
        if not refers and (not isinstance(inner, kinds) or (isinstance(inner, bool) and bool not in kinds)):
            raise InputError(f"{name}[{place}]={str(inner)[:80]}: expected {expected}")


def _as_written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_value(name: str, value: Any, least: float, most: float, expected: str) -> None:
    """One value, or all that a list or dictionary holds."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_value(f"{name}.{key}", inner, -LARGEST, LARGEST, "a finite number")
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_value(name, inner, least, most, expected)
    elif isinstance(value, str):
        _check_text(name, value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
        shown = value if isinstance(value, float) or value.bit_length() < 200 else "a huge number"
        finite = "" if math.isfinite(value) else "a finite number, "
        raise InputError(f"{name}={shown}: expected {finite}{expected}")


def _range(least: float, most: float) -> str:
    if (least, most) == (-LARGEST, LARGEST):
        return "a finite number"
    lower = "more than 0" if least == ABOVE_ZERO else f"at least {least:g}"
    upper = "less than 1" if most == BELOW_ONE else f"at most {most:.10g}"
    return lower if most == LARGEST else f"{lower} and {upper}"


def _check_text(name: str, value: str) -> None:
    # Configurations are written beside the weights, and go where these go.
    if holds_secret(value) or (value and is_secret_name(name)):
        raise InputError(
            f"{name}: this looks like a secret, and settings are saved with the run; leave it out and set the "
            "environment variable that the service reads (HF_TOKEN, WANDB_API_KEY)"
        )
    if "\0" in value:
        raise InputError(f"{name}: a NUL character has no place in it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name}={value!r} is not UTF-8 text") from error


@contextlib.contextmanager
def plain_interpolation() -> Iterator[None]:
    """Meanwhile ${key} is resolved, and ${oc.env:NAME} for a few names; all other resolvers are refused."""
    from omegaconf import OmegaConf
    from omegaconf.basecontainer import BaseContainer

    kept = dict(BaseContainer._resolvers)
    OmegaConf.clear_resolvers()
    for name in list(BaseContainer._resolvers):
        OmegaConf.clear_resolver(name)
    for name in kept:
        OmegaConf.register_new_resolver(name, _environment if name == "oc.env" else _refuser(name))
    try:
        yield
    finally:
        BaseContainer._resolvers = kept


def _environment(name: str, *default: Any) -> str:
    if name not in ENVIRONMENT:
        raise InputError(
            f"${{oc.env:{name}}}: settings take no other environment variables than {', '.join(ENVIRONMENT)}, because "
            f"they are saved with the run; let the shell put it in: KEY=${name}"
        )
    found = os.environ.get(name, *default[:1])
    if found is None:
        raise InputError(f"${{oc.env:{name}}}: the variable is not set; set it, or write ${{oc.env:{name},DEFAULT}}")
    return str(found)


def _refuser(name: str) -> Any:
    def refuse(*arguments: Any) -> None:
        raise InputError(f"${{{name}:…}} is not resolved in settings; write the value")

    return refuse
