"""Every shipped experiment of a tokenizer: its network at full size, and a training step of it at tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cosmos.config import experiment_names, load_config
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.trainer import train

PARAMETERS = {
    "CV4x8x8-360p": 110_208_816,
    "CV8x8x8-720p": 105_653_696,
    "DV4x8x8-360p": 112_619_766,
    "DV8x16x16-720p": 110_898_294,
    "CV4x8x8-Tiny": 2_565_144,
}
"""Of the released networks and of the tokenizer of nemo-cosmos-tiny, which may have three million."""
TINY = "{channels: 4, channels_mult: [1, 2, 2], num_res_blocks: 1, chunk_frames: 9}"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for i in range(2):
        write_mp4(folder / f"{i}.mp4", torch.randint(0, 256, (3, 9, 32, 32), dtype=torch.uint8), 8.0)
    return folder


@pytest.mark.parametrize("name", [name for name in experiment_names("tokenizer_train") if name != "demo_tokenizer"])
def test_full_size(name: str) -> None:
    config = load_config(TokenizerTrainConfig, [f"experiment={name}"], root="tokenizer_train")
    with torch.device("meta"):
        network = build_tokenizer(config.model.preset, **config.model.overrides)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == PARAMETERS[config.model.overrides.get("name", config.model.preset)]


@pytest.mark.parametrize("name", experiment_names("tokenizer_train"))
def test_tiny_step(name: str, clips: Path, tmp_path: Path) -> None:
    overrides = [
        f"experiment={name}", f"data.train={clips}/*.mp4", "data.val=null", f"output_dir={tmp_path}",
        f"model.overrides={TINY}", "model.init_from=null", "data.num_frames=9", "data.crop=[32,32]",
        "data.resolution=null", "data.num_workers=0", "data.micro_batch=1", "data.global_batch=2",
        "loss.perceptual.weights=random", "trainer.device=cpu", "trainer.max_steps=1", "trainer.compile=false",
        "validation.lpips_weights=null", "checkpoint.export_jit=false", "checkpoint.statistics_clips=0",
    ]  # fmt: skip
    train(load_config(TokenizerTrainConfig, overrides, root="tokenizer_train"))
    assert (tmp_path / "checkpoints" / "iter_000000001.pt").is_file()
    assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 1
