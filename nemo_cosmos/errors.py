"""The one exception type for mistakes in a user's input, and what the file system's errors mean for them."""

from __future__ import annotations

import errno
import os
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
    named = error.filename if isinstance(error.filename, str | bytes | PathLike) else None
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
