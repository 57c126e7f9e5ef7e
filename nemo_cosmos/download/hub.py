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
    revision: str | None = None
    """Commit to take; None: the latest."""
    required: tuple[str, ...] = ()
    """Files without which the folder is of no use."""

    def bad_files(self) -> list[str]:
        """Files with a known sum that are there with another one."""
        return [
            name
            for name, sum_ in self.md5.items()
            if (self.folder / name).is_file() and _digest(self.folder / name, "md5") != sum_
        ]

    def complete(self) -> bool:
        """Whether every file with a known sum is there and has it, so that the hub need not be asked."""
        present = all((self.folder / name).is_file() for name in (*self.md5, *self._plain_patterns()))
        return bool(self.md5) and present and not self.bad_files()

    def _plain_patterns(self) -> list[str]:
        return [pattern for pattern in self.patterns if "*" not in pattern and pattern != "README.md"]


@dataclass(frozen=True)
class RemoteFile:
    """What the hub says of a file: its bytes, and the SHA-256 of a large one."""

    size: int
    sha256: str | None = None

    def is_at(self, path: Path) -> bool:
        """Whether a file of this size is there."""
        return path.is_file() and path.stat().st_size == self.size

    def equals(self, path: Path) -> bool:
        """Whether this very file is there, as far as the hub says what it is; reads it."""
        return self.is_at(path) and (self.sha256 is None or self.sha256 == _digest(path, "sha256"))


def remote_files(repository: Repository, info: Callable[..., Any] | None = None) -> dict[str, RemoteFile]:
    """{name: file} of what a repository has of the files wanted; ``info`` stands for ``huggingface_hub.model_info``.

    Raises:
        InputError: the hub refuses or cannot be reached, or a required file is not in the repository.
    """
    from huggingface_hub import model_info

    with _explaining(repository.name):
        found = (info or model_info)(repository.name, files_metadata=True, **_revision(repository)).siblings
    wanted = [file for file in found if any(fnmatch.fnmatch(file.rfilename, p) for p in repository.patterns)]
    absent = sorted(set(repository.required) - {file.rfilename for file in wanted})
    if absent:
        raise InputError(
            f"{repository.name}: the hub has no {', '.join(absent)} there, which was expected; look at "
            f"https://huggingface.co/{repository.name}/tree/{repository.revision or 'main'}"
        )
    return {
        file.rfilename: RemoteFile(int(file.size or 0), getattr(getattr(file, "lfs", None), "sha256", None))
        for file in wanted
    }


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def remote_sizes(repository: Repository, info: Callable[..., Any] | None = None) -> dict[str, int]:
    """{file: bytes} of :func:`remote_files`."""
    return {name: file.size for name, file in remote_files(repository, info).items()}


def missing_bytes(repository: Repository, sizes: Mapping[str, int]) -> int:
    """How much of ``sizes`` is not in the folder yet, by the files' sizes."""
    return sum(size for name, size in sizes.items() if not RemoteFile(size).is_at(repository.folder / name))


def _revision(repository: Repository) -> dict[str, str]:
    return {} if repository.revision is None else {"revision": repository.revision}


def fetch_repository(repository: Repository, fetch: Fetch | None = None) -> None:
    """Download into the folder; an interrupted download continues, complete files are kept.

    Raises:
        InputError: the hub refuses or cannot be reached, or the disk is full.
    """
    from huggingface_hub import snapshot_download

    require_writable(repository.folder)
    with _explaining(repository.name):
        (fetch or snapshot_download)(
            repository.name,
            local_dir=str(repository.folder),
            allow_patterns=list(repository.patterns),
            **_revision(repository),
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
    """Print what is to be fetched and how much that is, then fetch it; compare the known MD5 sums, and of repositories
    without those the sizes and SHA-256 sums that the hub states.

    Raises:
        InputError: the hub refuses, the disk is too small, or a file is not the hub's.
    """
    wanted: list[tuple[Repository, dict[str, RemoteFile]]] = []
    total = 0
    for repository in repositories:
        require_writable(repository.folder)
        if repository.complete():
            print(f"{repository.folder}: complete", flush=True)
            continue
        files = remote_files(repository, info)
        missing = missing_bytes(repository, {name: file.size for name, file in files.items()})
        print(f"{repository.name} -> {repository.folder}: {gigabytes(missing)}", flush=True)
        wanted.append((repository, files))
        total += missing
    print(f"to download: {gigabytes(total)}", flush=True)
    for repository, _ in wanted[:1]:
        check_free_space(repository.folder, total)
    if dry_run:
        return
    for repository, files in wanted:
        fetch_repository(repository, fetch)
        if not repository.md5:
            _compare(repository, files, check_sums)
        absent = [name for name in repository.md5 if not (repository.folder / name).is_file()]
        if absent:
            raise InputError(f"{repository.name}: downloaded, but {', '.join(absent)} is missing; run it again")
        bad = repository.bad_files() if check_sums else []
        if bad:
            raise InputError(
                f"{repository.folder / bad[0]}: MD5 sum differs from the released file's "
                f"({', '.join(bad)}); delete it and run again, or pass --skip_md5 if the release has changed"
            )


def _compare(repository: Repository, files: Mapping[str, RemoteFile], check_sums: bool) -> None:
    """InputError where a file in the folder is not the one that the hub describes."""
    print(f"{repository.folder}: comparing with what the hub states", flush=True)
    for name, file in files.items():
        path = repository.folder / name
        if not path.is_file():
            raise InputError(f"{repository.name}: downloaded, but {name} is missing in its folder; run it again")
        if not (file.equals(path) if check_sums else file.is_at(path)):
            raise InputError(f"{path}: its size or SHA-256 sum is not what the hub states; delete it and run it again")
