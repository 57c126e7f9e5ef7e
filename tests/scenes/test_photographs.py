"""The photographs that clips are made of: the listed files, found without importing their packages."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from importlib.util import find_spec

import pytest
from PIL import Image

from nemo_cosmos.errors import InputError
from nemo_cosmos.scenes.photographs import LARGEST_SIDE, PHOTOGRAPHS, photograph_path, read_photograph
from tests.scenes.pictures_of import PACKAGE, make_photographs


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.name)
def test_each_listed_photograph_is_read_where_its_package_is(photograph):
    if find_spec(photograph.folder.partition("/")[0]) is None:
        with pytest.raises(
            InputError, match=rf'{photograph.package} is not installed; pip install "nemo_cosmos\[tiny\]"'
        ):
            read_photograph(photograph)
        return
    pixels = read_photograph(photograph)
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and max(pixels.shape) <= LARGEST_SIDE
    assert pixels.std() > 5


def test_names_are_unique_and_licences_are_said():
    assert len({photograph.name for photograph in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    assert all(photograph.licence for photograph in PHOTOGRAPHS)
    named = [photograph.licence for photograph in PHOTOGRAPHS if photograph.licence.startswith("CC BY")]
    assert named and all("flickr.com/photos/" in licence for licence in named), "CC BY asks for the author"


def test_a_package_of_files_alone_is_enough_and_is_not_imported(tmp_path, monkeypatch):
    (photograph, *_) = make_photographs(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / PACKAGE / "__init__.py").write_text("raise RuntimeError('imported')\n")
    assert read_photograph(photograph).shape == (120, 160, 3)
    assert PACKAGE not in sys.modules


def test_a_missing_file_and_another_file_of_the_name_are_told(tmp_path, monkeypatch):
    first, second, _ = make_photographs(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    photograph_path(first).unlink()
    with pytest.raises(InputError, match=r"has no picture_0\.png; pip install .*--without-photos"):
        read_photograph(first)
    Image.new("RGB", (20, 20)).save(photograph_path(second))
    with pytest.raises(InputError, match=r"has the sha256 .* clips would be others"):
        read_photograph(second)


def test_large_photographs_are_made_smaller(tmp_path, monkeypatch):
    (photograph, *_) = make_photographs(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = photograph_path(photograph)
    Image.new("RGB", (1500, 300), (9, 9, 9)).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_photograph(dataclasses.replace(photograph, sha256=digest)).shape == (144, 720, 3)
