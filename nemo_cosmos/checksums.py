"""Checksums beside saves and exports: one manifest a folder, or one beside a single file.

``checksums.json`` in a folder lists the files below it, ``NAME.checksums.json`` the one file it stands beside. Each
entry is the size and the CRC-32 of the whole file. CRC-32 is what zip archives, and so PyTorch's files, carry for each
of their records, and the checksum of a whole follows from those of its parts: a file that several processes fill, or
that is read in pieces by several threads, is hashed without a second pass.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nemo_cosmos.atomic import finished_file, put_file, write_json
from nemo_cosmos.choices import Verify
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.typed import parse_json

logger = logging.getLogger(__name__)

MANIFEST = "checksums.json"
_FORMAT, _VERSION, _ALGORITHM = "nemo_cosmos.checksums", 1, "crc32"
LARGEST_MANIFEST = 1 << 28
AUTO_BYTES = 64 << 30
"""``auto``: the most that one process reads in full; of more, only the small files."""
_SMALL = 64 << 20
_PIECE = 16 << 20
_THREADS = 4
_POLYNOMIAL = 0xEDB88320
_LOCAL = 30
"""Bytes of the header before a record's name in a zip file (APPNOTE 4.3.7)."""


@dataclass(frozen=True)
class Checksum:
    """Size in bytes and CRC-32 of a file, or of a part of one."""

    bytes: int = 0
    crc: int = 0

    def __add__(self, other: Checksum) -> Checksum:
        """Of two parts that follow each other."""
        return Checksum(self.bytes + other.bytes, _times(_power(other.bytes), self.crc) ^ other.crc)


def _times(a: int, b: int) -> int:
    """Product of two polynomials over GF(2) modulo CRC-32's, highest bit first."""
    product, bit = 0, 1 << 31
    while bit:
        if a & bit:
            product ^= b
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product


@cache
def _power(length: int) -> int:
    """x to the number of bits in so many bytes: appending them multiplies the checksum before them by it."""
    out, square = 1 << 31, 1 << 23
    while length:
        if length & 1:
            out = _times(square, out)
        square, length = _times(square, square), length >> 1
    return out


class HashingFile:
    """A binary file that is written from its beginning to its end, and its checksum so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.checksum = Checksum()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.checksum = Checksum(self.checksum.bytes + len(view), zlib.crc32(view, self.checksum.crc))
        self._file.write(view)
        return len(view)

    def tell(self) -> int:
        return self.checksum.bytes

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def of_files(files: Iterable[Path]) -> list[Checksum]:
    """Checksums of files, read in pieces by several threads.

    Raises:
        OSError: a file cannot be read.
    """
    files = list(files)
    pieces = [(file, at) for file in files for at in range(0, max(file.stat().st_size, 1), _PIECE)]
    sums = dict.fromkeys(files, Checksum())
    with ThreadPoolExecutor(_THREADS) as pool:
        for (file, _), found in zip(pieces, pool.map(_of_piece, pieces), strict=True):
            sums[file] += found
    return [sums[file] for file in files]


def _of_piece(piece: tuple[Path, int]) -> Checksum:
    path, at = piece
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, _PIECE, at)
    finally:
        os.close(descriptor)
    return Checksum(len(data), zlib.crc32(data))


def of_archive(path: Path) -> Checksum:
    """The checksum of a zip archive just written, from those that its writer put in; the big records are not read.

    Raises:
        OSError, zipfile.BadZipFile: the file cannot be read.
    """
    out, at = Checksum(), 0
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
            if entry.compress_type != zipfile.ZIP_STORED:
                continue  # Its bytes in the file are not those that its checksum is of.
            file.seek(entry.header_offset + _LOCAL - 4)
            data = entry.header_offset + _LOCAL + sum(struct.unpack("<HH", file.read(4)))
            out += _of_range(file, at, data) + Checksum(entry.file_size, entry.CRC)
            at = data + entry.file_size
        return out + _of_range(file, at, os.fstat(file.fileno()).st_size)


def _of_range(file: IO[bytes], start: int, stop: int) -> Checksum:
    file.seek(start)
    out = Checksum()
    while out.bytes < stop - start:
        data = file.read(min(_PIECE, stop - start - out.bytes))
        if not data:
            raise zipfile.BadZipFile(f"{file.name} ends before its directory says")
        out = Checksum(out.bytes + len(data), zlib.crc32(data, out.crc))
    return out


def beside(path: Path) -> Path:
    """The manifest of a single file."""
    return path.with_name(f"{path.name}.{MANIFEST}")


def is_manifest(name: str) -> bool:
    """Whether a file name is that of a manifest."""
    return name == MANIFEST or name.endswith(f".{MANIFEST}")


def write_manifest(path: Path, files: Mapping[str, Checksum]) -> None:
    """Write a manifest; names are relative to its folder."""
    table = {name: {"bytes": found.bytes, _ALGORITHM: f"{found.crc:08x}"} for name, found in sorted(files.items())}
    head = {"format": _FORMAT, "version": _VERSION, "algorithm": _ALGORITHM}
    write_json(path, {**head, "files": table, "self": _of_table(table)})


def _of_table(table: Any) -> str:
    """The manifest's own checksum: damage to it is not taken for damage to a file."""
    return f"{zlib.crc32(json.dumps(table, sort_keys=True).encode()):08x}"


