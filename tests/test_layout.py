"""Where code may import from: four floors, one direction, and nothing heavy at the entrance."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nemo_cosmos"

ENTRANCE = {"cli", "__main__", "interface", "commands", "demo", "recipes", "launch", "doctor"}
STAGES = {"prepare", "training", "inference", "checkpoint", "bench", "download", "reconstruct"}
MATHEMATICS = {"models", "data", "diffusion", "camera", "scenes"}
GROUND = {"parallel", "config", "compose", "errors", "conf", "lock", "atomic", "checksums", "interrupts"}
GROUND |= {
    "ending",
    "secrets",
    "typed",
    "plain_yaml",
    "schema",
    "settings",
    "version",
    "tokenizer_identity",
    "tensor_files",
    "upstream",
    "planning",
    "logs",
    "pixels",
    "run_folder",
    "provenance",
    "other_names",
    "precision",
    "choices",
    "tiny",
    "steps",
}
FLOORS = [GROUND, MATHEMATICS, STAGES, ENTRANCE]

READ_BY = {
    "inference": ("checkpoint", "download"),
    "training": ("checkpoint",),
    "bench": ("checkpoint", "training"),
}
"""Stages that a stage may import."""

SHARED = {"inference": "nemo_cosmos.prepare.sources"}
"""What a stage may import of another one besides: raw datasets are read alike."""

HEAVY = {"torch", "numpy", "av", "transformers", "diffusers", "nemo", "megatron", "lightning", "matplotlib", "hydra"}
HEAVY |= {"nemo_run", "invoke"}
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
    if importer == imported or imported in ("version", "errors", "typed"):
        return True
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert importer in floor, f"{importer} is on no floor: add it to {__file__} and to the design"
    if importer in STAGES and imported in STAGES:
        return imported in READ_BY.get(importer, ())
    if importer in ("data", "diffusion") and imported == "models":
        return False
    if importer == "models" and imported in ("config", "compose", "data"):
        return False
    return floor[imported] <= floor[importer]


def test_the_page_about_the_architecture_names_the_same_floors() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d), [a-z ]+ \| (.+) \|$", page, flags=re.M)
    stated = {int(number) - 1: set(re.findall(r"`(\w+)`", rooms)) for number, rooms in rows}
    assert stated == dict(enumerate(FLOORS))


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(file: Path) -> None:
    if (file.parent == PACKAGE and file.name == "__init__.py") or file.parent == PACKAGE / "inference" / "video_cli":
        return  # The second is the documented name of what is in `reconstruct`, and no more.
    for name, line in imports(file):
        if name.startswith("nemo_cosmos."):
            imported, shared = name.split(".")[1], SHARED.get(room(file))
            assert name == shared or allowed(room(file), imported), (
                f"{file}:{line}: {room(file)} may not import {imported}"
            )


@pytest.mark.parametrize("folder", ["models", "data", "diffusion", "camera"])
def test_networks_and_data_know_nothing_of_the_trainer(folder: str) -> None:
    for file in (PACKAGE / folder).rglob("*.py"):
        for name, line in imports(file):
            top = name.split(".")[0]
            assert top not in {"lightning", "nemo", "hydra", "omegaconf"}, f"{file}:{line} imports {name}"


def module(file: Path) -> str:
    """Full name of the module in a file."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """{module: modules that its source names in imports}, those for types and those inside functions included."""
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        arrows = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                arrows.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                children = (f"{node.module}.{alias.name}" for alias in node.names)
                arrows.update(child if child in sources else node.module for child in children)
        arrows &= sources.keys() - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - found
            found |= new
            waiting.extend(new)
        return found

    reach = {name: reached(name) for name in graph}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph}
    return [list(group) for group in sorted(groups) if group]


def test_no_circle_between_files() -> None:
    graph = import_graph({module(file): file.read_text(encoding="utf-8") for file in files()})
    assert circles(graph) == []


def test_circles_of_types_and_inside_functions_are_found() -> None:
    sources = {
        "p.a": "def f():\n    from p import b\n",
        "p.b": "if TYPE_CHECKING:\n    from p.c import C\n",
        "p.c": "import p.a\n",
        "p.d": "import p.a\n",
    }
    assert circles(import_graph(sources)) == [["p.a", "p.b", "p.c"]]


def test_the_entrance_imports_nothing_heavy_at_its_top() -> None:
    entrance = [PACKAGE / name for name in ("__init__.py", "__main__.py", "cli.py", "interface.py")]
    entrance.append(PACKAGE / "prepare" / "__init__.py")  # It can be called.
    entrance += list((PACKAGE / "launch").glob("*.py")) + [PACKAGE / "recipes" / "__init__.py"]
    for file in [*entrance, *(PACKAGE / "commands").rglob("*.py")]:
        for name, line in imports(file, top_level_only=True):
            assert name.split(".")[0] not in HEAVY, f"{file}:{line}: import {name} inside the verb"


def test_the_package_has_no_room_for_leftovers() -> None:
    assert not [file for file in files() if file.stem in ("utils", "util", "helpers", "misc", "common")]


def test_every_top_level_name_is_on_a_floor() -> None:
    known = set().union(*FLOORS) | {"__init__"}
    assert {room(file) for file in files()} <= known
