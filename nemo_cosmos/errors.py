"""The one exception type for mistakes in a user's input, and what the file system's errors mean for them."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from os import PathLike


class InputError(ValueError):
    """A file, key or value given by the user is wrong.

    The message names what is at fault, what was expected and what to do. The command line prints it alone, without a
    traceback, and exits with status 2.
    """


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_KIND = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)
_OTHER = (errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)


def explain_os_error(error: OSError, folder: str | PathLike[str] | None = None) -> str | None:
    """One line on what the file system refused and what to do; None for an error that is not of the file system.

    Args:
        error: what was raised.
        folder: what was written to, where the error itself does not name a file.
    """
    # Renaming names the temporary file first and then the one that people know.
    named = next((n for n in (error.filename2, error.filename) if isinstance(n, str | bytes | PathLike)), None)
    place = os.fsdecode(named) if named is not None else None
    if error.errno in _FULL:
        return (
            f"no space left while writing to {folder or place or 'the disk'} ({error.strerror}); what is finished is "
            "kept: free some space and run the same command again, it goes on where it was"
        )
    if error.errno == errno.EIO and folder is not None:
        return f"{place or folder}: the disk reports an error ({error.strerror}); check it, or name another folder"
    if place is None:
        return None
    inside = f" (while writing to {folder})" if folder is not None and str(folder) != place else ""
    if error.errno in _FORBIDDEN:
        return (
            f"{place}: {error.strerror}{inside}; change its permissions, or name a place where you may read and write"
        )
    if error.errno in _WRONG_KIND:
        return f"{place}: {error.strerror}{inside}; name another path, or move away what is there"
    if error.errno in _OTHER:
        return f"{place}: {error.strerror}{inside}; check the path, or name another one"
    return None


def require_file(path: str | PathLike[str], what: str = "") -> None:
    """InputError unless a path names a file; says why not, and begins with ``what``."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        reason = "does not exist"
    except (OSError, ValueError) as error:  # ValueError: no file system has such a name.
        reason = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    else:
        if stat.S_ISREG(mode):
            return
        reason = "is a folder, expected a file" if stat.S_ISDIR(mode) else "is no regular file"
    raise InputError(f"{what}{path} {reason}")


def require_replaceable(path: str | PathLike[str], *, folder: bool = False) -> None:
    """InputError unless nothing has the name, or a regular file, or a folder where one is to be written.

    A rename would put a file in the place of a device or pipe, and a folder in the place of a file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written: {reason}; name another path") from error
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        expected = "a folder" if folder else "a file"
        kind = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device or pipe"
        raise InputError(f"{path} is {kind}, expected {expected} or nothing there; name another path")


def show_any_name() -> None:
    """Let standard output escape names that are not UTF-8, as standard error does, instead of failing on them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def require_text(text: str, what: str) -> None:
    """InputError where a string is no text: bytes of a command line that are not UTF-8, or half of a surrogate pair
    in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} {text[:40]!r} is no UTF-8 text ({text[error.start : error.start + 1]!r}): write it as UTF-8"
        ) from error


def require_range(flag: str, value: float | None, least: float, most: float) -> None:
    """InputError naming the flag unless its number, where it is given, is in a range; NaN is in none."""
    if value is not None and not least <= value <= most:
        name = flag.lstrip("-").replace("-", "_")
        raise InputError(f"{flag}: {name}={value}, expected {least} to {most}")


def require_writable(folder: str | PathLike[str]) -> None:
    """InputError unless files can be made in a folder, or the folder itself where it is not there yet; makes nothing.

    For work that takes long and writes at its end.
    """
    nearest = os.path.abspath(folder)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise InputError(f"{folder} cannot be a folder: {nearest} is a file; name another one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: no permission in {nearest}; change it, or name another folder")
