"""Images of several sizes and shapes in one dataset: by buckets, one after another, and packed into sequences."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import nemo_cosmos as nc
from nemo_cosmos.data.manifest import merge_manifest
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, weight_defaults
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.text import save_tiny_text_encoder
from nemo_cosmos.models.tokenizer import build_tokenizer, save_tokenizer
from nemo_cosmos.training.run import train
from nemo_cosmos.training.samples import open_samples, refuse_packing, tell_shapes
from tests.parallel.processes import run_processes
from tests.parallel.runs import exported, losses, small_run, train_and_capture, worst_difference
from tests.training.shards import write_shards

IMAGE = "tiny-predict2-text2image"
LANDSCAPE, PORTRAIT, SQUARE = (1, 6, 10), (1, 10, 6), (1, 8, 8)
MIXED = [
    LANDSCAPE,
    PORTRAIT,
    SQUARE,
    LANDSCAPE,
    PORTRAIT,
    LANDSCAPE,
    LANDSCAPE,
    PORTRAIT,
    SQUARE,
    LANDSCAPE,
    LANDSCAPE,
]
"""Six, three and two samples, unsorted: with batches of four, an epoch of four steps."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("mixed") / "shards", shapes=MIXED)


def test_shards_know_the_shape_of_every_sample(shards: Path) -> None:
    dataset = ShardDataset(shards)
    assert [(bucket.shape, len(bucket.samples)) for bucket in dataset.buckets] == [
        ((16, *LANDSCAPE), 6), ((16, *SQUARE), 2), ((16, *PORTRAIT), 3),
    ]  # fmt: skip
    for bucket in dataset.buckets:
        assert {tuple(dataset[int(number)].latent.shape) for number in bucket.samples} == {bucket.shape}


def run(shards: Path, output: Path, *overrides: str, processes: int = 1, capture: bool = False) -> Path:
    cfg = small_run(shards, output, *overrides, preset=IMAGE)
    run_processes(processes, train_and_capture if capture else train, cfg, log=output.parent / "logs")
    return output


def test_steps_are_of_one_shape_under_every_layout(shards: Path, tmp_path: Path) -> None:
    split = "parallel.distributed_optimizer=false"
    one = run(shards, tmp_path / "one", split, "data.micro_batch=2", capture=True)
    for name, processes, overrides in (
        ("pp2+vp2", 2, ["parallel.pipeline=2", "parallel.virtual_pipeline=2"]),
        ("dp2·cp2", 4, ["parallel.context=2"]),
    ):
        many = run(shards, tmp_path / name, split, *overrides, processes=processes, capture=True)
        assert losses(many) == pytest.approx(losses(one), rel=1e-6)
        assert worst_difference(torch.load(many / "gradients.pt"), torch.load(one / "gradients.pt")) < 1e-5
        assert worst_difference(exported(many), exported(one)) < 1e-5


def tokens(output: Path) -> list[int]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [round(record["tokens_per_second"] * record["seconds"]) for record in records]


@pytest.mark.parametrize("packing", ["false", "true"])
def test_a_stopped_run_goes_on_in_the_same_order(packing: str, shards: Path, tmp_path: Path) -> None:
    settings = [f"data.packing={packing}", "data.micro_batch=2", "trainer.precision=bf16"]
    whole = run(shards, tmp_path / "whole", *settings, "trainer.max_steps=5")
    for steps in (2, 5):
        halves = run(
            shards, tmp_path / "halves", *settings, "checkpoint.every_n_steps=2", f"trainer.max_steps={steps}"
        )
    assert losses(whole) == losses(halves)
    one, two = exported(whole, 5), exported(halves, 5)
    assert all(torch.equal(one[name], two[name]) for name in one)
    # A square is 16 tokens, the others are 15. Eleven samples have one step of squares in an epoch of buckets, and two
    # squares somewhere in an epoch of packs.
    assert (
        sorted(tokens(whole)[:4]) == [60, 60, 60, 64] if packing == "false" else sum(tokens(whole)) in range(302, 305)
    )


def test_a_sample_that_the_network_does_not_take_is_named(tmp_path: Path) -> None:
    odd = write_shards(tmp_path / "odd", shapes=[LANDSCAPE, PORTRAIT, (1, 7, 8), SQUARE])
    large = write_shards(tmp_path / "large", shapes=[SQUARE, (1, 40, 8), (1, 40, 8)])
    for shards, words in ((odd, r"'clip-002' of 4 .*\(16, 1, 7, 8\)"), (large, "'clip-001' and 1 more of 3 .*40")):
        cfg = small_run(shards, tmp_path / "run", preset=IMAGE)
        with pytest.raises(InputError, match=words):
            open_samples(cfg, DiTConfig.preset(IMAGE, **cfg.model.overrides))


def test_an_index_without_the_shapes_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shapes=MIXED)
    index = next(file for file in sorted(shards.glob("*.index.json")) if "shapes" in json.loads(file.read_text()))
    values = json.loads(index.read_text())
    for shapes, words in ((values["shapes"][:-1], "shapes"), ([9] * 3, "shapes"), ([], "does not say which sample")):
        index.write_text(json.dumps({**values, "shapes": shapes}))
        with pytest.raises(InputError, match=words):
            merge_manifest(shards)
            ShardDataset(shards)


