"""One exported file with regular and averaged weights, as the commands of Cosmos-Predict2 save and read it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import small_run
from tests.training.shards import write_shards

PRESET = "tiny-predict2-text2image"
JOINT = ["checkpoint.export_layout=joint", "checkpoint.every_n_steps=2", "checkpoint.keep=1", "trainer.max_steps=4",
         "trainer.precision=bf16"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    shards = write_shards(folder / "shards", shape=(1, 8, 8))
    run_processes(1, train, small_run(shards, folder / "run", *JOINT, preset=PRESET), log=folder / "logs")
    return folder / "run"


def test_the_file_holds_both_networks_whole(run: Path) -> None:
    folder = run / "checkpoints"
    assert (folder / "latest_checkpoint.txt").read_text() == "iter_000000004.pt\n"
    assert sorted(file.name for file in (folder / "model").glob("*.pt")) == ["iter_000000004.pt"]
    assert not list(folder.glob("*_model.pt"))
    content = torch.load(folder / "model" / "iter_000000004.pt", weights_only=True)
    regular = {name for name in content if name.startswith("net.")}
    assert {f"net_ema.{name.removeprefix('net.')}" for name in regular} == set(content) - regular
    assert content["net.x_embedder.proj.1.weight"].dtype == torch.bfloat16
    assert content["net_ema.x_embedder.proj.1.weight"].dtype == torch.float32
    assert content["net.accum_iteration"].dtype == torch.int64


@pytest.mark.parametrize("weights", ["reg", "ema"])
def test_each_network_is_read_from_the_run_and_from_the_file(run: Path, weights: str) -> None:
    file = run / "checkpoints" / "model" / "iter_000000004.pt"
    prefix = "net_ema." if weights == "ema" else "net."
    content = torch.load(file, weights_only=True)
    for path in (run, run / "checkpoints" / "iter_000000004", file):
        source = open_weights(path, weights=weights)  # type: ignore[arg-type]
        net = build_dit(source.require_config())
        net.load_original(source.state)
        for name, tensor in net.to_original().items():
            assert torch.equal(tensor, content[prefix + name.removeprefix("net.")].to(tensor.dtype)), name
    assert source.config is not None and source.config.hidden_size == 64


def test_a_run_without_an_average_says_so(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(1, 8, 8))
    cfg = small_run(shards, tmp_path / "run", *JOINT, "ema.enabled=false", "trainer.max_steps=1", preset=PRESET)
    run_processes(1, train, cfg, log=tmp_path / "logs")
    open_weights(tmp_path / "run", weights="reg")
    with pytest.raises(InputError, match="kept no average"):
        open_weights(tmp_path / "run", weights="ema")


def test_presets_of_the_size_are_found_beside_the_file(run: Path) -> None:
    assert open_weights(run / "checkpoints/model/iter_000000004.pt").config == DiTConfig.preset(
        PRESET,
        num_layers=4, hidden_size=64, num_attention_heads=4, text_width=16, adaln_lora_dim=8,
        max_frames=16, max_height=32, max_width=32,
    )  # fmt: skip
