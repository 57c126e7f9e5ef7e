"""Runs with adapters: layouts, resuming, PEFT folders, what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.checkpoint.lora import adapter_folder
from nemo_cosmos.errors import InputError
from nemo_cosmos.training.run import train
from tests.checkpoint.conftest import LORA
from tests.checkpoint.networks import difference, ours, theirs
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, worst_difference

LAYOUTS = {
    "tp2": (2, ["parallel.tensor=2"]),
    "tp2+sp": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
    "tp2+sp·pp2": (4, ["parallel.tensor=2", "parallel.sequence=true", "parallel.pipeline=2"]),
    "cp2·dp2": (4, ["parallel.context=2"]),
}


def adapters(run: Path, weights: str = "reg", step: int = 3) -> dict[str, Tensor]:
    return load_file(adapter_folder(run / "checkpoints", step, weights) / "adapter_model.safetensors")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, shards: Path, base: Path, adapted: Path, tmp_path: Path) -> None:
    world_size, overrides = LAYOUTS[name]
    cfg = small_run(shards, tmp_path, *LORA, f"model.init_from={base}", *overrides)
    run_processes(world_size, train, cfg, log=tmp_path / "logs")
    loss = max(abs(a - b) / abs(b) for a, b in zip(losses(tmp_path), losses(adapted), strict=True))
    norm = max(abs(a - b) / b for a, b in zip(gradient_norms(tmp_path), gradient_norms(adapted), strict=True))
    regular = worst_difference(adapters(tmp_path), adapters(adapted))
    average = worst_difference(adapters(tmp_path, "ema"), adapters(adapted, "ema"))
    print(f"\n{name:12} loss {loss:.1e}  gradient norm {norm:.1e}  adapters {regular:.1e}  ema {average:.1e}")
    assert loss < 1e-6
    assert norm < 1e-5
    assert regular < 1e-5
    assert average < 1e-5


def gradient_norms(run: Path) -> list[float]:
    return [json.loads(line)["grad_norm"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_resume_on_another_layout(shards: Path, base: Path, adapted: Path, tmp_path: Path) -> None:
    source = tmp_path / "base"
    shutil.copytree(base, source)
    output = tmp_path / "run"
    common = (*LORA, f"model.init_from={source}")
    first = small_run(shards, output, *common, "trainer.max_steps=2", "parallel.tensor=2")
    run_processes(2, train, first, log=output / "logs1")
    shutil.rmtree(source)  # a save holds the frozen weights too
    run_processes(2, train, small_run(shards, output, *common, "parallel.pipeline=2"), log=output / "logs2")
    assert losses(output) == pytest.approx(losses(adapted), rel=1e-6)
    assert worst_difference(adapters(output), adapters(adapted)) < 1e-5
    assert not adapter_folder(output / "checkpoints", 2, "reg").with_suffix(".tmp").exists()


@pytest.mark.usefixtures("nearest_resize")
@pytest.mark.parametrize("weights", ["reg", "ema"])
def test_peft_and_merged_weights(weights: str, base: Path, adapted: Path, tmp_path: Path) -> None:
    convert(base, tmp_path / "base", "diffusers", weights="reg")
    model = CosmosTransformer3DModel.from_pretrained(tmp_path / "base")
    plain = theirs(model)
    folder = adapter_folder(adapted / "checkpoints", 3, weights)  # type: ignore[arg-type]
    with_peft = theirs(PeftModel.from_pretrained(model, str(folder)).eval())
    merged = ours(load_network(adapted, weights=weights))  # type: ignore[arg-type]
    assert difference(plain, merged) > 1e-3
    assert difference(with_peft, merged) < 1e-5
    # The same adapters, merged from their folder into the base's file.
    file = base / "checkpoints" / "iter_000000003_reg_model.pt"
    convert(file, tmp_path / "merged.pt", "pt", adapter=folder)
    shutil.copy(base / "checkpoints" / "model_config.json", tmp_path)
    assert difference(ours(load_network(tmp_path / "merged.pt")), merged) < 1e-6


def test_only_adapters_changed(base: Path, adapted: Path, tmp_path: Path) -> None:
    convert(adapted, tmp_path / "merged.pt", "pt", weights="reg")
    before, after = exported(base, 3), torch.load(tmp_path / "merged.pt", weights_only=True)
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert len(changed) == 4 * 10
    assert all("attn.to_" in name or "block.layer" in name for name in changed)


def set_lora(*overrides: str) -> Callable[[Path, Path], list[str]]:
    return lambda base, folder: [*LORA, f"model.init_from={base}", *overrides]


def incomplete(base: Path, folder: Path) -> list[str]:
    state = exported(base, 3)
    del state["net.final_layer.linear.weight"]
    save_tensors(folder / "part.pt", state)
    return [*LORA, f"model.init_from={folder / 'part.pt'}", "model.strict_init=false"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (set_lora("model.init_from=null"), "model.init_from=null: adapters are trained beside frozen weights"),
        (set_lora("lora.targets=[to_q,proj_out]"), "proj_out; adapters can stand on"),
        (incomplete, "1 missing"),
    ],
)
def test_refuses_to_start(
    overrides: Callable[[Path, Path], list[str]], message: str, shards: Path, base: Path, tmp_path: Path
) -> None:
    cfg = small_run(shards, tmp_path / "run", *overrides(base, tmp_path))
    with pytest.raises(RuntimeError, match=f"InputError: .*{message}|{message}"):
        run_processes(1, train, cfg, log=tmp_path / "logs")
    assert not list((tmp_path / "run").glob("checkpoints/iter_*"))


def test_other_adapters_cannot_continue(shards: Path, base: Path, adapted: Path) -> None:
    for change in ("lora.rank=5", "lora.enabled=false"):
        cfg = small_run(shards, adapted, *LORA, f"model.init_from={base}", "trainer.max_steps=5", change)
        with pytest.raises(InputError, match="was saved with LoraSpec"):
            train(cfg)
