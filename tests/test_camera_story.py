"""Camera control from beginning to end: rooms, preparation, training, a video along a trajectory; and its figures."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.cli import app
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses

ROOT = Path(__file__).parents[1]
SIZE = (48, 80)
SMALL = "{num_layers: 2, hidden_size: 64, num_attention_heads: 4, text_width: %d, adaln_lora_dim: 8, max_frames: 16}"


def script(monkeypatch: pytest.MonkeyPatch, path: str, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{path} ended with {end.code}"


def test_from_rooms_to_a_video_along_a_trajectory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sample-data", "dl3dv", "rooms", "--scenes", 2, "--size", "36x64", "--supersample", 1]
    made = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    height, width = SIZE
    script(
        monkeypatch, "tools/prepare_dataset.py", "--dataset_path", "rooms", "--output_path", "samples",
        "--path_to_caption_dict", "rooms/captions.pickle", "--height", height, "--width", width, "--tiny",
        "--workers", 0,
    )  # fmt: skip
    assert len(list(Path("samples").glob("*.plucker_embeddings.pth"))) == 2
    text_width = torch.load("samples/0.t5_text_embeddings.pth", weights_only=True).shape[1]
    tiny = SMALL % text_width
    base = DiTConfig.preset("tiny-video2world", num_layers=2, hidden_size=64, adaln_lora_dim=8, text_width=text_width,
                            max_frames=16)  # fmt: skip
    save_tensors(tmp_path / "base.pt", build_dit(base, seed=1).to_original())
    cfg = load_config(
        TrainConfig,
        [
            "experiment=camera_control_7b_dl3dv", "model.preset=tiny-video2world-camera", f"model.overrides={tiny}",
            "model.init_from=base.pt", "data.path=samples", "output_dir=run", "data.num_workers=0",
            "parallel.tensor=1", "parallel.context=1", "parallel.sequence=false", "parallel.recompute=none",
            "trainer.precision=fp32", "trainer.max_steps=3", "optimizer.lr=1e-3", "data.global_batch=2",
        ],
    )  # fmt: skip
    run_processes(1, train, cfg, log=tmp_path / "logs")
    assert len(losses(tmp_path / "run")) == 3
    tiny_models = {name: _only(tmp_path / "samples", name) for name in ("tokenizer", "text_encoder")}
    poses = json.loads(_transforms(tmp_path / "rooms"))
    (tmp_path / "transforms.json").write_text(json.dumps(poses))
    clip = next((tmp_path / "video_processing_cache").rglob("*.mp4"))
    for name, flags in (
        ("file", ["--camera_extrinsics_path", "transforms.json", "--num_input_frames", 9]),
        ("move", ["--trajectory", "orbit_left:0.3"]),
    ):
        script(
            monkeypatch, "examples/camera_control.py", "--nemo_checkpoint", "run", "--checkpoint_dir", ".",
            "--conditioned_image_or_video_path", clip, *flags, "--prompt", "A room.", "--video_save_name", name,
            "--tokenizer_dir", tiny_models["tokenizer"], "--t5_cache_dir", tiny_models["text_encoder"],
            "--num_steps", 2, "--guidance", 0, "--disable_guardrail",
        )  # fmt: skip
        info = probe(tmp_path / "outputs" / f"{name}.mp4")
        assert (info.frames, info.height, info.width, info.fps) == (57, height, width, pytest.approx(7))
        assert (tmp_path / "outputs" / f"{name}_trajectory.png").is_file()
    one, other = (read_frames(tmp_path / "outputs" / f"{name}.mp4", keep_damaged=True) for name in ("file", "move"))
    assert not torch.equal(one, other)


def _only(folder: Path, name: str) -> Path:
    """The tiny model that the preparation made."""
    found = [path for path in (folder / name, *folder.parent.rglob(f"*{name}*")) if path.is_dir()]
    assert found, f"no {name} below {folder.parent}: {sorted(folder.parent.rglob('*'))[:20]}"
    return found[0]


def _transforms(rooms: Path) -> str:
    import zipfile

    file = sorted(rooms.rglob("*.zip"))[0]
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("transforms.json"))
        return archive.read(name).decode()


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["reprojection"], r"reprojection: \d\.\de-\d\d of the distance at most, \d{6} points"),
        (["step0"], r"step0: outputs differ by 0\.0e\+00 .*from 72 to 96 columns, 68 to 91 of plucker are zero"),
        (["controllability", "--size", "smoke", "--workers", "1"], r"controllability: 2 held-out .* margin -?\d"),
    ],
)
def test_figures(
    words: list[str], pattern: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    script(monkeypatch, "tools/camera_checks.py", *words, "--device", "cpu")
    assert re.search(pattern, shown := capsys.readouterr().out), shown
