"""The benchmark compares like with like."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from nemo_cosmos.bench.step import Case, build_diffusers, build_ours, kernel_kind, output_difference
from nemo_cosmos.cli import app
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig


@pytest.mark.parametrize("preset", ["tiny-text2world", "tiny-video2world", "tiny-predict2-video2world"])
def test_both_networks_compute_the_same(preset: str) -> None:
    config = DiTConfig.preset(preset, num_layers=2, hidden_size=64)
    assert output_difference(Case(config, (3, 8, 12), torch.float32, "cpu", text_tokens=8)) < 1e-5


def test_networks_that_diffusers_lacks_are_refused() -> None:
    case = Case(DiTConfig.preset("tiny-video2world-camera", num_layers=1), (1, 8, 8), torch.float32, "cpu")
    with pytest.raises(InputError, match="camera rays"):
        build_diffusers(case, build_ours(case))


def test_kernels_are_sorted_by_name() -> None:
    assert kernel_kind("cudnn_generated_fort_native_sdpa_sm90_flash_bprop") == "attention"
    assert kernel_kind("nvjet_sm90_tst_192x192_64x3_2x1_v_bz_coopB_NNN") == "matrix products"
    assert kernel_kind("triton_poi_fused_gelu_0") == "compiled element-wise"
    assert kernel_kind("Memcpy DtoD (Device -> Device)") == "memory copies"


def test_the_verb_prints_a_ratio() -> None:
    result = CliRunner().invoke(app, ["bench", "--device", "cpu", "--layers", "1", "--steps", "1"])
    assert result.exit_code == 0, result.output
    assert "ours is" in result.output
    assert "as fast as diffusers" in result.output
