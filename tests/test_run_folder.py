"""A run goes on whatever stands in its ``metrics.jsonl``, from the save that counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.run_folder import LATEST, forget_later_steps, iteration_name, name_newest, newest_save, old_saves

GOOD = [b'{"step": 1, "loss": 0.5}', b'{"step": 2, "loss": 0.4}', b'{"step": 3, "loss": 0.3}']
ODD = [
    b'{"step": 2, "lo', b"", b"   ", b"null", b"3", b'"step"', b"[]", b"{}", b'{"step": null}', b'{"step": "2"}',
    b'{"step": [2]}', b'{"step": true}', b'{"step": NaN}', b'{"loss": 1}', b"\xff\xfe\x00", b"\x00" * 64,
    b'{"step": 1, "note": "\xc3"}', b"[" * 100_000, b'{"step": ' + b"1" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_odd_lines_are_left_out_and_the_others_kept(tmp_path: Path, odd: bytes, place: int, end: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"\n".join([*GOOD[:place], odd, *GOOD[place:]]) + end)
    forget_later_steps(file, 2)
    assert file.read_bytes() == b"\n".join(GOOD[:2]) + b"\n"
    with file.open("a") as more:
        more.write(json.dumps({"step": 3}) + "\n")
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_damage_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"\n".join([*GOOD, b'{"st']))
    forget_later_steps(file, 3)
    assert f"{file}: 1 damaged lines" in caplog.text


def test_no_file_stays_none_and_a_new_start_empties_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    forget_later_steps(file, 3)
    assert not file.exists()
    file.write_bytes(b'{"step": 0}\n')
    forget_later_steps(file, -1)
    assert file.read_bytes() == b""


@pytest.mark.parametrize(
    ("named", "saves", "expected"),
    [
        (None, [], None),
        (None, [4], 4),
        ("iter_000000002.pt\n", [2, 4], 2),
        ("iter_000000002", [2, 4], 2),
        ("\ufeffiter_000000006.pt", [], 6),
    ],
)
def test_the_named_save_is_the_newest_or_the_only_one(
    tmp_path: Path, named: str | None, saves: list[int], expected: int | None
) -> None:
    if named is not None:
        (tmp_path / LATEST).write_text(named, encoding="utf-8")
    assert newest_save(tmp_path, saves) == expected


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"iter_2.pt", b"../iter_000000002.pt", b"iter_000000002_reg_model.pt"]
)
def test_a_damaged_name_is_refused_with_its_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LATEST).write_bytes(content)
    with pytest.raises(InputError, match=LATEST):
        newest_save(tmp_path, [2])


def test_several_saves_without_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing beside saves of steps 2, 4: write iter_000000004\.pt into it"):
        newest_save(tmp_path, [4, 2])


def test_a_name_is_written_once(tmp_path: Path) -> None:
    name_newest(tmp_path / "iter_000000004.pt")
    assert (tmp_path / LATEST).read_text() == "iter_000000004.pt\n"
    name_newest(tmp_path / iteration_name(2))
    assert (tmp_path / LATEST).read_text() == "iter_000000004.pt\n"


@pytest.mark.parametrize(
    ("newest", "keep", "expected"), [(6, 2, [2]), (6, 1, [2, 4]), (4, 1, [2]), (4, 2, []), (6, 9, []), (1, 1, [])]
)
def test_retention_counts_saves_up_to_the_newest(newest: int, keep: int, expected: list[int]) -> None:
    assert old_saves([4, 2, 6], newest, keep) == expected
