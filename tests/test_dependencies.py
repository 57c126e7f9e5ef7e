"""The requirements in pyproject.toml are what the code imports: nothing is missing, nothing is left over."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

INSTALLED_ON_REQUEST = {"cosmos_guardrail": "docs/inference.md", "pytubefix": "docs/data.md"}
"""Imported where a user asks for what they do, and the page that says how to install them."""
PROGRAMS = {"pytest-timeout", "ruff", "mypy", "types-pyyaml", "pre-commit", "leptonai"}
PROGRAMS |= {"scikit-image", "scikit-learn"}
"""Development dependencies that are run, found, read or imported by others."""
OF_OTHERS = {
    "accelerate": "accelerate",
    "cloudpickle": "cloudpickle",
    "fiddle": "fiddle",
    "torchmetrics": "torchmetrics",
    "nv-one-logger-core": "nv_one_logger",
    "nv-one-logger-training-telemetry": "nv_one_logger.training_telemetry",
    "nv-one-logger-pytorch-lightning-integration": "nv_one_logger.training_telemetry.integration.pytorch_lightning",
}
"""Requirements that NeMo, Lightning and diffusers import without declaring them, and what of them they import."""

OF_SETUPTOOLS = {
    "jaraco-text",
    "jaraco-functools",
    "jaraco-context",
    "more-itertools",
    "backports-tarfile",
    "platformdirs",
}
"""What setuptools carries along and Linux distributions take out of it; Lightning imports its ``pkg_resources``."""


def names(requirements: list[str]) -> set[str]:
    """Those of the extras that are named as this package's own are included."""
    found = set()
    for requirement in map(Requirement, requirements):
        own = canonicalize_name(requirement.name) == canonicalize_name(PROJECT["name"])
        found |= set().union(*(names(EXTRAS[extra]) for extra in requirement.extras)) if own else {requirement.name}
    return set(map(canonicalize_name, found))


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def imported(*folders: str) -> dict[str, Path]:
    """Top-level names of other projects that the files of these folders import, with one file each."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    scripts = [place.stem for folder in ("tools", "bench") for place in (ROOT / folder).iterdir()]
    ours = {"nemo_cosmos", "tests", *scripts, *sys.stdlib_module_names}
    found = {name.partition(".")[0]: file for file in files for name in imports(file)}
    return {name: file for name, file in found.items() if name not in ours}


LAUNCH = names(EXTRAS["launch"]) | {"invoke", "importlib-metadata"}
"""The extra, and what NeMo-Run brings and hands its callers the exceptions and entry points of."""


@functools.cache
def distributions() -> dict[str, set[str]]:
    """Which distributions bring an importable name."""
    return {name: {canonicalize_name(found) for found in owners} for name, owners in packages_distributions().items()}


def owners(name: str) -> set[str]:
    """Distributions that bring a name; the name itself for one that is not installed, as of the extra ``gpu``."""
    return distributions().get(name, {canonicalize_name(name)})


@pytest.mark.parametrize(
    ("folders", "declared"),
    [
        (("nemo_cosmos", "tools", "examples"), names(PROJECT["dependencies"]) | names(EXTRAS["gpu"]) | LAUNCH),
        (("tests", "bench"), names(PROJECT["dependencies"]) | names(EXTRAS["dev"]) | LAUNCH),
    ],
    ids=["package", "development"],
)
def test_what_is_imported_is_declared(folders: tuple[str, ...], declared: set[str]) -> None:
    undeclared = {
        name: file.relative_to(ROOT).as_posix()
        for name, file in imported(*folders).items()
        if not owners(name) & declared and name not in INSTALLED_ON_REQUEST
    }
    assert not undeclared, "declare them in pyproject.toml"


def test_what_is_declared_is_imported() -> None:
    of_package = set().union(*(owners(name) for name in imported("nemo_cosmos", "tools", "examples")))
    of_tests = set().union(*(owners(name) for name in imported("tests", "bench")))
    unused = names(PROJECT["dependencies"]) - of_package - set(OF_OTHERS)
    assert not unused, "nothing imports them"
    unused = names(EXTRAS["dev"]) - of_tests - PROGRAMS
    assert not unused, "no test imports them"
    assert not names(EXTRAS["dev"]) & names(PROJECT["dependencies"]), "one place is enough"


@pytest.mark.parametrize("module", OF_OTHERS.values())
def test_others_still_import_what_is_declared_for_it(module: str) -> None:
    files = [
        file
        for top in ("nemo/lightning", "lightning/pytorch", "diffusers/models")
        for file in folder_of(top).rglob("*.py")
    ]
    assert any(f"import {module}" in text or f"from {module}" in text for text in map(read, files))


def folder_of(module: str) -> Path:
    spec = find_spec(module.partition("/")[0])
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], module.partition("/")[2])


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize(("name", "page"), INSTALLED_ON_REQUEST.items())
def test_a_page_says_how_to_install_what_is_not_declared(name: str, page: str) -> None:
    assert f"pip install {name}" in (ROOT / page).read_text(encoding="utf-8")


def test_the_wheels_of_a_node_are_those_of_the_requirements() -> None:
    """Every line of the list is required by the package, directly or through others."""
    lines = (ROOT / "tools/wheelhouse-py3.12.txt").read_text(encoding="utf-8").splitlines()
    listed = {canonicalize_name(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    required: set[tuple[str, frozenset[str]]] = set()
    waiting = set(map(asked_for, PROJECT["dependencies"]))
    while waiting:
        required |= waiting
        waiting = set().union(*(required_by(*one) for one in waiting)) - required
    left_over = listed - {name for name, _ in required} - OF_SETUPTOOLS
    assert not left_over, "nothing requires them"


def asked_for(requirement: str) -> tuple[str, frozenset[str]]:
    """Name and extras of a requirement."""
    found = Requirement(requirement)
    return canonicalize_name(found.name), frozenset(found.extras)


def required_by(name: str, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """What an installed distribution requires on Linux for the Python of the list, names and extras."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:  # not needed by the Python that runs this
        return set()
    node = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}
    markers = {line: Requirement(line).marker for line in lines}
    return {
        asked_for(line)
        for line, marker in markers.items()
        if marker is None or any(marker.evaluate({**node, "extra": extra}) for extra in ("", *extras))
    }