PACKED = ["data.packing=true", "parallel.distributed_optimizer=false"]


@pytest.fixture(scope="module")
def one_by_one(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples in the order of one shape, each a sequence of its own: gradients are added up over a step."""
    return run(shards, tmp_path_factory.mktemp("alone") / "run", *PACKED, "data.micro_batch=1", capture=True)


@pytest.mark.parametrize(
    "processes, overrides",
    [
        (1, ["data.micro_batch=4"]),
        (2, ["data.micro_batch=2", "parallel.tensor=2", "parallel.sequence=true"]),
        (4, ["data.micro_batch=2", "parallel.pipeline=2", "parallel.context=2"]),
        (4, ["data.micro_batch=2", "parallel.context=2", "parallel.context_backend=all_gather"]),
    ],
    ids=["one", "tp2+sp", "pp2·cp2", "dp2·cp2"],
)
def test_a_packed_step_equals_its_samples(
    processes: int, overrides: list[str], one_by_one: Path, shards: Path, tmp_path: Path
) -> None:
    packed = run(shards, tmp_path / "run", *PACKED, *overrides, processes=processes, capture=True)
    assert losses(packed) == pytest.approx(losses(one_by_one), rel=1e-6)
    assert worst_difference(torch.load(packed / "gradients.pt"), torch.load(one_by_one / "gradients.pt")) < 1e-5
    assert worst_difference(exported(packed), exported(one_by_one)) < 1e-5


def test_samples_of_one_shape_packed_or_not(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=LANDSCAPE)
    settings = ["data.micro_batch=2", "parallel.distributed_optimizer=false"]
    batch = run(shards, tmp_path / "batch", *settings, capture=True)
    pack = run(shards, tmp_path / "pack", *settings, "data.packing=true", capture=True)
    assert losses(pack) == pytest.approx(losses(batch), rel=1e-6)
    assert worst_difference(torch.load(pack / "gradients.pt"), torch.load(batch / "gradients.pt")) < 1e-5


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["parallel.pipeline=2", "parallel.virtual_pipeline=2"], "interleaved schedule"),
        (["parallel.context_backend=transformer_engine"], "transformer_engine"),
    ],
)
def test_layouts_that_do_not_pack(overrides: list[str], words: str, shards: Path, tmp_path: Path) -> None:
    cfg = small_run(shards, tmp_path / "run", "data.packing=true", *overrides, preset=IMAGE)
    with pytest.raises(InputError, match=words):
        refuse_packing(cfg)


def test_repeated_samples_are_told(shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for batch, packing, words in ((4, "false", "2 of 3 shapes"), (2, "false", ""), (4, "true", "")):
        cfg = small_run(
            shards, tmp_path / "run", f"data.packing={packing}", f"data.global_batch={batch}", preset=IMAGE
        )
        caplog.clear()
        with caplog.at_level("INFO"):
            tell_shapes(open_samples(cfg, DiTConfig.preset(IMAGE, **cfg.model.overrides)), cfg.data)
        assert "samples of 3 shapes" in caplog.text and words in caplog.text
        assert bool(words) == ("repeated" in caplog.text)


def test_portraits_landscapes_and_squares_from_files_to_weights(tmp_path: Path) -> None:
    """Two commands and two runs, as a user has them: no image is squashed, and both ways of batching finish."""
    clips, settings = tmp_path / "clips", ["model.preset=tiny-predict2-text2image", "data.global_batch=2"]
    for number, (height, width) in enumerate([(48, 80), (80, 48), (64, 64), (46, 82), (64, 60)]):
        image = torch.randint(0, 256, (3, 1, height, width), generator=torch.Generator().manual_seed(number))
        write_mp4(clips / "videos" / f"{number}.mp4", image.to(torch.uint8), 24.0)
        (clips / "metas").mkdir(exist_ok=True)
        (clips / "metas" / f"{number}.txt").write_text(f"picture {number}")
    tokenizer = build_tokenizer("CV4x8x8-360p", channels=8, num_res_blocks=1, chunk_frames=1)
    statistics = {"mean": torch.zeros(16, 1), "std": torch.full((16, 1), 0.2)}
    save_tokenizer(tmp_path / "tokenizer", tokenizer, name="tiny", **statistics)
    save_tiny_text_encoder(tmp_path / "text", width=16)
    models = {"tokenizer": tmp_path / "tokenizer", "text_encoder": tmp_path / "text"}
    sizes = [(48, 80), (80, 48), (64, 64)]
    prepared = nc.prepare(clips, tmp_path / "shards", **models, frames=1, size=sizes, workers=0, text_length=8)
    assert prepared.samples == 5 and prepared.cropped == 0
    for name, overrides in (
        ("buckets", ["data.micro_batch=1"]),
        ("packs", ["data.packing=true", "data.micro_batch=2"]),
    ):
        folder = run(tmp_path / "shards", tmp_path / name, *settings, *overrides, "trainer.max_steps=4")
        assert len(losses(folder)) == 4 and all(map(math.isfinite, losses(folder)))
        assert (folder / "checkpoints" / "iter_000000004_reg_model.pt").is_file()
        with pytest.raises(InputError, match=r"48x80, 64x64, 80x48.*--height and --width"):
            weight_defaults(folder, GenerationConfig())
        assert weight_defaults(folder, GenerationConfig(height=80, width=48)).num_frames == 1
