"""The benchmark compares like with like."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from nemo_cosmos.bench.step import (
    Case,
    Inputs,
    build_diffusers,
    build_ours,
    call_ours,
    kernel_kind,
    output_difference,
)
from nemo_cosmos.cli import app
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig


@pytest.mark.parametrize("preset", ["tiny-text2world", "tiny-video2world", "tiny-predict2-video2world"])
def test_both_networks_compute_the_same(preset: str) -> None:
    config = DiTConfig.preset(preset, num_layers=2, hidden_size=64)
    assert output_difference(Case(config, (3, 8, 12), torch.float32, "cpu", text_tokens=8)) < 1e-5


def test_views_have_text_and_given_frames_of_their_own() -> None:
    case = Case(DiTConfig.preset("tiny-predict2-multiview"), (14, 8, 12), torch.float32, "cpu", text_tokens=8)
    given = Inputs.draw(case)
    assert given.told.text.shape[1] == 7 * 8
    assert given.told.condition_mask is not None
    assert given.told.condition_mask[0, 0, :, 0, 0].tolist() == [1, 0] * 7
    out = call_ours(build_ours(case), given)
    assert out.shape == given.x.shape
    one_view = Case(DiTConfig.preset("tiny-predict2-video2world"), (14, 8, 12), text_tokens=8)
    text = 3 * 4 * 4 * 6 * 8 * 128 * 1024
    assert case.flops - one_view.flops == text


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
