"""Networks with camera rays: begun from weights without them, trained whole or by adapters, continued."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.adapters import choices, with_adapters
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import read_tensors
from nemo_cosmos.checkpoint.lora import adapter_folder
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig
from nemo_cosmos.training.run import train
from tests.checkpoint.networks import difference, inputs, ours, theirs
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, worst_difference
from tests.parallel.test_resume import train_until
from tests.training.shards import write_shards

CAMERA = "tiny-video2world-camera"
PATCHES = "net.x_embedder.proj.1.weight"
LORA = ("lora.enabled=true", "lora.rank=3", "lora.alpha=6", "lora.also_train=[patch_embedding]", "optimizer.lr=0.01",
        "optimizer.eps=1e-6")  # fmt: skip
FIELDS = {"num_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "text_width": 16, "adaln_lora_dim": 8,
          "max_frames": 16, "max_height": 32, "max_width": 32}  # fmt: skip


@pytest.fixture(scope="module")
def plain_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "plain", shape=(3, 8, 6))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "rays", shape=(3, 8, 6), plucker=True)


@pytest.fixture(scope="module")
def base(plain_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a network without rays."""
    output = tmp_path_factory.mktemp("base") / "run"
    cfg = small_run(plain_shards, output, "trainer.max_steps=2", "optimizer.lr=0.01", "ema.enabled=false")
    run_processes(1, train, cfg, log=output / "logs")
    return output


