"""A flag that takes one of a few words shows them and refuses others in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["convert", "a.pt", "b.pt", "--weights", "regular"],
            "--weights': 'regular' is not one of 'ema', 'reg', 'both'",
        ),
        (
            ["prepare", "a", "b", "--tokenizer=t", "--fit=zoom"],
            "--fit': 'zoom' is not one of 'crop', 'pad', 'stretch'",
        ),
        (["tokenizer", "export", "a", "b", "--format", "onnx"], "'onnx' is not one of 'folder', 'jit', 'diffusers'"),
        (["bench", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["demo", "--size", "huge"], "'huge' is not one of 'full', 'smoke'"),
    ],
)
def test_another_word_is_refused(words: list[str], expected: str) -> None:
    done = subprocess.run([sys.executable, "-m", "nemo_cosmos", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Invalid value for ") and done.stderr.count("\n") == 1
    assert expected in done.stderr
