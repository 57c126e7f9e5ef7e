"""Downloads from the Hugging Face hub: what is missing, how much that is, and what to do when the hub refuses."""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_cosmos.errors import InputError, require_writable

Fetch = Callable[..., str]
"""``huggingface_hub.snapshot_download`` or a stand-in."""


@dataclass(frozen=True)
class Repository:
    """Files of one hub repository that shall lie in a folder."""

    name: str
    folder: Path
    patterns: tuple[str, ...]
    md5: Mapping[str, str] = field(default_factory=dict)
    """Known sums of files, as far as they are published."""

    def bad_files(self) -> list[str]:
        """Files with a known sum that are there with another one."""
        return [name for name, sum_ in self.md5.items() if (self.folder / name).is_file() and self._md5(name) != sum_]

    def complete(self) -> bool:
        """Whether every file with a known sum is there and has it, so that the hub need not be asked."""
        present = all((self.folder / name).is_file() for name in (*self.md5, *self._plain_patterns()))
        return bool(self.md5) and present and not self.bad_files()

    def _plain_patterns(self) -> list[str]:
        return [pattern for pattern in self.patterns if "*" not in pattern and pattern != "README.md"]

    def _md5(self, name: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        with (self.folder / name).open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
        return digest.hexdigest()


def remote_sizes(repository: Repository, info: Callable[..., Any] | None = None) -> dict[str, int]:
    """{file: bytes} of what a repository has of the files wanted; ``info`` stands for ``huggingface_hub.model_info``.

    Raises:
        InputError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import model_info

    with _explaining(repository.name):
        found = (info or model_info)(repository.name, files_metadata=True).siblings
    wanted = (file for file in found if any(fnmatch.fnmatch(file.rfilename, p) for p in repository.patterns))
    return {file.rfilename: int(file.size or 0) for file in wanted}


def missing_bytes(repository: Repository, sizes: Mapping[str, int]) -> int:
    """How much of ``sizes`` is not in the folder yet, by the files' sizes."""

    def has(name: str, size: int) -> bool:
        path = repository.folder / name
        return path.is_file() and path.stat().st_size == size

    return sum(size for name, size in sizes.items() if not has(name, size))


def fetch_repository(repository: Repository, fetch: Fetch | None = None) -> None:
    """Download into the folder; an interrupted download continues, complete files are kept.

    Raises:
        InputError: the hub refuses or cannot be reached, or the disk is full.
    """
    from huggingface_hub import snapshot_download

    require_writable(repository.folder)
    with _explaining(repository.name):
        (fetch or snapshot_download)(
            repository.name, local_dir=str(repository.folder), allow_patterns=list(repository.patterns)
        )


def fetch_to_cache(name: str, patterns: Sequence[str], fetch: Fetch | None = None) -> Path:
    """The folder of a repository in the hub's cache, with the files wanted; what is there is not fetched again.

    Raises:
        InputError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with _explaining(name):
        return Path((fetch or snapshot_download)(name, allow_patterns=list(patterns)))


def check_free_space(folder: Path, needed: int) -> None:
    """InputError where ``needed`` bytes do not fit on the disk of ``folder``."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(f"{folder}: {gigabytes(needed)} to download, {gigabytes(free)} free; choose another folder")


def gigabytes(count: int) -> str:
    """A size for people: ``14.5 GB``."""
    return f"{count / 1e9:.1f} GB"


class _explaining:
    """Turns what huggingface_hub raises for a repository into one line that says what to do."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from huggingface_hub import get_token
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

        if not isinstance(error, (HfHubHTTPError, LocalEntryNotFoundError, OSError)):
            return
        page, log_in = f"https://huggingface.co/{self.repository}", "`huggingface-cli login` or HF_TOKEN"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401 or (isinstance(error, HfHubHTTPError) and get_token() is None):
            what = f"not logged in: accept its licence at {page}, then log in with {log_in}"
        elif isinstance(error, GatedRepoError) or status == 403:
            what = f"its licence is not accepted by this account: accept its licence at {page} ({log_in} chooses it)"
        else:
            first = (str(error).splitlines() or [""])[0]
            what = f"{type(error).__name__}: {first}; run it again to go on, or accept its licence at {page}"
        raise InputError(f"{self.repository} cannot be downloaded: {what}") from error


def download_all(
    repositories: Sequence[Repository],
    *,
    info: Callable[..., Any] | None = None,
    fetch: Fetch | None = None,
    dry_run: bool = False,
    check_sums: bool = True,
) -> None:
    """Print what is to be fetched and how much that is, then fetch it and compare the known MD5 sums.

    Raises:
        InputError: the hub refuses, the disk is too small, or a file's sum is wrong.
    """
    wanted: list[Repository] = []
    total = 0
    for repository in repositories:
        require_writable(repository.folder)
        if repository.complete():
            print(f"{repository.folder}: complete", flush=True)
            continue
        missing = missing_bytes(repository, remote_sizes(repository, info))
        print(f"{repository.name} -> {repository.folder}: {gigabytes(missing)}", flush=True)
        wanted.append(repository)
        total += missing
    print(f"to download: {gigabytes(total)}", flush=True)
    for repository in wanted[:1]:
        check_free_space(repository.folder, total)
    if dry_run:
        return
    for repository in wanted:
        fetch_repository(repository, fetch)
        absent = [name for name in repository.md5 if not (repository.folder / name).is_file()]
        if absent:
            raise InputError(f"{repository.name}: downloaded, but {', '.join(absent)} is missing; run it again")
        bad = repository.bad_files() if check_sums else []
        if bad:
            raise InputError(
                f"{repository.folder / bad[0]}: MD5 sum differs from the released file's "
                f"({', '.join(bad)}); delete it and run again, or pass --skip_md5 if the release has changed"
            )
