"""A run goes on whatever stands in its ``metrics.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_cosmos.training.metrics_file import forget_later_steps

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
