"""The commands that the documentation tells a user to type, wherever they stand."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
PROGRAMS = r"(?:\.venv/bin/)?(?:nemo-cosmos|torchrun|python3?|make|pytest|pip)"
_COMMAND = re.compile(rf"^(?:[A-Z_]+=\S+ +)*{PROGRAMS}(?: |$)")
_PROSE = re.compile(r"^(?:torchrun|python3?|make|pip) (?!-|\S+\.py|install|[a-z]+(?: [A-Z]+=\S+)*$)")
"""A sentence that begins with the name of a program."""
_LABEL = re.compile(r"^(?:\[bold\]Example:\[/bold\]|[A-Z][\w ]*:|[$>])\s*")


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        page: the file that shows it, relative to the repository.
        text: the line, continued lines joined.
        complete: whether it can be typed as it stands; a mention within a sentence may be shortened.
    """

    page: str
    text: str
    complete: bool

    @property
    def shortened(self) -> bool:
        return "..." in self.text or "…" in self.text

    @property
    def words(self) -> list[str]:
        """Its words without comment, environment and path of the environment's programs."""
        words = shlex.split(self.text, comments=True)
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        return [words[0].removeprefix(".venv/bin/"), *words[1:]]

    @property
    def program(self) -> tuple[str, list[str]]:
        """What runs in the end, and its arguments; a launcher and the interpreter are taken off."""
        words = self.words
        if words[0] == "torchrun":
            words = words[1:]
            while words[0].startswith("-") and words[0] != "-m":
                words.pop(0)
        if words[0] in ("python", "python3"):
            words = words[1:]
        if words[0] == "-m":
            words = words[1:]
            words[0] = "nemo-cosmos" if words[0] == "nemo_cosmos" else words[0]
        return words[0], words[1:]


def documented_commands() -> list[Command]:
    """Every command of the pages, of docstrings (which are the help texts) and of the comments in configurations."""
    found: list[Command] = []
    for page in PAGES:
        found += _in_page(page)
    for folder in ("nemo_cosmos", "tools", "examples", "bench"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for text in _docstrings(file):
                found += [Command(_name(file), line, True) for line in _lines(text)]
                found += [Command(_name(file), span, False) for span in _spans(text, "`+")]
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        comments = "\n".join(re.findall(r"#(.*)", file.read_text(encoding="utf-8")))
        found += [Command(_name(file), line, True) for line in _lines(comments)]
    return list(dict.fromkeys(found))


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def _in_page(page: Path) -> Iterator[Command]:
    """Lines of fenced and of indented blocks, whatever their language, and inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.S | re.M)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    blocks += re.findall(r"(?:^(?: {4}|\t).*\n)+", prose, flags=re.M)
    for block in blocks:
        yield from (Command(_name(page), line, True) for line in _lines(block))
    yield from (Command(_name(page), span, False) for span in _spans(prose, "`"))


def _docstrings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def _lines(text: str) -> Iterator[str]:
    for line in re.sub(r"\\+\n", " ", text).splitlines():
        words = _LABEL.sub("", " ".join(line.split()))
        if _COMMAND.match(words) and not _PROSE.match(words):
            yield words


def _spans(text: str, fence: str) -> Iterator[str]:
    for span in re.findall(rf"{fence}([^`\n]+(?:\n[^`\n]+)?){fence}", text):
        words = " ".join(span.split())
        if _COMMAND.match(words) and " " in words:
            yield words
