"""Composes the YAML files of `conf/` with overrides into typed configuration objects.

The files are read by Hydra's compose API and merged into a dataclass schema, so an unknown key or a value of the wrong
type stops before anything else happens. Other commands may bring their own dataclass and their own root file
`conf/<root>.yaml`; this module knows nothing about them but their type.

Experiments of root `train` are `conf/experiment/NAME.yaml`, those of another root `conf/experiment/<root>/NAME.yaml`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from nemo_cosmos.errors import InputError
from nemo_cosmos.other_names import EXPERIMENTS, OtherName, Values, meant, translate
from nemo_cosmos.schema import is_section, is_text, open_sections, types_of
from nemo_cosmos.settings import check_elements, check_settings, plain_interpolation
from nemo_cosmos.typed import read_yaml

if typing.TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

T = TypeVar("T")


def _schema_key(schema: type, key: str) -> tuple[str, Values | None]:
    """The key of the schema that a written one stands for, and what its values stand for."""
    names: Mapping[str, OtherName] = getattr(schema, "OTHER_NAMES", {})
    return translate(names, key)


def conf_folder() -> Path:
    """The folder of shipped YAML files: `nemo_cosmos/conf` of an installed wheel, `conf/` of a source checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise InputError(f"the shipped configuration is missing: no conf/train.yaml in {package} or {package.parent}")


def experiment_names(root: str = "train") -> list[str]:
    """Names of the shipped experiments of a root file, sorted."""
    folder = conf_folder() / "experiment"
    return sorted(file.stem for file in (folder if root == "train" else folder / root).glob("*.yaml"))


def experiment_file(name: str, root: str = "train") -> Path:
    """The YAML file of a shipped experiment; InputError naming the nearest one when there is none of that name."""
    names = experiment_names(root)
    if name in EXPERIMENTS:
        raise InputError(f"experiment={name} is one of the original commands': {EXPERIMENTS[name]}")
    if name not in names:
        near = _did_you_mean(name, names)
        raise InputError(f"unknown experiment {name!r}{near} Shipped experiments: {', '.join(names) or 'none'}")
    folder = conf_folder() / "experiment"
    return (folder if root == "train" else folder / root) / f"{name}.yaml"


def load_config(
    schema: type[T], overrides: Sequence[str], *, root: str = "train", values: Mapping[str, Any] | None = None
) -> T:
    """Composes `conf/<root>.yaml` with overrides and returns it as an object of the dataclass `schema`.

    Overrides follow Hydra's grammar: `experiment=NAME`, `group=choice` (a folder of `conf/`), `a.b=value`; the last
    of two on the same key wins. `values` are Python values by dotted key, set after them and as they are: no grammar
    reads them. Interpolations such as `${name}` are resolved in both.

    Raises InputError, naming the key, for a key that the schema does not have, an unknown experiment or choice, a
    value of the wrong type or outside its limits, and a value that nobody gave.
    """
    config, _ = _composed(schema, overrides, root, values)
    check_settings(config)
    return config


def unresolved_settings(
    schema: type[T], overrides: Sequence[str], *, root: str = "train", values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The settings of :func:`load_config` as plain values, sections as dictionaries, with `${name}` left in place.

    What refers to another setting so still follows it when that one is changed; :func:`checked_config` resolves it.

    Raises InputError as :func:`load_config`.
    """
    config, unresolved = _composed(schema, overrides, root, values)
    check_settings(config)
    return unresolved


def _composed(
    schema: type[T], overrides: Sequence[str], root: str, values: Mapping[str, Any] | None
) -> tuple[T, dict[str, Any]]:
    """The settings as an object of the schema, and as they were before interpolations were resolved."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    keys = list(types_of(schema))
    lines, experiment = _prepare_overrides(schema, keys, overrides, root)
    choices, settings = _split_values(schema, keys, values or {})
    lines += choices
    ConfigStore.instance().store(name="schema", node=schema)
    try:
        with plain_interpolation(), initialize_config_dir(str(conf_folder()), version_base="1.3"):
            composed = compose(root, overrides=lines)
            merged = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), composed))
            if experiment is not None and "experiment" in keys:
                merged.experiment = experiment
            for key, value in settings.items():
                OmegaConf.update(merged, key, value, force_add=True)
            _reject_missing(merged, keys, root)
            unresolved = cast(dict[str, Any], OmegaConf.to_container(merged))
            OmegaConf.resolve(merged)
            return cast(T, OmegaConf.to_object(merged)), unresolved
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain(error, keys)) from error
    except RecursionError as error:
        raise InputError("the settings are nested too deeply, or refer to each other in a circle") from error


