"""What settings may hold: values in their ranges, no secrets, and little of what interpolation can do."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
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
    """Hold the values of a configuration object to the choices and ranges that the schema's fields state.

    A precision under its long name, as earlier versions wrote it, becomes the short one.

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