def read_manifest(path: Path) -> dict[str, Checksum]:
    """The files of a manifest.

    Raises:
        InputError: it is damaged or of a later version.
    """
    require_file(path)
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ValueError(f"more than {LARGEST_MANIFEST} bytes")
        values = parse_json(path.read_bytes())
        if values["format"] == _FORMAT and values["version"] > _VERSION:
            raise InputError(f"{path}: version {values['version']}, this release reads up to {_VERSION}; update it")
        table = values["files"]
        if values["format"] != _FORMAT or values["self"] != _of_table(table):
            raise ValueError("its own checksum does not fit")
        return {_plain(name): Checksum(_size(of["bytes"]), int(of[_ALGORITHM], 16)) for name, of in table.items()}
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}: {error}), so the files cannot be verified; take it from a "
            "copy, or delete it to go on without verifying"
        ) from error


def _plain(name: str) -> str:
    where = PurePosixPath(name)
    if where.is_absolute() or ".." in where.parts or not name.isprintable():
        raise ValueError(f"the name {name[:100]!r} leads out of the folder")
    return name


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"a size of {str(value)[:40]}")
    return value


def put_archive(temporary: Path, path: Path) -> None:
    """Give a complete archive of PyTorch its name, and its manifest.

    An older manifest goes first: a kill in between leaves a file that is not verified, none that seems damaged.
    """
    found = of_archive(temporary)
    beside(path).unlink(missing_ok=True)
    put_file(temporary, path)
    write_manifest(beside(path), {path.name: found})


@contextlib.contextmanager
def finished_archive(path: Path) -> Iterator[Path]:
    """:func:`~nemo_cosmos.atomic.finished_file` of an archive of PyTorch, with its manifest."""
    with finished_file(path) as temporary:
        yield temporary
        found = of_archive(temporary)
        beside(path).unlink(missing_ok=True)
    write_manifest(beside(path), {path.name: found})


def seal_folder(folder: Path) -> None:
    """Write the manifest of a folder that is complete; its files are read once more, and those below it."""
    files = [file for file in _files_below(folder) if not is_manifest(file.name)]
    sums = of_files(files)
    names = (file.relative_to(folder).as_posix() for file in files)
    write_manifest(folder / MANIFEST, dict(zip(names, sums, strict=True)))