def checked_config(config: T, *, root: str = "train") -> T:
    """A copy of a configuration object that was filled or changed in Python, as if :func:`load_config` had made it.

    Raises InputError, naming the key, for a value of the wrong type or outside its limits, or that nobody gave.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    keys = list(types_of(type(config)))
    values = {name: _plain(name, value) for name, value in dataclasses.asdict(cast(Any, config)).items()}
    check_elements(type(config), values, "")
    try:
        with plain_interpolation():
            merged = OmegaConf.merge(OmegaConf.structured(type(config)), OmegaConf.create(values))
            _reject_missing(merged, keys, root)
            OmegaConf.resolve(merged)
            checked = cast(T, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise InputError(_explain(error, keys)) from error
    check_settings(checked)
    return checked


def read_config(schema: type[T], path: str | Path) -> T:
    """Reads a file written by `dump_config` back into its schema; InputError when it does not fit."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not os.path.exists(path):
        raise InputError(f"{path}: no such configuration file")
    values = read_yaml(Path(path))
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected settings, found {type(values).__name__}")
    # Sections of earlier versions; single keys were never written to files.
    values = {_schema_key(schema, str(name))[0]: value for name, value in values.items()}
    try:
        check_elements(schema, values, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    try:
        with plain_interpolation():
            merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(values))
            OmegaConf.resolve(merged)
            config = cast(T, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {_explain(error, list(types_of(schema)))}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply, or values that refer to each other") from error
    except (TypeError, ValueError) as error:
        # OmegaConf meets keys and values of the wrong kinds in its own way.
        raise InputError(f"{path}: not the settings of a run ({error})") from error
    try:
        check_settings(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def dump_config(config: Any) -> str:
    """The configuration object as YAML text, in the order of its schema."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _prepare_overrides(
    schema: type, keys: list[str], overrides: Sequence[str], root: str
) -> tuple[list[str], str | None]:
    """Checks the left-hand side of each override; returns them in Hydra's form, and the chosen experiment."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    open_keys = open_sections(schema)
    lines, experiment = [], None
    for given in overrides:
        line = _in_schema_words(schema, given)
        key, _, value = line.partition("=")
        if is_text(schema, key) and _is_special(value) and Path(value).exists():
            line = f"{key}={_quoted(value)}"
        try:
            override: Override = parser.parse_override(line)
        except HydraException as error:
            key, equals, value = line.partition("=")
            if not (equals and is_text(schema, key)) or value[:1] in ("'", '"', "[", "{"):
                raise InputError(f"override {line!r}: expected key=value ({str(error).splitlines()[0]})") from error
            # Paths hold characters that the grammar reserves; the shell has taken the user's quotes away.
            line = f"{key}={_quoted(value)}"
            override = parser.parse_override(line)
        key = override.key_or_group
        if override.is_sweep_override():
            raise InputError(f"override {line!r} gives several values; a list is written [a,b]")
        if key == "experiment":
            experiment = str(override.value())
            experiment_file(experiment, root)
            lines.append(f"experiment={experiment if root == 'train' else f'{root}/{experiment}'}")
        elif (conf_folder() / key).is_dir() and not isinstance(override.value(), dict):
            _require_choice(key, override.value())
            lines.append(line)
        elif is_section(schema, key) and not isinstance(override.value(), dict):
            raise InputError(
                f"{key}={value}: {key} is no choice but a section, whose settings are given one by one: "
                f"{', '.join(name for name in keys if name.startswith(f'{key}.'))}"
            )
        elif key in keys or any(key.startswith(f"{parent}.") for parent in open_keys):
            # Every key that the schema has may be set, whether or not a file mentions it.
            if line.startswith("~") and key in keys:
                raise InputError(f"override {line!r}: {key} cannot be removed; set it to another value")
            if key in keys:
                check_elements(types_of(schema)[key], override.value(), key)
            lines.append(line if line.startswith("~") else f"++{line.lstrip('+')}")
        else:
            raise InputError(_unknown_key(key, keys))
    return lines, experiment


def _in_schema_words(schema: type, line: str) -> str:
    """An override with the key, and the value, that its own stand for."""
    written, equals, value = line.partition("=")
    sign = written[: len(written) - len(written.lstrip("+~"))]
    key, values = _schema_key(schema, written[len(sign) :])
    if not equals:
        return sign + key
    own = meant(written, value, values)
    return f"{sign}{key}={str(own).lower() if isinstance(own, bool) else own}"


def _require_choice(group: str, value: Any) -> None:
    choices = sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))
    if value not in choices:
        raise InputError(
            f"{group}={value}: no such choice{_did_you_mean(str(value), choices)} "
            f"Choices: {', '.join(choices)}. A single value is set with {group}.<name>=<value>"
        )


