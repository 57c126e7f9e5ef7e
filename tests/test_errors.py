"""What the file system refuses is said in one line, with the place and what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cosmos import cli
from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.errors import InputError, explain_os_error, require_replaceable


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "/some/place: Permission denied; change its permissions, or name"),
        (errno.EROFS, "/some/place: Read-only file system"),
        (errno.ENOTDIR, "/some/place: Not a directory; name another path"),
        (errno.ENOENT, "/some/place: No such file or directory; check the path"),
        (errno.ENOSPC, "no space left while writing to /some/place"),
        (errno.EDQUOT, "free some space and run the same command again"),
    ],
)
def test_each_refusal_names_the_place(number: int, words: str) -> None:
    error = OSError(number, os.strerror(number), "/some/place")
    message = explain_os_error(error)
    assert message is not None and words in message and "\n" not in message


def test_a_rename_names_the_file_that_people_know(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / ".target.tmp").touch()
    with pytest.raises(OSError) as caught:
        os.replace(tmp_path / ".target.tmp", tmp_path / "target")
    message = explain_os_error(caught.value)
    assert message is not None and message.startswith(f"{tmp_path}/target: Is a directory")


def test_names_that_are_no_utf8_can_be_printed(tmp_path: Path) -> None:
    code = "from nemo_cosmos.commands.options import run_tool; run_tool(lambda: print('odd\\udcff'))"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout == b"odd\\udcff\n"


def test_errors_of_other_things_stay_what_they_are() -> None:
    for error in (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), OSError("text"), PermissionError(13, "no")):
        assert explain_os_error(error) is None


def refuse() -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "/some/place")


def test_verbs_and_tools_end_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", refuse)
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos"])
    for main in (cli.main, lambda: run_tool(refuse)):
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: /some/place: Permission denied; change its permissions")


def test_paths_that_begin_with_a_dash_are_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-clips").mkdir()
    for option in ("--help", "--tokenizer"):
        Path(option).touch()
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "prepare", "-clips", "out", "--tokenizer", "x"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.startswith("error: -clips holds no video")
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "prepare", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


def test_only_files_and_folders_give_way_to_new_ones(tmp_path: Path) -> None:
    file, folder, pipe = tmp_path / "file", tmp_path / "folder", tmp_path / "pipe"
    file.touch()
    folder.mkdir()
    os.mkfifo(pipe)
    require_replaceable(file)
    require_replaceable(folder, folder=True)
    for kind in (False, True):
        require_replaceable(tmp_path / "nothing", folder=kind)
        for path in (pipe, Path("/dev/null"), folder if not kind else file, file / "below", tmp_path / ("x" * 300)):
            with pytest.raises(InputError, match="name another path"):
                require_replaceable(path, folder=kind)
