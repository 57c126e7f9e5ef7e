"""Which saves go when a new one is there."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.checkpoint.files import iteration_name, remove_old, saved_steps


def test_the_newest_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (tmp_path / iteration_name(step)).mkdir()
    remove_old(tmp_path, 6, keep=2)
    assert saved_steps(tmp_path) == [4, 6]


def test_a_run_that_was_rolled_back_keeps_its_new_save(tmp_path: Path) -> None:
    """Saves of after the step that it went back to do not push out the one that was just written."""
    for step in (2, 4, 6):
        (tmp_path / iteration_name(step)).mkdir()
    remove_old(tmp_path, 4, keep=1)
    assert saved_steps(tmp_path) == [4, 6]
