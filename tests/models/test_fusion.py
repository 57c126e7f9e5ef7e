"""Functions are compiled for a GPU only, and not before they are called there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nemo_cosmos.models.fusion import fused


def test_compiled_once_and_only_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_(function: object, **options: object) -> object:
        compiled.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_)

    @fused
    def double(x: object) -> object:
        return x.scale * 2  # type: ignore[attr-defined]

    class Somewhere:
        scale = 3

        def __init__(self, is_cuda: bool) -> None:
            self.is_cuda = is_cuda

    assert double(Somewhere(is_cuda=False)) == 6 and not compiled
    assert [double(Somewhere(is_cuda=True)) for _ in range(3)] == [6, 6, 6]
    assert compiled == [{"dynamic": False}]


def test_importing_models_does_not_import_the_compiler() -> None:
    check = "import nemo_cosmos.models.tokenizer, sys; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
