"""What the documentation tells a user to type exists, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line in a ```bash block, continued lines joined, comments left out."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not line.strip().startswith("#"):
                    found.append((page.relative_to(ROOT).as_posix(), " ".join(line.split())))
    return found


def arguments_of(command: str) -> tuple[str, list[str]]:
    """The program and its arguments; a launcher and environment variables in front are taken off."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[0] == "torchrun":
        words = words[1:]
        while words[0].startswith("-") and words[0] != "-m":
            words.pop(0)
    if words[0] in ("python", "python3"):
        words = words[1:]
    if words[0] == "-m":
        words = words[1:]
        if words[0] == "nemo_cosmos":
            words[0] = "nemo-cosmos"
    return words[0].removeprefix(".venv/bin/"), words[1:]


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: value[:60])
def test_documented_command_exists_with_its_options(page: str, command: str) -> None:
    program, arguments = arguments_of(command)
    if program == "nemo-cosmos":
        check_verb(arguments)
    elif program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program.endswith(".py"):
        script = ROOT / program
        assert script.is_file(), f"{page}: {program} does not exist"
        shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
        for word in arguments:
            if word.startswith("--"):
                assert word.split("=")[0] in shown, f"{page}: {program} has no {word}"
    elif program.startswith("nemo_cosmos."):
        assert (ROOT / (program.replace(".", "/") + ".py")).is_file(), f"{page}: {program} does not exist"
    else:
        assert program in {"pip", "git", "docker", "cd", "export", "huggingface-cli", "hf", "tensorboard"}, (
            f"{page}: {program}"
        )


def check_verb(arguments: list[str]) -> None:
    """Parses the arguments as the command line does, down to the verb, without running it."""
    command = typer.main.get_command(app)
    words: list[str] = []
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"no verb {arguments[0]}"
        words.append(arguments[0])
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if not words or not arguments:
        return
    if "..." in arguments:
        return  # shortened on purpose
    context = command.make_context(words[-1], list(arguments))
    overrides = context.params.get("overrides")
    if words == ["train"]:
        load_config(TrainConfig, overrides)
    elif words == ["tokenizer", "train"]:
        load_config(TokenizerTrainConfig, overrides, root="tokenizer_train")


@pytest.mark.parametrize(
    "command", [c for p, c in commands() if (p == "README.md" and "--dryrun" in c) or " experiments" in c]
)
def test_light_command_of_the_readme_runs(command: str) -> None:
    _, arguments = arguments_of(command)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_verbs_of_the_readme_are_all_verbs() -> None:
    named = set(re.findall(r"`nemo-cosmos ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(typer.main.get_command(app).commands) <= named  # type: ignore[attr-defined]


def test_version_pins_of_the_makefile_and_package_agree() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^TORCH := torch==\d+\.\d+\.\d+$", makefile, flags=re.M)
    assert '"torch>=' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
