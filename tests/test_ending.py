"""How commands end when something else than the user is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nemo_cosmos import ending
from nemo_cosmos.ending import Flags, report_to, run_to_end
from nemo_cosmos.errors import InputError

TOKEN = "hf_" + "a1B2" * 8


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(ending, "_folder", None)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def fail(error: BaseException) -> Callable[[], NoReturn]:
    def command() -> NoReturn:
        raise error

    return command


def ended(command: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as caught:
        run_to_end(command)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize("exists", [True, False])
def test_an_unexpected_error_is_one_line_and_a_report(
    places: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    folder = places / "run"
    if exists:
        folder.mkdir()
    report_to(folder)
    code, line = ended(fail(KeyError(f"token {TOKEN}\nand 0123456789abcdef")), capsys)
    assert code == 1 and line.count("\n") == 1
    assert line.startswith("error: internal: KeyError: ") and "please report it" in line
    (report,) = (folder if exists else places / "temporary").glob("*.txt")
    assert str(report) in line
    text = report.read_text()
    assert "Traceback" in text and "raise error" in text
    for secret in (TOKEN, "0123456789abcdef"):
        assert secret not in text and secret not in line


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    monkeypatch.setenv(ending.DEBUG, "1")
    with pytest.raises(ZeroDivisionError):
        run_to_end(fail(ZeroDivisionError()))
    assert not list(places.rglob("*.txt"))


def test_ranks_write_their_own_reports_and_one_speaks(
    monkeypatch: pytest.MonkeyPatch, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    said = ""
    for rank, error in enumerate((RuntimeError("first"), RuntimeError("connection closed by peer"))):
        monkeypatch.setenv("RANK", str(rank))
        said += ended(fail(error), capsys)[1]
    assert said.count("error:") == 1 and "first" in said
    assert len(list(places.rglob("*-rank0-*.txt"))) == len(list(places.rglob("*-rank1-*.txt"))) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
        (MemoryError(), 1, "error: out of memory"),
        (InputError("a\n  b \x1b[31m\x07"), 2, "error: a; b \\x1b[31m\\x07"),
        (SystemExit(3), 3, ""),
    ],
)
def test_each_ending_has_its_status(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = ended(fail(error), capsys)
    assert found == code
    assert line.startswith(said) and line.count("\n") == bool(said)


def test_output_that_nobody_reads_or_takes(tmp_path: Path) -> None:
    code = "from nemo_cosmos.ending import run_to_end\nrun_to_end(lambda: [print('x' * 99) for _ in range(9999)])"
    piped = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "$0" | head -1', code], capture_output=True, text=True, check=True
    )
    assert piped.stdout == "x" * 99 + "\n" and piped.stderr == ""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no space left" in done.stderr


def test_wrong_flags_are_mistakes_like_others() -> None:
    parser = Flags(prog="tool")
    parser.add_argument("--number", type=int, required=True)
    for words in (["--number", "x"], [], ["--other"]):
        with pytest.raises(InputError, match="tool --help"):
            parser.parse_args(words)


@pytest.mark.parametrize("words", [["prepare", "x"], ["bogus"], ["generate", "--fps", "abc"], ["train", "--none"]])
def test_wrong_options_are_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nemo_cosmos import cli

    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    line = capsys.readouterr().err
    assert caught.value.code == 2 and line.startswith("error: ") and line.count("\n") == 1
