"""Files and folders that appear under their names when they are complete, and stay through a power cut.

What is written goes to a hidden temporary name in the same folder, is flushed to the disk, renamed, and the folder
that holds the name is flushed too: a file system may keep a rename in memory longer than the data, or the reverse.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_cosmos.errors import require_replaceable

_PREFIX = 40
"""Characters of a name that stand in the temporary one; file systems take 255 bytes."""
_NOT_FLUSHABLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What network file systems answer that cannot flush a folder."""


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: the disk is full or reports an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FLUSHABLE:
            raise
    finally:
        os.close(descriptor)


def put_file(temporary: Path, path: Path) -> None:
    """Rename a complete file; one that has the name is replaced.

    Raises:
        InputError: something else has the name, a folder or a device.
    """
    require_replaceable(path)
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def put_folder(temporary: Path, path: Path) -> None:
    """Rename a complete folder; one that has the name is moved aside first and deleted last.

    Raises:
        InputError: something else has the name, a file or a device.
    """
    require_replaceable(path, folder=True)
    readers = temporary.stat().st_mode & 0o444
    for folder, _, files in os.walk(temporary):
        for name in files:
            file = Path(folder, name)
            # safetensors 0.9 makes files that their owner alone can read, whatever the umask allows.
            if not file.is_symlink() and readers & ~(mode := file.stat().st_mode):
                file.chmod(stat.S_IMODE(mode) | readers)
            flush(file)
        flush(Path(folder))
    old = path.with_name(f".{path.name}.old")
    if os.path.lexists(path):
        _remove(old)
        os.replace(path, old)
    os.replace(temporary, path)
    flush(path.parent)
    _remove(old)


def empty_file(path: Path, suffix: str) -> tuple[Path, int]:
    """A new hidden file beside ``path``, and the permissions that the umask gives it.

    Raises:
        OSError: the folder cannot be written to.
    """
    while True:
        temporary = path.with_name(f".{path.name[:_PREFIX]}.{secrets.token_hex(4)}{suffix}")
        with contextlib.suppress(FileExistsError):
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            os.close(handle)
            return temporary, mode


@contextlib.contextmanager
def finished_file(path: Path, *, suffix: str = ".tmp") -> Iterator[Path]:
    """An empty file to write to, beside ``path``, that takes its name at the end; deleted on an error.

    Args:
        suffix: of the temporary name, for writers that go by it.
    """
    temporary, mode = empty_file(path, suffix)
    try:
        yield temporary
        temporary.chmod(mode)  # The writer may have put a file of its own there.
        put_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def finished_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into that takes the name ``path`` at the end, in place of what has it.

    On an error the new one is deleted and what stood there before stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    _remove(temporary)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        put_folder(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; an older one stays until this one is complete, nothing else is left on an error."""
    with finished_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` in UTF-8."""
    # File names are bytes; what is not UTF-8 in them becomes an escape, which JSON reads back as the same name.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, values: Any, *, indent: int | None = 1) -> None:
    """:func:`write_text` of JSON with a line break at its end."""
    write_text(path, json.dumps(values, indent=indent, ensure_ascii=False) + "\n")


def holds_files(folder: Path) -> bool:
    """Whether there is more in a folder than what a killed writer leaves: hidden temporary files and locks."""
    return any(not (file.name.startswith(".") and file.suffix in (".tmp", ".lock")) for file in folder.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
