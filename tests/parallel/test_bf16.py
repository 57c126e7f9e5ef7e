"""What users run: bf16 weights, fp32 optimizer, average and log-variance; trained, saved, resumed, exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import MODEL_CONFIG, read_tensors
from nemo_cosmos.checkpoint.sources import RunWeights, open_weights, read_model_config
from nemo_cosmos.data.video import read_frames
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import GenerationJob, run_job
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer
from nemo_cosmos.models.tokenizer.pretrained import save_tokenizer
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, worst_difference
from tests.parallel.test_resume import relative, train_until
from tests.training.shards import write_shards

BF16 = "trainer.precision=bf16"
TOLERANCE = 2e-3
"""Of a loss, relative; bf16 rounds at 4e-3, and a loss is the mean over thousands of elements."""
LAYOUTS = {
    "tp2+sp": (2, ["parallel.tensor=2", "parallel.sequence=true"]),
    "cp2": (2, ["parallel.context=2"]),
    "dp2": (2, []),
    "dp2 plain": (2, ["parallel.distributed_optimizer=false"]),
    "tp2·pp2": (4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    "pp2+vp2": (2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(5, 10, 6))


@pytest.fixture(scope="module")
def one(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven steps in one process."""
    output = tmp_path_factory.mktemp("one") / "run"
    run_processes(1, train, small_run(shards, output, BF16, "trainer.max_steps=7"), log=output / "logs")
    return output


def check_export(run: Path, step: int) -> None:
    """Exported weights are the fp32 main parameters rounded to bf16; the average and the log-variance are fp32."""
    checkpoints = run / "checkpoints"
    regular, average = exported(run, step), exported(run, step, "ema")
    save = DistributedCheckpoint(checkpoints / f"iter_{step:09d}")
    main = RunWeights(MainParameters(save), read_model_config(checkpoints), "reg")
    trained = [name for name in main if not name.startswith("logvar.")]
    assert len(trained) > 50
    for name in trained:
        assert regular[f"net.{name}"].dtype == torch.bfloat16
        assert torch.equal(regular[f"net.{name}"], main[name].bfloat16())
        assert average[f"net.{name}"].dtype == torch.float32
        assert not torch.equal(average[f"net.{name}"], average[f"net.{name}"].bfloat16().float())
    assert regular["logvar.1.weight"].dtype == average["logvar.1.weight"].dtype == torch.float32
    assert regular["logvar.1.weight"].any()


class MainParameters(DistributedCheckpoint):
    """A save that gives the optimizer's main parameters in place of the weights."""

    def __init__(self, save: DistributedCheckpoint) -> None:
        super().__init__(save.folder)

    def __getitem__(self, name: str) -> torch.Tensor:
        return super().__getitem__(f"optimizer.state.param.{name}")


def test_export(one: Path) -> None:
    check_export(one, 7)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str, shards: Path, one: Path, tmp_path: Path) -> None:
    world_size, overrides = LAYOUTS[name]
    run_processes(world_size, train, small_run(shards, tmp_path, BF16, *overrides), log=tmp_path / "logs")
    difference = relative(losses(tmp_path), losses(one)[:5])
    print(f"\n{name:10} loss {difference:.1e}")
    assert difference < TOLERANCE
    check_export(tmp_path, 5)


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_run_continues(world_size: int, shards: Path, one: Path, tmp_path: Path) -> None:
    """Bit by bit; two processes split the optimizer."""
    cfg = small_run(shards, tmp_path, BF16, "trainer.max_steps=7", "checkpoint.every_n_steps=3")
    with pytest.raises(RuntimeError, match="failed"):
        run_processes(world_size, train_until, cfg, 5, log=tmp_path / "logs1")
    run_processes(world_size, train, cfg, log=tmp_path / "logs2")
    reference = one
    if world_size > 1:
        reference = tmp_path / "reference"
        uninterrupted = small_run(shards, reference, BF16, "trainer.max_steps=7")
        run_processes(world_size, train, uninterrupted, log=tmp_path / "logs3")
    assert losses(tmp_path) == losses(reference)
    for weights in ("reg", "ema"):
        assert worst_difference(exported(tmp_path, 7, weights), exported(reference, 7, weights)) == 0


def test_resume_on_another_layout(shards: Path, one: Path, tmp_path: Path) -> None:
    layouts = (["parallel.tensor=2", "parallel.pipeline=2"], ["parallel.context=2"])
    for steps, overrides in zip((4, 7), layouts, strict=True):
        cfg = small_run(shards, tmp_path, BF16, f"trainer.max_steps={steps}", *overrides)
        run_processes(4, train, cfg, log=tmp_path / f"logs{steps}")
    assert relative(losses(tmp_path), losses(one)) < TOLERANCE


