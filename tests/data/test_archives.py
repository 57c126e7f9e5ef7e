"""Zip files of others: what honest ones hold is read, anything else is refused by name."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from nemo_cosmos.data import archives
from nemo_cosmos.data.archives import look_into
from nemo_cosmos.errors import InputError
from tests.data.scene_files import picture, scene, write_zip


def pack(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_images_and_json_are_read_and_nothing_else(tmp_path: Path) -> None:
    junk = {"run.py": b"x", "__MACOSX/._a.png": b"x", ".hidden/a.png": b"x", "weights.pth": b"x"}
    archive = look_into(write_zip(tmp_path / "s.zip", {**scene(2), **junk}))
    assert list(archive.members) == ["s/images/frame_00000.png", "s/images/frame_00001.png", "s/transforms.json"]
    with archive.open() as file:
        assert file.read("s/images/frame_00001.png") == picture(1)


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "s/../../a.png", "..\\a.png", "C:\\a.png", "C:/a.json", "\\a.txt"]
)
def test_names_that_lead_out_of_the_folder_refuse_the_file(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "s.zip", ("transforms.json", b"{}"), (name, b"x"))
    with pytest.raises(InputError, match=r"s\.zip: member .* leads out of the folder"):
        look_into(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["s.zip"]


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644])
def test_links_and_devices_refuse_the_file(tmp_path: Path, mode: int) -> None:
    path = pack(tmp_path / "s.zip", (member("images/a.png", mode), b"/etc/passwd"))
    with pytest.raises(InputError, match="is a link or a device"):
        look_into(path)


def test_names_that_occur_twice_refuse_the_file(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = pack(tmp_path / "s.zip", ("images/a.png", b"x"), ("images/a.png", b"y"))
    with pytest.raises(InputError, match="occur twice"):
        look_into(path)


def test_encrypted_members_refuse_the_file(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.zip", ("a.png", picture(0)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # The flag in the directory.
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        look_into(path)


def test_a_file_that_is_cut_off_or_none_is_told(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "s.zip", scene(3)).read_bytes()
    for content in (whole[:-30], whole[: len(whole) // 2], b"", b"no zip"):
        (tmp_path / "cut.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"cut\.zip is no readable zip file"):
            look_into(tmp_path / "cut.zip")


def test_damaged_content_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.zip", ("a.png", picture(0)), compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    with look_into(path).open() as file, pytest.raises(InputError, match=r"a\.png is damaged"):
        file.read("a.png")


def test_a_bomb_is_refused_unless_the_limit_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "s.zip", ("a.png", bytes(4 << 20)))
    look_into(path)
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    with pytest.raises(InputError, match=r"more than 200 times.*--max_unpacked_gb"):
        look_into(path)
    with pytest.raises(InputError, match=r"4\.0 MiB of images, more than 1\.0 MiB: give --max_unpacked_gb"):
        look_into(path, 1 << 20)
    assert "a.png" in look_into(path, 5 << 20).members


def test_no_member_is_larger_than_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1000)
    with pytest.raises(InputError, match="no image has"):
        look_into(pack(tmp_path / "s.zip", ("a.png", bytes(2000))))


def test_the_digest_changes_with_the_content_alone(tmp_path: Path) -> None:
    first = look_into(write_zip(tmp_path / "s.zip", scene(2))).digest
    assert look_into(write_zip(tmp_path / "again" / "s.zip", scene(2))).digest == first
    changed = {**scene(2), "images/frame_00001.png": picture(7)}
    assert look_into(write_zip(tmp_path / "other" / "s.zip", changed)).digest != first
