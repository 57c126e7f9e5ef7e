"""What CONTRIBUTING.md promises: quick tests of every room, and hooks that run the tools of the environment."""

from __future__ import annotations

from pathlib import Path

import yaml
from packaging.requirements import Requirement

from tests.test_dependencies import EXTRAS
from tests.test_layout import PACKAGE

ROOT = Path(__file__).parents[1]
FAST = (ROOT / "tests/fast.txt").read_text(encoding="utf-8").splitlines()
PINNED = {one.name: str(one.specifier) for one in map(Requirement, EXTRAS["dev"])}


def test_quick_tests_are_files_of_the_suite() -> None:
    assert not [line for line in FAST if not (ROOT / line).is_file()]
    assert sorted(set(FAST)) == FAST


def test_every_room_has_a_quick_test() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if (ROOT / "tests" / folder.name).is_dir()}
    assert rooms - {"__pycache__"} == {Path(line).parts[1] for line in FAST} & rooms


def test_hooks_run_the_pinned_tools() -> None:
    """No hook fetches a tool of its own, so `make lint types` and a commit agree."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    tools = {Path(hook["entry"].split()[0]) for hook in hooks}
    assert {tool.parent for tool in tools} == {Path(".venv/bin")}
    assert {tool.name for tool in tools} == {"ruff", "mypy"}
    assert all(PINNED[tool.name].startswith("==") for tool in tools)