LORA = ("lora.enabled=true", "lora.rank=3", "lora.alpha=6", "optimizer.lr=0.01")


def test_adapters(shards: Path, one: Path, tmp_path: Path) -> None:
    """Beside an exported bf16 file; killed, resumed, merged, converted."""
    base = one / "checkpoints" / "iter_000000007_reg_model.pt"
    reference, run = tmp_path / "reference", tmp_path / "run"
    options = (BF16, *LORA, f"model.init_from={base}", "checkpoint.every_n_steps=2", "trainer.max_steps=4")
    run_processes(2, train, small_run(shards, reference, *options), log=tmp_path / "logs1")
    with pytest.raises(RuntimeError, match="failed"):
        run_processes(2, train_until, small_run(shards, run, *options), 3, log=tmp_path / "logs2")
    run_processes(2, train, small_run(shards, run, *options), log=tmp_path / "logs3")
    assert losses(run) == losses(reference)
    before, regular, average = (
        open_weights(path, weights=weights).state
        for path, weights in ((base, "reg"), (run, "reg"), (run, "ema"))  # type: ignore[arg-type]
    )
    adapted = "net.blocks.block0.blocks.0.block.attn.to_q.0.weight"
    for merged in (regular, average):
        assert not torch.equal(merged[adapted.removeprefix("net.")].float(), before[adapted].float())
    other = "net.x_embedder.proj.1.weight"
    assert torch.equal(regular[other.removeprefix("net.")], before[other])
    convert(run, tmp_path / "merged.pt", "pt", weights="reg")
    converted = read_tensors(tmp_path / "merged.pt")
    assert torch.equal(converted[adapted], regular[adapted.removeprefix("net.")])
    assert converted["logvar.1.weight"].dtype == torch.float32


def test_diffusers_and_back(one: Path, tmp_path: Path) -> None:
    for weights, dtype in (("reg", torch.bfloat16), ("ema", torch.float32)):
        convert(one, tmp_path / weights, "diffusers", weights=weights)  # type: ignore[arg-type]
        convert(tmp_path / weights, tmp_path / f"{weights}.pt", "pt")
        found, expected = read_tensors(tmp_path / f"{weights}.pt"), exported(one, 7, weights)
        for name, tensor in found.items():
            assert torch.equal(tensor, expected[name])
        assert found["net.x_embedder.proj.1.weight"].dtype == dtype


def test_generate(one: Path, tmp_path: Path) -> None:
    """Regular weights and average, in bf16 as on a GPU; close to fp32 arithmetic with the same weights."""
    torch.manual_seed(0)
    save_tokenizer(tmp_path / "tokenizer", build_tokenizer("CV4x8x8-360p", channels=8), name="tiny")
    save_tiny_text_encoder(tmp_path / "text", width=16)
    config = GenerationConfig(height=32, width=48, num_frames=9, num_steps=3, crf=0, fps=8)
    request = GenerationRequest("video", "a red disc moves left", None)
    # Outside of the run, whose latents no tokenizer made.
    shutil.copy(one / "checkpoints" / MODEL_CONFIG, tmp_path)
    videos = {}
    for weights, dtype in (("reg", torch.bfloat16), ("ema", torch.bfloat16), ("ema", torch.float32)):
        file = Path(shutil.copy(one / "checkpoints" / f"iter_000000007_{weights}_model.pt", tmp_path))
        output = tmp_path / f"{weights} {dtype}"
        text = str(tmp_path / "text")
        run_job(GenerationJob(file, tmp_path / "tokenizer", output, config, text_encoder=text, dtype=dtype), [request])
        videos[weights, dtype] = read_frames(output / "video.mp4").float()
    average = videos["ema", torch.bfloat16]
    assert (average - videos["ema", torch.float32]).abs().mean() < 2
    assert not torch.equal(average, videos["reg", torch.bfloat16])


@pytest.mark.parametrize(("first", "second"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_resume_in_another_precision(first: str, second: str, shards: Path, one: Path, tmp_path: Path) -> None:
    for steps, precision in ((4, first), (7, second)):
        cfg = small_run(shards, tmp_path, f"trainer.precision={precision}", f"trainer.max_steps={steps}")
        run_processes(1, train, cfg, log=tmp_path / f"logs{steps}")
    assert relative(losses(tmp_path), losses(one)) < 5 * TOLERANCE
