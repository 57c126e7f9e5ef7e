"""Which files a folder or a pattern names, and names that tell them apart."""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from nemo_cosmos.errors import InputError, require_file, require_text

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
"""Files that count as videos when a folder is searched, in any case."""
OUTPUT_FOLDERS = ("reconstructions",)
"""Where ``video_cli`` writes beside the videos it reads."""


def is_video_name(path: PurePath) -> bool:
    """Whether the suffix is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def walk_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted; links to folders are followed once.

    Hidden files and folders are left out, and ``OUTPUT_FOLDERS``.

    Raises:
        InputError: a folder may not be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in OUTPUT_FOLDERS)
        found.extend(Path(parent, name) for name in files if not name.startswith("."))
    return sorted(found)


def find_videos(folder: Path) -> list[Path]:
    """The videos below a folder, sorted; InputError when there are none, counting what else is there."""
    return find_files(folder, VIDEO_SUFFIXES, "video")


def find_files(folder: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    """The files below a folder with one of the suffixes, in any case, sorted; ``what`` is one of them in errors.

    Raises:
        InputError: there are none, or a folder may not be read; what else is there is counted.
    """
    files = walk_files(folder)
    chosen = [path for path in files if path.suffix.lower() in suffixes]
    if not chosen:
        others = count_suffixes(files)
        found = f"; found {others}" if others else ""
        raise InputError(
            f"{folder} holds no {what}: it holds no {suffixes[0]} files nor any of {', '.join(suffixes[1:])}{found}"
        )
    return chosen


def count_suffixes(files: Iterable[PurePath]) -> str:
    """``3 .gif, 1 .MTS, 1 without suffix``, the most frequent first; empty for no files."""
    counts = Counter(path.suffix or "without suffix" for path in files)
    return ", ".join(
        f"{count} {suffix}" for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item))
    )


def unique_names(paths: Sequence[PurePath]) -> list[str]:
    """A flat name for each relative path: folders joined by ``_``, without suffix.

    Paths that would share a name get a digest of their own appended, so that ``a/b.mp4``, ``a_b.mp4`` and ``a_b.mov``
    stay apart; equal paths keep equal names.
    """
    plain = [path.with_suffix("").as_posix().replace("/", "_") for path in paths]
    owners: dict[str, set[str]] = {}
    for name, path in zip(plain, paths, strict=True):
        owners.setdefault(name, set()).add(path.as_posix())
    return [
        name if len(owners[name]) == 1 else f"{name}-{_digest(path.as_posix())}"
        for name, path in zip(plain, paths, strict=True)
    ]


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file, with or without a byte-order mark, that are not blank, with their numbers from 1.

    Raises:
        InputError: the file is missing, unreadable or not UTF-8.
    """
    require_file(path)
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def expand_pattern(pattern: str) -> list[Path]:
    """The files that a pattern names, sorted; as much of it as exists under that very name is no pattern."""
    literal, rest = Path(), list(Path(pattern).parts)
    while rest and os.path.lexists(literal / rest[0]):
        literal /= rest.pop(0)
    found = glob.glob(str(Path(glob.escape(str(literal)), *rest)), recursive=True)
    return [Path(name) for name in sorted(found) if Path(name).is_file()]


def require_path(name: str, what: str) -> None:
    """InputError where a string of a JSON file can be no path: half of a surrogate pair, or a NUL character."""
    require_text(name, what)
    if "\0" in name:
        raise InputError(f"{what} {name!r} has a NUL character, which no path has")


def literal_paths(argv: Iterable[str], options: Container[str]) -> list[str]:
    """Command-line words in which files and folders that begin with a dash read ``./-NAME``, which no parser takes for
    an option; a word that is one stays."""
    return [
        f"./{word}" if word.startswith("-") and word not in options and os.path.lexists(word) else word
        for word in argv
    ]


def parse_paths(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """``parser.parse_args``, in which a file or folder whose name begins with a dash may be a value."""
    return parser.parse_args(literal_paths(argv, parser._option_string_actions))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
