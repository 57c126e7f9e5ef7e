"""Files and folders appear whole or not at all, and what stood there before stays until then."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_cosmos import atomic
from nemo_cosmos.atomic import finished_file, finished_folder, put_folder, write_bytes, write_json, write_text
from nemo_cosmos.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


class Stop(BaseException):
    """What a second Ctrl-C raises."""


def stop(*_: object) -> None:
    raise Stop


def write_half_a_file(path: Path) -> None:
    with finished_file(path) as temporary:
        temporary.write_text("ha")
        stop()


@pytest.mark.parametrize("write", [write_half_a_file, lambda path: write_json(path, {"a": stop})])
def test_a_failure_leaves_the_file_before(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_text(path, "before")
    with pytest.raises((Stop, TypeError)):
        write(path)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file.json"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failure_of_the_disk_leaves_the_file_before(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, call, stop)
        with pytest.raises(Stop):
            write_bytes(path, b"after")
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_a_failure_leaves_the_folder_before(tmp_path: Path) -> None:
    with finished_folder(tmp_path / "folder") as folder:
        (folder / "old").write_text("1")
    with pytest.raises(Stop), finished_folder(tmp_path / "folder") as folder:
        (folder / "new").write_text("2")
        stop()
    assert names(tmp_path) == ["folder", "folder/old"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / ".folder.tmp" / "left by a kill").touch()
    for number in range(2):
        with finished_folder(tmp_path / "folder") as folder:
            (folder / f"file{number}").touch()
        assert names(tmp_path) == ["folder", f"folder/file{number}"]


def test_what_is_no_folder_or_no_file_is_not_replaced(tmp_path: Path) -> None:
    """Least of all a device: root may rename those."""
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe"):
        with pytest.raises(InputError, match="expected a folder"), finished_folder(tmp_path / name) as folder:
            (folder / "new").touch()
    (tmp_path / "folder").mkdir()
    for name in ("folder", "pipe"):
        with pytest.raises(InputError, match="expected a file"):
            atomic.write_text(tmp_path / name, "new")
    assert names(tmp_path) == ["file", "folder", "pipe"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_kill_between_two_renames_loses_neither_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("folder", "next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    rename, done = os.replace, []

    def killed(*paths: Path) -> None:
        if done:
            stop()
        done.append(rename(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", killed)
        with pytest.raises(Stop):
            put_folder(tmp_path / "next", tmp_path / "folder")
    assert names(tmp_path) == [".folder.old", ".folder.old/folder", "next", "next/next"]
    put_folder(tmp_path / "next", tmp_path / "folder")
    assert names(tmp_path) == ["folder", "folder/next"]


def test_content_and_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before its rename, the folder that holds the name after it."""
    seen: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(
        atomic.os, "fsync", lambda fd: seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))) or sync(fd)
    )
    monkeypatch.setattr(atomic.os, "replace", lambda *paths: seen.append("rename") or rename(*paths))
    write_bytes(tmp_path / "file", b"1")
    assert seen[0].startswith(".file.") and seen[1:] == ["rename", tmp_path.name]
    seen.clear()
    with finished_folder(tmp_path / "folder") as folder:
        (folder / "inner").touch()
    assert seen == ["inner", ".folder.tmp", "rename", tmp_path.name]


def test_names_of_any_bytes_become_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": os.fsdecode(b"bad\xff")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"name": os.fsdecode(b"bad\xff")}
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_a_name_as_long_as_file_systems_take(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("ü" * 127), b"")
    assert names(tmp_path) == ["ü" * 127]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_others_may_read_what_the_umask_lets_them(mask: int, expected: int, tmp_path: Path) -> None:
    """Also where the writer makes private files, as safetensors does."""

    def private(file: Path) -> None:
        file.unlink(missing_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))

    before = os.umask(mask)
    try:
        with finished_file(tmp_path / "file") as temporary:
            private(temporary)
        with finished_folder(tmp_path / "folder") as folder:
            private(folder / "model.safetensors")
            (folder / "run.sh").touch(mode=0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == expected
    assert (tmp_path / "folder" / "model.safetensors").stat().st_mode & 0o444 == expected & 0o444
    assert (tmp_path / "folder" / "run.sh").stat().st_mode & 0o111 == 0o111 & ~mask
