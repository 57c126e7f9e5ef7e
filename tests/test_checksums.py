"""Checksums of files, of their parts, and what is said of damage."""

from __future__ import annotations

import itertools
import json
import os
import random
import zlib
from pathlib import Path

import pytest
import torch

from nemo_cosmos import checksums
from nemo_cosmos.atomic import finished_folder
from nemo_cosmos.checksums import (
    Checksum,
    HashingFile,
    finished_archive,
    of_archive,
    of_files,
    read_manifest,
    seal_again,
    seal_folder,
    verify,
    write_manifest,
)
from nemo_cosmos.errors import InputError
from tests.damage import DAMAGES, damage


def whole(content: bytes) -> Checksum:
    return Checksum(len(content), zlib.crc32(content))


@pytest.mark.parametrize("seed", range(5))
def test_of_parts_that_follow_each_other(seed: int) -> None:
    draw = random.Random(seed)
    content = draw.randbytes(draw.randint(1, 100_000))
    cuts = [0, *sorted(draw.randint(0, len(content)) for _ in range(6)), len(content)]
    parts = [whole(content[a:b]) for a, b in itertools.pairwise(cuts)]
    assert sum(parts, Checksum()) == whole(content)


def test_of_files_that_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_PIECE", 1000)
    contents = [random.Random(size).randbytes(size) for size in (0, 1, 999, 1000, 1001, 12_345)]
    files = [tmp_path / str(len(content)) for content in contents]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert of_files(files) == [whole(content) for content in contents]


def test_of_what_is_written(tmp_path: Path) -> None:
    with (tmp_path / "a.pt").open("wb") as file:
        hashing = HashingFile(file)
        torch.save({"a": torch.arange(100_000)}, hashing)
    assert [hashing.checksum] == of_files([tmp_path / "a.pt"])


def test_of_archives_from_their_own_checksums(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(500, 70), "b": [torch.arange(3), "text"], "empty": torch.empty(0)}, tmp_path / "a.pt")
    torch.jit.script(torch.nn.Linear(30, 30)).save(str(tmp_path / "a.jit"))
    for name in ("a.pt", "a.jit"):
        assert [of_archive(tmp_path / name)] == of_files([tmp_path / name])


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    with finished_folder(tmp_path / "sealed") as folder:
        (folder / "inner").mkdir()
        for name, size in (("a.bin", 5000), ("inner/b.bin", 3000), ("c.json", 1)):
            (folder / name).write_bytes(random.Random(size).randbytes(size))
        seal_folder(folder)
    return tmp_path / "sealed"


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["a.bin", "inner/b.bin", "c.json"])
def test_damage_names_the_file(kind: str, name: str, sealed: Path) -> None:
    assert verify(sealed, "full")
    damage(sealed / name, kind)
    with pytest.raises(InputError) as caught:
        verify(sealed, "full")
    message = str(caught.value)
    assert message.startswith(f"{sealed / name}: ") and "expected" in message and "\n" not in message
    if kind == "flip":
        assert verify(sealed, "size")
    else:
        with pytest.raises(InputError):
            verify(sealed, "size")


def test_auto_reads_small_files_of_much(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(sealed / "c.json", "flip")
    for limit, small, refused in ((1 << 30, 0, True), (100, 1000, True), (100, 0, False)):
        monkeypatch.setattr(checksums, "AUTO_BYTES", limit)
        monkeypatch.setattr(checksums, "_SMALL", small)
        if refused:
            with pytest.raises(InputError, match=r"c\.json"):
                verify(sealed)
        else:
            assert verify(sealed)


def test_processes_share_the_reading(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []
    monkeypatch.setattr(
        checksums, "of_files", lambda files: read.append([f.name for f in files]) or of_files(list(files))
    )
    for number in range(3):
        verify(sealed, "full", share=(number, 3))
    assert sorted(name for names in read for name in names) == ["a.bin", "b.bin", "c.json"]
    assert all(len(names) == 1 for names in read)


def test_files_that_are_not_listed(sealed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (sealed / "notes.txt").write_text("mine")
    (tmp_path / "old.pt").touch()
    with caplog.at_level("INFO", "nemo_cosmos"):
        assert verify(sealed)
        assert not verify(sealed / "notes.txt")
        assert not verify(tmp_path / "old.pt")
    assert [record.getMessage() for record in caplog.records] == [
        f"{sealed / 'checksums.json'} does not list notes.txt: taken unverified",
        f"{sealed / 'notes.txt'}: no checksums beside it, taken unverified",
        f"{tmp_path / 'old.pt'}: no checksums beside it, taken unverified",
    ]


def test_a_file_written_anew_is_entered(sealed: Path) -> None:
    (sealed / "c.json").write_text("{}")
    seal_again(sealed, "c.json")
    assert verify(sealed, "full")


def test_a_single_file_has_its_own(tmp_path: Path) -> None:
    for number in range(2):
        with finished_archive(tmp_path / "a.pt") as temporary:
            torch.save(torch.full((100,), number), temporary)
        assert verify(tmp_path / "a.pt", "full")
    (tmp_path / "moved").mkdir()
    for file in list(tmp_path.glob("a.pt*")):
        os.replace(file, tmp_path / "moved" / file.name)
    damage(tmp_path / "moved" / "a.pt", "flip")
    with pytest.raises(InputError, match=r"moved/a\.pt: damaged, found the CRC-32"):
        verify(tmp_path / "moved" / "a.pt")


def edit(file: Path, change: str) -> None:
    values = json.loads(file.read_text())
    if change == "digit":
        values["files"]["a"]["bytes"] += 1
    elif change == "version":
        values["version"] = 2
    elif change == "entry":
        del values["files"]["a"]
    file.write_text(json.dumps(values))


@pytest.mark.parametrize("change", ["digit", "entry", "version"])
def test_a_manifest_that_was_altered(change: str, tmp_path: Path) -> None:
    write_manifest(tmp_path / "checksums.json", {"a": Checksum(1, 2), "b": Checksum(3, 4)})
    edit(tmp_path / "checksums.json", change)
    with pytest.raises(InputError, match=r"checksums\.json: (damaged|version 2)"):
        verify(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "new\nline"])
def test_a_manifest_with_names_that_lead_out(name: str, tmp_path: Path) -> None:
    write_manifest(tmp_path / "checksums.json", {name: Checksum(1, 2)})
    with pytest.raises(InputError, match=r"checksums\.json: damaged"):
        read_manifest(tmp_path / "checksums.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 1}', b'{"format": "x", "version": []}'],
)
def test_a_manifest_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_bytes(content)
    with pytest.raises(InputError, match=r"checksums\.json: damaged"):
        verify(tmp_path)
