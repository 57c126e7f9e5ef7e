"""Where code may import from: four floors, one direction, and nothing heavy at the entrance."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nemo_cosmos"

ENTRANCE = {"cli", "__main__", "interface", "commands", "recipes"}
STAGES = {"prepare", "training", "inference", "checkpoint", "report", "benchmark"}
MATHEMATICS = {"models", "data", "diffusion"}
GROUND = {"parallel", "config", "compose", "errors", "conf", "hub", "lock", "atomic", "checksums", "interrupts"}
GROUND |= {"ending", "secrets", "typed", "plain_yaml", "settings"}
FLOORS = [GROUND, MATHEMATICS, STAGES, ENTRANCE]

HEAVY = {"torch", "numpy", "av", "transformers", "diffusers", "nemo", "megatron", "lightning", "matplotlib", "hydra"}
"""Packages that the entrance imports only inside a verb."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(file: Path) -> str:
    """Top-level folder or module of the package that a file belongs to."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(file: Path, *, top_level_only: bool = False) -> Iterator[tuple[str, int]]:
    """Full names of imported modules with their line, type-checking blocks left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in tree.body if top_level_only else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write imports in full, from nemo_cosmos"
            assert node.module is not None
            if node.module == "nemo_cosmos":
                yield from ((f"nemo_cosmos.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def allowed(importer: str, imported: str) -> bool:
    if importer == imported or imported in ("__version__", "errors", "typed"):
        return True
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert importer in floor, f"{importer} is on no floor: add it to {__file__} and to the design"
    if importer in STAGES and imported in STAGES:
        return importer in ("inference", "training", "benchmark") and imported == "checkpoint"
    if importer in ("data", "diffusion") and imported == "models":
        return False
    if importer == "models" and imported in ("config", "compose", "data"):
        # The record of a tokenizer's identity is the one thing that shards and tokenizers share.
        return imported == "data"
    return floor[imported] <= floor[importer]


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(file: Path) -> None:
    if file.parent == PACKAGE and file.name == "__init__.py":
        return
    for name, line in imports(file):
        if name.startswith("nemo_cosmos."):
            imported = name.split(".")[1]
            assert allowed(room(file), imported), f"{file}:{line}: {room(file)} may not import {imported}"


@pytest.mark.parametrize("folder", ["models", "data", "diffusion"])
def test_networks_and_data_know_nothing_of_the_trainer(folder: str) -> None:
    for file in (PACKAGE / folder).rglob("*.py"):
        for name, line in imports(file):
            top = name.split(".")[0]
            assert top not in {"lightning", "nemo", "hydra", "omegaconf"}, f"{file}:{line} imports {name}"


def test_models_read_only_the_sample_record_of_data() -> None:
    for file in (PACKAGE / "models").rglob("*.py"):
        for name, line in imports(file):
            if name.startswith("nemo_cosmos.data"):
                assert name == "nemo_cosmos.data.sample", f"{file}:{line}: models know nothing of datasets"


def test_the_entrance_imports_nothing_heavy_at_its_top() -> None:
    entrance = [PACKAGE / name for name in ("__init__.py", "__main__.py", "cli.py", "interface.py")]
    entrance.append(PACKAGE / "prepare" / "__init__.py")  # It can be called.
    for file in [*entrance, *(PACKAGE / "commands").rglob("*.py")]:
        for name, line in imports(file, top_level_only=True):
            assert name.split(".")[0] not in HEAVY, f"{file}:{line}: import {name} inside the verb"


def test_the_package_has_no_room_for_leftovers() -> None:
    assert not [file for file in files() if file.stem in ("utils", "util", "helpers", "misc", "common")]


def test_every_top_level_name_is_on_a_floor() -> None:
    known = set().union(*FLOORS) | {"__init__"}
    assert {room(file) for file in files()} <= known