def _split_values(schema: type, keys: list[str], values: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Python values by dotted key: the choices among them as Hydra takes them, and the settings as OmegaConf does."""
    open_keys = open_sections(schema)
    choices, settings = [], {}
    for written, given in values.items():
        if not isinstance(written, str):
            raise InputError(f"override {written!r}: expected the name of a setting, for example 'trainer.max_steps'")
        key, meanings = _schema_key(schema, written)
        value = meant(written, given, meanings)
        if key == "experiment":
            raise InputError("override 'experiment': the experiment is named by the first argument alone")
        if key not in keys and not any(key.startswith(f"{parent}.") for parent in open_keys):
            raise InputError(_unknown_key(key, keys))
        if (conf_folder() / key).is_dir() and not isinstance(value, Mapping):
            _require_choice(key, value)
            choices.append(f"{key}={value}")
        else:
            settings[key] = _plain(key, value)
            if key in keys:
                check_elements(types_of(schema)[key], settings[key], key)
    return choices, settings


def _plain(key: str, value: Any) -> Any:
    """A Python value as YAML could hold it: paths become text, tuples lists, scalars of NumPy and torch numbers.

    Raises:
        InputError: a value of another kind.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, inner) for inner in value]
    raise InputError(
        f"{key}={str(value)[:80]!r}: expected text, a number, True, False, None, a list or a dict with text as keys"
    )


def _is_special(value: str) -> bool:
    """Whether a value may be more than a plain word to the grammar; interpolations stay what they are."""
    return not re.fullmatch(r"[\w./:@-]+", value) and "${" not in value


def _quoted(value: str) -> str:
    return "'" + value.replace("'", r"\'") + "'"


def _reject_missing(config: Any, keys: list[str], root: str) -> None:
    from omegaconf import OmegaConf

    missing = []
    for key in keys:
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if node is not None and not OmegaConf.is_interpolation(node, last) and OmegaConf.is_missing(node, last):
            missing.append(key)
    if "experiment" in missing:
        raise InputError(
            f"choose an experiment with experiment=NAME. Shipped experiments: {', '.join(experiment_names(root))}"
        )
    if missing:
        raise InputError(f"no value for {', '.join(missing)}; give it as {missing[0]}=VALUE")


def _did_you_mean(word: str, words: Sequence[str]) -> str:
    """`: did you mean X?` with the nearest word, or a full stop when none is near."""
    words = [other for other in words if not word.startswith(f"{other}.")]
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if not near:
        # A forgotten or wrong prefix: compare the last part alone.
        last = {other.rsplit(".", 1)[-1]: other for other in reversed(words)}
        nearest = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.75)
        near = [last[name] for name in nearest]
    return f": did you mean {near[0]}?" if near else "."


def _unknown_key(key: str, keys: list[str]) -> str:
    return f"unknown configuration key {key!r}{_did_you_mean(key, keys)}"


def _explain(error: Exception, keys: list[str]) -> str:
    """One line that names the key at fault, from an exception of Hydra or OmegaConf."""
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__
    cause = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if cause is None:
        return " ".join(str(error).split())
    key = getattr(cause, "full_key", None) or ""
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and key and key not in keys:
        return _unknown_key(key, keys)
    return f"{key}: {str(cause).splitlines()[0]}" if key else str(cause).splitlines()[0]