@pytest.fixture(scope="module")
def adapted(shards: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of adapters and the patch embedding."""
    output = tmp_path_factory.mktemp("adapted") / "run"
    cfg = camera_run(
        shards, output, *LORA, f"model.init_from={base}", "trainer.max_steps=3", "checkpoint.every_n_steps=2"
    )
    run_processes(1, train, cfg, log=output / "logs")
    return output


def camera_run(shards: Path, output: Path, *overrides: str) -> TrainConfig:
    return small_run(shards, output, *overrides, preset=CAMERA)


def rays() -> Tensor:
    return torch.randn(2, 6, 3, 8, 12, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def with_rays(net: CosmosDiT, plucker: Tensor) -> Tensor:
    i = inputs()
    fps = torch.full((2,), 30.0)
    return net(i["x"], i["time"], i["text"], fps=fps, condition_mask=i["mask"], plucker=plucker)


@pytest.mark.parametrize("form", ["file", "run", "diffusers"])
def test_the_first_loss_is_that_of_the_network_without_rays(
    form: str, base: Path, plain_shards: Path, shards: Path, tmp_path: Path
) -> None:
    source = base
    if form == "file":
        source = base / "checkpoints" / "iter_000000002_reg_model.pt"
    elif form == "diffusers":
        convert(base, tmp_path / "diffusers", "diffusers", weights="reg")
        source = tmp_path / "diffusers"
    one = ("trainer.max_steps=1", f"model.init_from={source}", "checkpoint.export=false")
    without, rayed = tmp_path / "without", tmp_path / "with"
    run_processes(1, train, small_run(plain_shards, without, *one), log=without / "logs")
    run_processes(1, train, camera_run(shards, rayed, *one), log=rayed / "logs")
    assert losses(rayed) == pytest.approx(losses(without), rel=1e-6)
    said = " ".join((rayed / "logs" / "rank0.log").read_text().split())
    assert "grown: x_embedder.proj.1.weight from 72 to 96 columns, 68 to 91 of plucker are zero" in said
    assert "grown" not in (without / "logs" / "rank0.log").read_text()


def test_a_converted_file_is_the_same_network(base: Path, tmp_path: Path) -> None:
    report = convert(base, tmp_path / "camera.pt", "pt", weights="reg", preset=CAMERA, overrides=FIELDS)
    assert report.complete and "are zero" in str(report)
    net = load_network(tmp_path / "camera.pt", preset=CAMERA, **FIELDS)
    expected = ours(load_network(base, weights="reg"))
    torch.testing.assert_close(with_rays(net, rays()), expected, atol=1e-6, rtol=1e-6)
    with pytest.raises(InputError, match="nemo-cosmos convert --preset"):
        load_network(base / "checkpoints" / "iter_000000002_reg_model.pt", preset=CAMERA, **FIELDS)


def test_rays_that_are_missing_or_too_many_are_refused(plain_shards: Path, shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(InputError, match=r"'clip-000' and 7 more of 8 have no camera rays.*--layout dl3dv"):
        train(camera_run(plain_shards, output))
    with pytest.raises(InputError, match=r"'clip-000' and 7 more of 8 have camera rays.*camera_control_7b_dl3dv"):
        train(small_run(shards, output))
    mixed = write_shards(tmp_path / "mixed", shape=(3, 8, 6), plucker=True, without_rays=("clip-005",))
    with pytest.raises(InputError, match="'clip-005' of 8 has no camera rays"):
        train(camera_run(mixed, output))
    assert not output.exists()


def test_adapters_without_the_patch_embedding_never_see_rays(base: Path, shards: Path, tmp_path: Path) -> None:
    words = (*LORA, f"model.init_from={base}")
    with pytest.raises(InputError, match=r"set lora.also_train=\[patch_embedding\]"):
        train(camera_run(shards, tmp_path / "run", *words, "lora.also_train=[]"))
    with pytest.raises(InputError, match="may be trained patch_embedding, time_embedding, final_layer"):
        train(camera_run(shards, tmp_path / "run", *words, "lora.also_train=[patches]"))


def test_adapters_and_patch_embedding_are_trained_and_exported(base: Path, adapted: Path, tmp_path: Path) -> None:
    merged, before = open_weights(adapted, weights="reg").state, exported(base, 2)
    name = PATCHES.removeprefix("net.")
    assert merged[name][:, 68:92].abs().min(0).values.sum() > 0
    assert not torch.equal(merged[name][:, :68], before[PATCHES][:, :68])
    frozen = "final_layer.linear.weight"
    assert torch.equal(merged[frozen], before[f"net.{frozen}"])
    for weights in ("reg", "ema"):
        folder = adapter_folder(adapted / "checkpoints", 3, weights)  # type: ignore[arg-type]
        tensors = load_file(folder / "adapter_model.safetensors")
        state = open_weights(adapted, weights=weights).state  # type: ignore[arg-type]
        assert torch.equal(tensors["base_model.model.patch_embed.proj.weight"], state[name])
        # The base without rays, the folder beside it.
        convert(base, tmp_path / f"{weights}.pt", "pt", weights="reg", preset=CAMERA, overrides=FIELDS, adapter=folder)
        found = read_tensors(tmp_path / f"{weights}.pt")
        assert all(torch.equal(found[f"net.{one}"], state[one]) for one in state if f"net.{one}" in found)
        net = load_network(
            base / "checkpoints" / "iter_000000002_reg_model.pt", preset=CAMERA, adapter=folder, **FIELDS
        )
        expected = with_rays(load_network(adapted, weights=weights), rays())  # type: ignore[arg-type]
        assert difference(with_rays(net, rays()), expected) < 1e-6
    assert difference(with_rays(net, 3 * rays()), expected) > 1e-3


def test_part_of_what_was_trained_whole(base: Path, adapted: Path) -> None:
    config = DiTConfig.preset(CAMERA, **FIELDS)
    folder, state = adapter_folder(adapted / "checkpoints", 3, "reg"), exported(base, 2)
    whole = with_adapters(config, state, choices(folder))[PATCHES]
    half = with_adapters(config, state, choices(f"{folder}:0.5"))[PATCHES]
    torch.testing.assert_close(half[:, 68:92], whole[:, 68:92] / 2)
    torch.testing.assert_close(half[:, :68], (whole[:, :68] + state[PATCHES][:, :68]) / 2)


@pytest.mark.usefixtures("nearest_resize")
def test_peft_loads_what_was_trained_whole(plain_shards: Path, base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (*LORA, f"model.init_from={base}", "trainer.max_steps=2", "lora.also_train=[patch_embedding,final_layer]")
    run_processes(1, train, small_run(plain_shards, run, *words), log=run / "logs")
    convert(base, tmp_path / "base", "diffusers", weights="reg")
    model = CosmosTransformer3DModel.from_pretrained(tmp_path / "base")
    folder = adapter_folder(run / "checkpoints", 2, "reg")
    with_peft = theirs(PeftModel.from_pretrained(model, str(folder)).eval())
    assert difference(with_peft, ours(load_network(run, weights="reg"))) < 1e-5
    assert difference(with_peft, ours(load_network(base, weights="reg"))) > 1e-3


def test_adapters_of_rays_do_not_fit_a_network_without(base: Path, adapted: Path, tmp_path: Path) -> None:
    folder = adapter_folder(adapted / "checkpoints", 3, "reg")
    with pytest.raises(InputError, match=r"patch_embed.proj.weight \[64, 96\], expected \[64, 72\]"):
        convert(base, tmp_path / "merged.pt", "pt", weights="reg", adapter=folder)
    assert not list(tmp_path.iterdir())


def test_adapters_continue_bit_by_bit(shards: Path, base: Path, adapted: Path, tmp_path: Path) -> None:
    """In bf16, killed, on two processes that split the optimizer; another choice of parts is refused."""
    words = (
        *LORA,
        f"model.init_from={base}",
        "checkpoint.every_n_steps=2",
        "trainer.max_steps=4",
        "trainer.precision=bf16",
    )
    reference, run = tmp_path / "reference", tmp_path / "run"
    run_processes(2, train, camera_run(shards, reference, *words), log=tmp_path / "logs1")
    with pytest.raises(RuntimeError, match="failed"):
        run_processes(2, train_until, camera_run(shards, run, *words), 3, log=tmp_path / "logs2")
    run_processes(2, train, camera_run(shards, run, *words), log=tmp_path / "logs3")
    assert losses(run) == losses(reference)
    for weights in ("reg", "ema"):
        found, expected = (
            load_file(adapter_folder(one / "checkpoints", 4, weights) / "adapter_model.safetensors")  # type: ignore[arg-type]
            for one in (run, reference)
        )
        assert worst_difference(found, expected) == 0
    with pytest.raises(InputError, match=r"was saved with LoraSpec.*also_train=.*patch_embedding"):
        train(
            camera_run(
                shards, shutil.copytree(run, tmp_path / "other"), *words, "lora.also_train=[]", "trainer.max_steps=5"
            )
        )


def test_adapters_on_several_ranks(shards: Path, base: Path, adapted: Path, tmp_path: Path) -> None:
    words = (*LORA, f"model.init_from={base}", "trainer.max_steps=3")
    layout = ("parallel.tensor=2", "parallel.sequence=true", "parallel.pipeline=2")
    run_processes(4, train, camera_run(shards, tmp_path, *words, *layout), log=tmp_path / "logs")
    assert losses(tmp_path) == pytest.approx(losses(adapted), rel=1e-6)
    found, expected = (
        load_file(adapter_folder(run / "checkpoints", 3, "ema") / "adapter_model.safetensors")
        for run in (tmp_path, adapted)
    )
    assert worst_difference(found, expected) < 1e-5


def test_all_weights_in_bf16_continue_on_another_layout(shards: Path, base: Path, tmp_path: Path) -> None:
    words = (f"model.init_from={base}", "trainer.precision=bf16", "trainer.max_steps=4", "checkpoint.every_n_steps=2")
    reference, run = tmp_path / "reference", tmp_path / "run"
    run_processes(1, train, camera_run(shards, reference, *words), log=tmp_path / "logs1")
    with pytest.raises(RuntimeError, match="failed"):
        run_processes(1, train_until, camera_run(shards, run, *words), 3, log=tmp_path / "logs2")
    shutil.copytree(run, tmp_path / "elsewhere")
    run_processes(1, train, camera_run(shards, run, *words), log=tmp_path / "logs3")
    assert losses(run) == losses(reference)
    assert worst_difference(exported(run, 4), exported(reference, 4)) == 0
    run_processes(
        2, train, camera_run(shards, tmp_path / "elsewhere", *words, "parallel.tensor=2"), log=tmp_path / "logs4"
    )
    assert losses(tmp_path / "elsewhere") == pytest.approx(losses(reference), rel=4e-3)
