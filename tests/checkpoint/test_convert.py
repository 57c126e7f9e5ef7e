"""Original files, runs and diffusers folders hold the same network."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor
from typer.testing import CliRunner

from nemo_cosmos.checkpoint import load_network, network_config
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.checksums import beside
from nemo_cosmos.cli import app
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.run import train
from tests.checkpoint.networks import difference, ours, theirs
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def without_exports(run: Path, folder: Path) -> Path:
    """A copy of a run that has only its distributed checkpoints."""
    ignore = shutil.ignore_patterns("*_model.pt", "tensorboard", "logs")
    return Path(shutil.copytree(run, folder / "run", ignore=ignore))


@pytest.mark.parametrize("weights", ["reg", "ema"])
def test_distributed_checkpoint_to_original(weights: str, base: Path, tmp_path: Path) -> None:
    run = without_exports(base, tmp_path)
    report = convert(run, tmp_path / "model.pt", "pt", weights=weights)  # type: ignore[arg-type]
    assert report.complete
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert equal(state, exported(base, 3, weights))
    assert {"logvar.1.weight", "net.pos_embedder.seq"} <= state.keys()


@pytest.mark.usefixtures("nearest_resize")
@pytest.mark.parametrize("weights", ["reg", "ema"])
def test_trained_network_in_diffusers(weights: str, base: Path, tmp_path: Path) -> None:
    convert(base, tmp_path / "transformer", "diffusers", weights=weights)  # type: ignore[arg-type]
    model = CosmosTransformer3DModel.from_pretrained(tmp_path / "transformer").eval()
    network = load_network(base, weights=weights)  # type: ignore[arg-type]
    assert difference(theirs(model), ours(network)) < 1e-5


def test_there_and_back(base: Path, tmp_path: Path) -> None:
    convert(base, tmp_path / "run", "run", weights="reg")
    convert(tmp_path / "run" / "checkpoints" / "iter_000000000", tmp_path / "transformer", "diffusers", weights="reg")
    convert(tmp_path / "transformer", tmp_path / "model.pt", "pt")
    state, expected = torch.load(tmp_path / "model.pt", weights_only=True), exported(base, 3)
    # diffusers has no place for the log-variance head.
    assert equal(state, {name: t for name, t in expected.items() if not name.startswith("logvar.")})
    assert network_config(tmp_path / "transformer") == network_config(base) == network_config(tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "bf16.pt", "pt", weights="reg", dtype=torch.bfloat16)
    half = torch.load(tmp_path / "bf16.pt", weights_only=True)
    assert torch.equal(half["net.affline_norm.weight"], expected["net.affline_norm.weight"].bfloat16())


@pytest.mark.parametrize("preset", ["tiny-predict2-text2image", "tiny-predict2-video2world", "tiny-text2world"])
def test_other_families_in_diffusers(preset: str, tmp_path: Path) -> None:
    config = DiTConfig.preset(preset, num_layers=2, hidden_size=64, num_attention_heads=4, text_width=16)
    save_tensors(tmp_path / "model.pt", build_dit(config, seed=1).to_original())
    sizes = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": 16}
    convert(tmp_path / "model.pt", tmp_path / "transformer", "diffusers", preset=preset, overrides=sizes)
    assert network_config(tmp_path / "transformer") == config
    convert(tmp_path / "transformer", tmp_path / "back.pt", "pt")
    found, expected = (torch.load(tmp_path / name, weights_only=True) for name in ("back.pt", "model.pt"))
    assert equal(found, expected)


def test_start_from_any_form(shards: Path, base: Path, tmp_path: Path) -> None:
    convert(base, tmp_path / "run", "run", weights="reg")
    convert(base, tmp_path / "transformer", "diffusers", weights="reg")
    first = []
    for source in (base / "checkpoints" / "iter_000000003_reg_model.pt", tmp_path / "run", tmp_path / "transformer"):
        output = tmp_path / f"from-{source.name}"
        options = [f"model.init_from={source}", "trainer.max_steps=1", "diffusion.loss_add_logvar=false"]
        run_processes(1, train, small_run(shards, output, *options), log=output / "logs")
        first += losses(output)
    assert first == [first[0]] * 3


def test_command(base: Path, tmp_path: Path) -> None:
    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["convert", *arguments])
        if isinstance(result.exception, InputError):
            return f"error: {result.exception}"
        assert result.exception is None, result.exception
        return result.stdout

    target = str(tmp_path / "model.pt")
    assert "90 tensors loaded, 0 missing" in invoke(str(base), target, "--weights", "reg", "--step", "3")
    assert "exists; choose another target" in invoke(str(base), target)
    invoke(str(base), target, "--overwrite", "--dtype", "bf16")
    folder = str(tmp_path / "transformer")
    assert "--to run, --to diffusers or --to pipeline" in invoke(target, folder)
    assert "say which network it holds" in invoke(target, folder, "--to", "diffusers")
    assert "no field" not in invoke(target, folder, "--to", "diffusers", "--preset", "tiny-video2world")
    assert "misshapen" in invoke(target, folder, "--to", "diffusers", "--preset", "tiny-video2world")
    config = json.loads((base / "checkpoints" / "model_config.json").read_text())
    sizes = ("num_layers", "hidden_size", "num_attention_heads", "text_width", "adaln_lora_dim", "max_frames",
             "max_height", "max_width")  # fmt: skip
    settings = [argument for key in sizes for argument in ("--set", f"{key}={config[key]}")]
    invoke(target, folder, "--to", "diffusers", "--preset", "tiny-video2world", *settings)
    assert CosmosTransformer3DModel.from_pretrained(folder).num_parameters() > 0
    assert "give both" in invoke(target, str(tmp_path / "p"), "--to", "pipeline")
    assert "no such save" in invoke(str(base), str(tmp_path / "x.pt"), "--step", "7")
    assert not list(tmp_path.glob(".*"))


def test_networks_that_diffusers_cannot_hold(tmp_path: Path) -> None:
    for kind, message in (("multiview", "several views"), ("camera", "camera rays")):
        preset = f"tiny-video2world-{kind}"
        config = DiTConfig.preset(preset)
        save_tensors(tmp_path / "model.pt", build_dit(config, seed=1).to_original())
        with pytest.raises(InputError, match=message):
            convert(tmp_path / "model.pt", tmp_path / "folder", "diffusers", preset=preset)
    assert not (tmp_path / "folder").exists()


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch /tmp/never",)


def test_broken_checkpoints(base: Path, tmp_path: Path) -> None:
    run = without_exports(base, tmp_path)
    save = run / "checkpoints" / "iter_000000003"
    index = save / "weights" / ".metadata"
    whole = index.read_bytes()
    (save / "weights" / "checksums.json").unlink()
    for broken, message in ((whole[:100], "not a readable index"), (pickle.dumps(Evil()), "refers to posix.system")):
        index.write_bytes(broken)
        with pytest.raises(InputError, match=message):
            open_weights(run)
    index.write_bytes(whole)
    for part in save.glob("weights/*.distcp"):
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    checkpoint = DistributedCheckpoint(save)
    with pytest.raises(InputError, match=r"module\..* cannot be read"):
        for name in checkpoint:
            checkpoint[name]
    index.unlink()
    with pytest.raises(InputError, match="no distributed checkpoint there"):
        open_weights(run)


def test_broken_files(base: Path, tmp_path: Path) -> None:
    state = exported(base, 3)
    shutil.copy(base / "checkpoints" / "model_config.json", tmp_path)
    file = tmp_path / "model.pt"
    removed = [name for name in state if ".block2." in name and "net." in name]
    damaged = {name: tensor for name, tensor in state.items() if name not in removed}
    damaged |= {f"net.extra_{i}": torch.zeros(1) for i in range(23)}
    damaged["net.affline_norm.weight"] = torch.zeros(5)
    save_tensors(file, damaged)
    with pytest.raises(InputError) as caught:
        load_network(file)
    message = str(caught.value)
    assert f"{len(removed)} missing, 23 unexpected, 1 misshapen" in message
    assert "and 3 more" in message
    assert "affline_norm.weight: [5], expected [64]" in message
    beside(file).unlink()
    file.write_bytes(b"PK" + bytes(100))
    with pytest.raises(InputError, match="not a readable tensor file"):
        load_network(file)
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a readable tensor file"):
        load_network(file)
    with pytest.raises(InputError, match="no such file or folder"):
        load_network(tmp_path / "nothing")
    with pytest.raises(InputError, match="no checkpoint"):
        (tmp_path / "empty").mkdir()
        load_network(tmp_path / "empty")


def test_files_of_a_distributed_checkpoint(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(base, tmp_path / "run")
    save = run / "checkpoints" / "iter_000000003"
    tool = str(Path(__file__).parents[2] / "tools" / "convert_distcp.py")
    monkeypatch.setattr(sys, "argv", [tool, str(save)])
    runpy.run_path(tool, run_name="__main__")
    both = torch.load(save / "model_ema_reg.pt", weights_only=True)
    average = torch.load(save / "model_ema_fp32.pt", weights_only=True)
    small = torch.load(run / "checkpoints" / "iter_000000003.pt", weights_only=True)
    regular, averaged = (exported(base, 3, weights) for weights in ("reg", "ema"))
    network = {name for name in regular if name.startswith("net.")}
    assert {k for k in both if not k.startswith("net_ema.")} == set(regular)
    assert all(torch.equal(both[name], regular[name]) for name in network)
    assert all(torch.equal(both[name.replace("net.", "net_ema.", 1)], averaged[name]) for name in network)
    assert all(torch.equal(average[name], averaged[name]) for name in network)
    floating = [name for name in network if averaged[name].is_floating_point()]
    assert any(small[name].dtype == torch.bfloat16 for name in floating)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name="__main__")
    assert ended.value.code == 2
