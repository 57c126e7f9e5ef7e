"""Networks of several views in other forms: released files, joint files, run folders, adapters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner

from nemo_cosmos.checkpoint import load_network, network_config
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.cli import app
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import SMALL, exported, small_run
from tests.training.shards import write_shards

PREDICT1, PREDICT2 = "tiny-video2world-multiview", "tiny-predict2-multiview"
SIZES = yaml.safe_load(SMALL)
RIGS = {PREDICT1: [0, 1, 2, 3, 4, 5], PREDICT2: [4, 5, 0, 1, 2]}
VIEWS = {
    PREDICT1: {"view_embeddings.weight": (6, 6), "repeat_frame_embedding.weight": (6, 1),
               "repeat_frame_embedding.bias": (6,)},
    PREDICT2: {"view_embeddings.weight": (7, 7)},
}  # fmt: skip
TABLES = ("seq", "dim_spatial_range", "dim_temporal_range")


def state_of(file: Path) -> dict[str, Tensor]:
    return torch.load(file, weights_only=True)


def require_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def released(preset: str, seed: int = 0, **sizes: int) -> dict[str, Tensor]:
    """Tensors of a released file; no two of one shape are alike, biases that start at zero included."""
    state = build_dit(DiTConfig.preset(preset, **{**SIZES, **sizes}), seed=seed).to_original()
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) if "pos_emb" not in name and tensor.ndim else tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("preset", [PREDICT1, PREDICT2, "predict1-7b-text2world-multiview"])
def test_a_released_file_as_run_folder_and_back(preset: str, dtype: torch.dtype, tmp_path: Path) -> None:
    expected = {
        name: tensor.to(dtype) if tensor.is_floating_point() and tensor.ndim and "pos_emb" not in name else tensor
        for name, tensor in released(preset).items()
    }
    save_tensors(tmp_path / "model.pt", expected)
    convert(tmp_path / "model.pt", tmp_path / "run", "run", preset=preset, overrides=SIZES)
    assert network_config(tmp_path / "run") == DiTConfig.preset(preset, **SIZES)
    convert(tmp_path / "run", tmp_path / "back.pt", "pt", weights="reg")
    require_equal(state_of(tmp_path / "back.pt"), expected)


@pytest.mark.parametrize("views", [1, 3, 7, 12])
def test_tables_of_each_number_of_views(views: int, tmp_path: Path) -> None:
    """A release has them for every number that the network may be given; the tables that a file has are kept."""
    state = released(PREDICT2, num_views=views)
    tables = {name for name in state if "pos_embedder" in name}
    prefixes = [f"net.pos_embedder_options.n_cameras_{n}." for n in range(1, views + 1)]
    assert tables == {f"{prefix}{table}" for prefix in prefixes for table in TABLES}
    assert state["net.view_embeddings.weight"].shape == (views, 7)
    state["net.pos_embedder_options.n_cameras_1.seq"] = state["net.pos_embedder_options.n_cameras_1.seq"] + 0.5
    save_tensors(tmp_path / "model.pt", state)
    sizes = {**SIZES, "num_views": views}
    convert(tmp_path / "model.pt", tmp_path / "run", "run", preset=PREDICT2, overrides=sizes)
    convert(tmp_path / "model.pt", tmp_path / "same.pt", "pt", preset=PREDICT2, overrides=sizes)
    require_equal(state_of(tmp_path / "same.pt"), state)
    convert(tmp_path / "run", tmp_path / "back.pt", "pt", weights="reg")
    back = state_of(tmp_path / "back.pt")
    assert back.keys() == state.keys()
    require_equal(
        {k: v for k, v in back.items() if k not in tables}, {k: v for k, v in state.items() if k not in tables}
    )


@pytest.fixture(scope="module", params=[PREDICT1, PREDICT2])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on all cameras, in two tensor ranks, without the files that training exports."""
    preset, folder = request.param, tmp_path_factory.mktemp("views")
    shards = write_shards(folder / "shards", shape=(2, 4, 6), rigs=[RIGS[preset]], count=2)
    cfg = small_run(shards, folder / "run", "data.global_batch=2", "trainer.max_steps=2", "parallel.tensor=2",
                    preset=preset)  # fmt: skip
    run_processes(2, train, cfg, log=folder / "logs")
    return folder / "run"


