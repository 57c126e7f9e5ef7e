"""The check of GPU machines, rehearsed: torchrun, kill -9 and resuming are real, the networks are tiny."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "tools" / "gpu_check.py"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=500)


def test_post_training_is_saved_killed_and_resumed(tmp_path: Path) -> None:
    done = check("--rehearse", "--only", "post_training", "--work", str(tmp_path / "check"))
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "losses differ by 0.0e+00 from the run that was not interrupted" in rows["kill -9 and resume"]
    assert "rounded to bf16: True" in rows["exported files"]
    assert not (tmp_path / "check").exists()


def test_predict2_is_trained_and_generates_beside_diffusers(tmp_path: Path) -> None:
    steps = ("--only", "predict2_lora", "--only", "predict2_generation")
    done = check("--rehearse", *steps, "--work", str(tmp_path / "check"))
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "predicted" in rows["Predict2 2B Video2World LoRA, 18 tokens"]
    assert "for 9 frames of 32x48: 2 steps with guidance, 6 evaluations" in rows["Predict2 2B Video2World, generate"]
    assert "ours differs from fp32 by" in rows["Predict2 network in bf16"]
    for form in ("as shipped", "with compiled blocks"):
        assert "ours takes" in rows[f"Predict2 denoising, diffusers {form}"]


def test_several_views_are_trained_saved_killed_and_resumed(tmp_path: Path) -> None:
    done = check("--rehearse", "--only", "multiview", "--work", str(tmp_path / "check"))
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 GPUs" in rows["Predict2 2B Multiview, 720p, 7 views"]
    for name in ("720p, 7 views", "480p, 5 views"):
        assert "times the guide's speed of a GPU" in rows[f"Predict2 2B Multiview, {name}"]
    assert "differ by 0.0e+00 from the run that was not interrupted" in rows["Multiview kill -9 and resume"]
    assert "predicted" in rows["Predict2 2B Multiview, 480p, 5 views, LoRA"]


def test_attention_and_one_part_of_a_step_alone(tmp_path: Path) -> None:
    steps = ("--only", "attention", "--only", "multiview_720p")
    done = check("--rehearse", *steps, "--work", str(tmp_path / "check"))
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "output differs by 0.0e+00, the gradient by 0.0e+00" in rows["attention in the network"]
    assert {name for name in rows if "attention" in name or "views" in name} == {
        "attention, batch 1", "attention, batch 2", "attention in the network", "Predict2 2B Multiview, 720p, 7 views"
    }  # fmt: skip
    assert "2 GPUs, PyTorch's kernel, " in rows["Predict2 2B Multiview, 720p, 7 views"]


def test_camera_control_is_saved_killed_and_resumed(tmp_path: Path) -> None:
    done = check("--rehearse", "--only", "camera", "--work", str(tmp_path / "check"))
    rows = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "began with zero columns for the rays: True" in rows["camera control LoRA, 7B"]
    assert "losses differ by 0.0e+00" in rows["camera control kill -9 and resume"]


def test_a_folder_of_others_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear")
    done = check("--rehearse", "--work", str(tmp_path))
    assert done.returncode == 2
    assert "holds other files" in done.stderr
    assert (tmp_path / "mine").read_text() == "dear"
