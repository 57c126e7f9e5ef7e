"""Zip files of others: images and JSON are read straight out of them, and nothing is ever unpacked to the disk.

What a directory of such a file says is not believed: names that lead out of a folder, links, encryption and names
that occur twice refuse the whole file, and so does content far larger than the file.
"""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nemo_cosmos.data.images import IMAGE_SUFFIXES
from nemo_cosmos.errors import InputError, require_file

WANTED = (*IMAGE_SUFFIXES, ".json")
"""Suffixes of members that are read, in any case; others are as if they were not there."""
LARGEST_UNPACKED = 64 << 30
"""Bytes of all wanted members together, where the user names no limit: a scene of 400 images in 4K has 6 GiB."""
LARGEST_RATIO = 200
"""Times that wanted members may be larger than their file, where the user names no limit: images are packed."""
SMALL = 256 << 20
"""Bytes of content of which the ratio does not matter."""
LARGEST_MEMBER = 1 << 30
"""Bytes of one image."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""What ``zipfile`` raises on damaged or unusual files; RuntimeError where a member is encrypted after all."""


@dataclass(frozen=True)
class Archive:
    """A zip file whose directory has been looked at.

    Attributes:
        path: the file.
        members: the wanted members by name, sorted.
        digest: SHA-256 over names, sizes and checksums of the members: it changes with their content.
    """

    path: Path
    members: dict[str, zipfile.ZipInfo]
    digest: str

    def open(self) -> OpenArchive:
        """For reading members; a context manager."""
        return OpenArchive(self)


class OpenArchive:
    """Reads members of an archive; close it, or use it as a context manager."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        try:
            self._file = zipfile.ZipFile(archive.path)
        except _DAMAGE as error:
            raise InputError(f"{archive.path} is no readable zip file: {error}") from error

    def read(self, name: str, most: int | None = None) -> bytes:
        """Content of a member, its checksum compared; of the first ``most`` bytes alone where given.

        Raises:
            InputError: the member is damaged, or the file changed since its directory was looked at.
        """
        info = self.archive.members[name]
        try:
            with self._file.open(info) as member:
                content = member.read(info.file_size + 1 if most is None else most)
        except _DAMAGE as error:
            raise InputError(f"{self.archive.path}: {name} is damaged: {error}; fetch the file again") from error
        if most is None and len(content) != info.file_size:
            raise InputError(f"{self.archive.path}: {name} has not the size that its directory says")
        return content

    def stream(self, name: str) -> io.BufferedIOBase:
        """A member to read from piece by piece."""
        try:
            return self._file.open(self.archive.members[name])  # type: ignore[return-value]
        except _DAMAGE as error:
            raise InputError(f"{self.archive.path}: {name} is damaged: {error}; fetch the file again") from error

    def __enter__(self) -> OpenArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def look_into(path: Path, max_unpacked: int | None = None) -> Archive:
    """The directory of a zip file.

    Args:
        path: the file.
        max_unpacked: most bytes that the wanted members may have together; None: ``LARGEST_UNPACKED``, and
            ``LARGEST_RATIO`` times the file.

    Raises:
        InputError: no zip file, a truncated one, or one with a member that no honest archive of images has; the
            message names it.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except _DAMAGE as error:
        raise InputError(f"{path} is no readable zip file ({error}): it may be cut off; fetch it again") from error
    for info in infos:
        if problem := _problem(info):
            raise InputError(f"{path}: member {info.filename[:100]!r} {problem}; nothing of the file is read")
    wanted = [info for info in infos if _is_wanted(info)]
    counts = Counter(map(_name, wanted))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{path}: {len(twice)} names occur twice, for example {twice[0][:100]!r}")
    _refuse_bomb(path, wanted, max_unpacked)
    members = {_name(info): info for info in sorted(wanted, key=_name)}
    lines = [f"{name} {info.file_size} {info.CRC}" for name, info in members.items()]
    return Archive(path, members, hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest())


def _problem(info: zipfile.ZipInfo) -> str:
    """What no member of an honest archive is; empty where there is nothing."""
    name = _name(info)
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0]:
        return "leads out of the folder that it would be unpacked to"
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    return ""


def _name(info: zipfile.ZipInfo) -> str:
    """Some writers on Windows separate folders with a backslash."""
    return info.filename.replace("\\", "/")


def _is_wanted(info: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(_name(info))
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not info.is_dir() and not hidden and path.suffix.lower() in WANTED


def _refuse_bomb(path: Path, wanted: list[zipfile.ZipInfo], max_unpacked: int | None) -> None:
    """InputError where the members are larger than an archive of images is."""
    total, size = sum(info.file_size for info in wanted), path.stat().st_size
    raise_it = "give --max_unpacked_gb a larger number if that is meant (prepare: --max-unpacked-gb)"
    limit = LARGEST_UNPACKED if max_unpacked is None else max_unpacked
    if total > limit:
        raise InputError(f"{path}: {_size(total)} of images, more than {_size(limit)}: {raise_it}")
    if max_unpacked is None and total > max(SMALL, LARGEST_RATIO * size):
        raise InputError(
            f"{path}: {_size(total)} packed into {_size(size)}, more than {LARGEST_RATIO} times as much as images "
            f"allow: {raise_it}"
        )
    largest = max(wanted, key=lambda info: info.file_size, default=None)
    if largest is not None and largest.file_size > LARGEST_MEMBER:
        raise InputError(f"{path}: {largest.filename[:100]!r} has {_size(largest.file_size)}, no image has")


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 1 << 28 else f"{count / 2**20:.1f} MiB"