def preset_of(run: Path) -> str:
    return PREDICT1 if network_config(run).num_views == 6 else PREDICT2


def test_a_trained_run(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(
        trained, tmp_path / "run", ignore=shutil.ignore_patterns("*_model.pt", "tensorboard", "logs")
    )
    regular, averaged = (exported(trained, 2, kind) for kind in ("reg", "ema"))
    assert {name: tuple(regular[f"net.{name}"].shape) for name in VIEWS[preset_of(run)]} == VIEWS[preset_of(run)]
    assert any(not torch.equal(regular[name], averaged[name]) for name in regular if "embedding" in name)
    for weights, expected in (("reg", regular), ("ema", averaged)):
        convert(run, tmp_path / f"{weights}.pt", "pt", weights=weights)  # type: ignore[arg-type]
        require_equal(state_of(tmp_path / f"{weights}.pt"), expected)
        with torch.no_grad():
            network = load_network(run, weights=weights)  # type: ignore[arg-type]
        require_equal(network.to_original(), {k: v for k, v in expected.items() if not k.startswith("logvar.")})


def test_a_joint_file_and_back(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "iter_000000002.pt"
    result = CliRunner().invoke(app, ["convert", str(trained), str(file), "--weights", "both"])
    assert result.exception is None, result.exception
    joint, regular, averaged = state_of(file), exported(trained, 2, "reg"), exported(trained, 2, "ema")
    require_equal({name: tensor for name, tensor in joint.items() if not name.startswith("net_ema.")}, regular)
    moved = {name.replace("net_ema.", "net.", 1): t for name, t in joint.items() if name.startswith("net_ema.")}
    require_equal(moved, {name: tensor for name, tensor in averaged.items() if name.startswith("net.")})
    for weights, expected in (("reg", regular), ("ema", averaged)):
        words = ["--preset", preset_of(trained), *(w for k, v in SIZES.items() for w in ("--set", f"{k}={v}"))]
        folder = tmp_path / weights
        result = CliRunner().invoke(
            app, ["convert", str(file), str(folder), "--to", "run", "--weights", weights, *words]
        )
        assert result.exception is None, result.exception
        convert(folder, tmp_path / f"{weights}.pt", "pt", weights="reg")
        found = state_of(tmp_path / f"{weights}.pt")
        parameters = {name for name in expected if name.startswith("net.")}
        require_equal({name: found[name] for name in parameters}, {name: expected[name] for name in parameters})


def test_adapters_of_a_run(trained: Path, tmp_path: Path) -> None:
    """A PEFT folder that training wrote, merged into the base, is the run's own merged network."""
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[RIGS[preset_of(trained)]], count=2)
    convert(trained, tmp_path / "base.pt", "pt", weights="reg")
    shutil.copy(trained / "checkpoints" / "model_config.json", tmp_path)
    cfg = small_run(shards, tmp_path / "run", "data.global_batch=2", "trainer.max_steps=2", "lora.enabled=true",
                    "lora.rank=3", "lora.alpha=6", "optimizer.lr=0.01", f"model.init_from={tmp_path / 'base.pt'}",
                    preset=preset_of(trained))  # fmt: skip
    run_processes(1, train, cfg, log=tmp_path / "logs")
    base = state_of(tmp_path / "base.pt")
    for weights in ("reg", "ema"):
        convert(tmp_path / "run", tmp_path / f"{weights}.pt", "pt", weights=weights)  # type: ignore[arg-type]
        adapter = tmp_path / "run" / "checkpoints" / f"iter_000000002_{weights}_lora"
        convert(tmp_path / "base.pt", tmp_path / f"{weights}_merged.pt", "pt", adapter=str(adapter))
        found, merged = (state_of(tmp_path / f"{weights}{end}.pt") for end in ("", "_merged"))
        require_equal({k: merged[k] for k in merged if k in found}, {k: found[k] for k in merged if k in found})
        changed = {name for name in merged if not torch.equal(merged[name], base[name])}
        assert changed and not any("view" in name or "repeat_frame" in name for name in changed)
        assert merged.keys() == base.keys()
