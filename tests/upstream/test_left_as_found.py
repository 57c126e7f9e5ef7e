"""Training in a notebook leaves the process as it found it, after an error too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_training_leaves_the_process_as_it_found_it(tmp_path: Path) -> None:
    """A process of its own: what else the tests have imported would hide what a run imports."""
    launch = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in launch}
    done = subprocess.run(
        [sys.executable, "-m", "tests.upstream.left_as_found", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line for line in done.stdout.splitlines() if line.startswith(("after ", "the step"))]
    assert not found, "\n".join(found)
    assert "step 2/2" in done.stdout