def seal_again(folder: Path, name: str) -> None:
    """Enter a file that was written anew into the manifest of its folder, where there is one."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        write_manifest(manifest, {**read_manifest(manifest), name: of_files([folder / name])[0]})


def verify(
    path: str | Path, mode: Verify = "auto", *, share: tuple[int, int] = (0, 1), remedy: str | None = None
) -> bool:
    """Compare a file, or the files of a folder, with their manifest; without one they are taken as they are.

    Args:
        path: a file, or a folder with a manifest or with files that have one each.
        mode: see :data:`Verify`.
        share: this process' number and how many of them verify the content, each a part of the files.
        remedy: ends the message about damage.

    Returns:
        Whether there is a manifest. Where there is none, the first process says so in the log.

    Raises:
        InputError: a file is missing, empty, shorter, longer or altered; the message names it.
    """
    path = Path(path)
    listed = _listed(path)
    if not listed:
        if share[0] == 0:
            logger.info("%s: no checksums beside it, taken unverified", path)
        return False
    if share[0] == 0 and (path / MANIFEST).is_file() and (others := _unlisted(path, listed)):
        logger.warning("%s does not list %s: taken unverified", path / MANIFEST, ", ".join(others))
    remedy = remedy or f"take it from a copy or write it anew; delete {MANIFEST} where it was changed on purpose"
    problem = _wrong_size(listed) or _wrong_content(_to_read(listed, mode, share))
    if problem is not None:
        raise InputError(f"{problem}: {remedy}")
    return True


def _listed(path: Path) -> dict[Path, Checksum]:
    """Files with what their manifests say."""
    if path.is_dir():
        # Who reads the folder says what is missing where each file stands for itself.
        single = {f: of for manifest in path.glob(f"*.{MANIFEST}") for f, of in _entries(manifest) if f.is_file()}
        return {**single, **dict(_entries(path / MANIFEST) if (path / MANIFEST).is_file() else ())}
    for manifest in (beside(path), path.parent / MANIFEST):
        if manifest.is_file() and path.name in (entries := read_manifest(manifest)):
            return {path: entries[path.name]}
    return {}


def _entries(manifest: Path) -> list[tuple[Path, Checksum]]:
    return [(manifest.parent / name, of) for name, of in read_manifest(manifest).items()]


def _to_read(listed: Mapping[Path, Checksum], mode: Verify, share: tuple[int, int]) -> dict[Path, Checksum]:
    """The files whose content this process reads: about as many bytes in each process."""
    number, count = share
    if mode == "size":
        return {}
    loads, mine = [0] * count, {}
    for path, expected in sorted(listed.items(), key=lambda item: (-item[1].bytes, item[0])):
        least = loads.index(min(loads))
        loads[least] += expected.bytes
        if least == number:
            mine[path] = expected
    if mode == "auto" and max(loads) > AUTO_BYTES:
        return {path: expected for path, expected in mine.items() if expected.bytes <= _SMALL}
    return mine


def _wrong_size(listed: Mapping[Path, Checksum]) -> str | None:
    for path, expected in listed.items():
        try:
            found = path.stat()
        except FileNotFoundError:
            return f"{path}: missing, expected {expected.bytes} bytes"
        except (OSError, ValueError) as error:  # ValueError: no file system has such a name.
            reason = getattr(error, "strerror", None) or error
            return f"{path}: cannot be read ({reason}), expected {expected.bytes} bytes"
        if not stat.S_ISREG(found.st_mode):
            return f"{path}: no regular file, expected one of {expected.bytes} bytes"
        size = found.st_size
        if size != expected.bytes:
            return f"{path}: damaged, {'empty' if not size else f'found {size} bytes'}, expected {expected.bytes}"
    return None


def _wrong_content(listed: Mapping[Path, Checksum]) -> str | None:
    try:
        found = of_files(listed)
    except OSError as error:
        return f"{error.filename}: cannot be read ({error.strerror})"
    for (path, expected), actual in zip(listed.items(), found, strict=True):
        if actual != expected:
            return f"{path}: damaged, found the CRC-32 {actual.crc:08x}, expected {expected.crc:08x}"
    return None


def _unlisted(folder: Path, listed: Mapping[Path, Checksum]) -> list[str]:
    return [str(f.relative_to(folder)) for f in _files_below(folder) if f not in listed and not is_manifest(f.name)]


def _files_below(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())
