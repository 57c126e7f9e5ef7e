"""Training on samples of several views: rigs of any size, their checks, view dropout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.data.sample import LatentSample, collate
from nemo_cosmos.data.shards import ShardDataset, ShardWriter
from nemo_cosmos.data.view_dropout import ViewDropout, select_views
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.training.data import CosmosDataModule
from nemo_cosmos.training.run import train
from nemo_cosmos.training.samples import open_samples
from tests.parallel.processes import run_processes
from tests.parallel.runs import SMALL, exported, losses, small_run, worst_difference
from tests.training.shards import TOKENIZER, write_shards

PREDICT1, PREDICT2, ONE_VIEW = "tiny-video2world-multiview", "tiny-predict2-multiview", "tiny-predict2-video2world"
WAYMO = [4, 5, 0, 1, 2]


def run(shards: Path, output: Path, *overrides: str, preset: str = PREDICT2, processes: int = 1) -> Path:
    cfg = small_run(shards, output, "data.global_batch=2", *overrides, preset=preset)
    run_processes(processes, train, cfg, log=output / "logs")
    return output


def refuse(cfg, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(cfg)
    assert not (Path(cfg.output_dir) / "config.yaml").exists()


@pytest.mark.parametrize(
    "preset, rig, frames, overrides",
    [
        (PREDICT2, [6, 0, 3], 11, []),  # more frames than the eight of the released network
        (PREDICT2, list(range(7)), 1, []),
        (PREDICT2, list(range(12)), 2, ["num_views: 12"]),
        (PREDICT2, [0], 3, []),
        (PREDICT1, [0, 5, 2], 2, []),
    ],
    ids=str,
)
def test_rigs_of_any_size_are_trained_on(
    preset: str, rig: list[int], frames: int, overrides: list[str], tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", shape=(frames, 4, 6), rigs=[rig], count=2)
    words = [f"model.overrides.{word.replace(': ', '=')}" for word in overrides]
    out = run(shards, tmp_path / "run", "trainer.max_steps=1", *words, preset=preset)
    assert len(losses(out)) == 1
    table = exported(out, 1)["net.view_embeddings.weight"]
    assert len(table) == DiTConfig.preset(preset).num_views if not overrides else 12


@pytest.mark.parametrize(
    "preset, rigs, shape, overrides, message",
    [
        (PREDICT2, [[0, 7, 9]], (2, 4, 6), [], r"view ids 7, 9 \(of \[0, 7, 9\]\): .*0 to 6; .*num_views=10 has"),
        (PREDICT1, [list(range(7))], (2, 4, 6), [], "view ids 6"),
        (PREDICT2, [[0, 1], [0, 8]], (2, 4, 6), [], r"view ids 8 \(of \[0, 1\], \[0, 8\]\)"),
        (PREDICT2, [], (6, 4, 6), [], "do not say which cameras they show"),
        (ONE_VIEW, [[0, 1, 2]], (2, 4, 6), [], r"3 views \(\[0, 1, 2\]\), the network takes one"),
        (ONE_VIEW, [], (2, 4, 6), ["data.view_dropout=0.5"], "data.view_dropout=0.5 has no effect"),
        (PREDICT2, [[0, 1]], (17, 4, 6), [], "17 latent frames a view are more than the network's 16"),
    ],
    ids=str,
)  # fmt: skip
def test_views_that_do_not_fit_are_refused_before_anything_is_built(
    preset: str, rigs: list[list[int]], shape: tuple[int, int, int], overrides: list[str], message: str, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", shape=shape, rigs=rigs, count=2)
    refuse(small_run(shards, tmp_path / "run", *overrides, preset=preset), message)


@pytest.mark.parametrize("rig", [[0, -1], []])
def test_ids_that_are_none_are_not_written(rig: list[int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="view_ids of 'clip-000'"):
        write_shards(tmp_path / "shards", rigs=[rig], count=1)


def test_a_kind_of_samples_among_others_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[[0, 1], [0, 1, 8]], count=5)
    refuse(small_run(shards, tmp_path / "run", preset=PREDICT2), r"sample 'clip-001' and 1 more of 5 .* view ids 8")


def test_frames_that_do_not_divide_into_the_views(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[[0, 1]], count=1)
    sample = ShardDataset(shards)[0]
    sample.latent = torch.cat([sample.latent, sample.latent[:, :1]], dim=1)
    with ShardWriter(tmp_path / "uneven", tokenizer=TOKENIZER, text_encoder="random") as writer:
        writer.write(sample)
    cfg = small_run(tmp_path / "uneven", tmp_path / "run", preset=PREDICT2)
    refuse(cfg, r"5 latent frames do not divide into 2 views \(\[0, 1\]\)")


def test_rigs_of_one_folder_are_batched_by_their_number_of_views(tmp_path: Path) -> None:
    """Three views of four frames and six of two have latents of one shape."""
    shards = write_shards(tmp_path / "three", shape=(4, 4, 6), rigs=[[0, 1, 2], [2, 1, 0]], count=4)
    others = write_shards(tmp_path / "six", shape=(2, 4, 6), rigs=[range(6)], count=2, seed=1)
    with ShardWriter(tmp_path / "all", tokenizer=TOKENIZER, text_encoder="random") as writer:
        for folder in (shards, others):
            for number, sample in enumerate(map(ShardDataset(folder).__getitem__, range(len(ShardDataset(folder))))):
                sample.key = f"{folder.name}-{number}"
                writer.write(sample)
    buckets = ShardDataset(tmp_path / "all").buckets
    assert [(b.shape, len(b.samples), b.rigs) for b in buckets] == [
        ((16, 12, 4, 6), 4, ((0, 1, 2), (2, 1, 0))), ((16, 12, 4, 6), 2, ((0, 1, 2, 3, 4, 5),)),
    ]  # fmt: skip
    assert len(losses(run(tmp_path / "all", tmp_path / "run", "trainer.max_steps=4"))) == 4
    packed = run(tmp_path / "all", tmp_path / "packed", "trainer.max_steps=2", "data.packing=true",
                 "data.micro_batch=2")  # fmt: skip
    assert len(losses(packed)) == 2


def many(rig: list[int], frames: int = 2) -> LatentSample:
    views = len(rig)
    latent = torch.tensor(rig).repeat_interleave(frames).float()[None, :, None, None].expand(16, -1, 4, 6)
    text = torch.tensor(rig).float()[:, None, None].expand(-1, 3, 8)
    return LatentSample("clip", latent, text, "", 10.0, 5, (32, 48, 32, 48), view_ids=torch.tensor(rig),
                        frame_repeat=torch.arange(views) + 10, cameras=[f"camera {view}" for view in rig],
                        padding_mask=torch.tensor(rig)[:, None, None].expand(-1, 4, 6))  # fmt: skip


def test_a_selection_of_views_takes_all_that_belongs_to_them() -> None:
    part = select_views(many([4, 5, 0, 1]), [3, 1])
    assert part.view_ids.tolist() == [1, 5] and part.frame_repeat.tolist() == [13, 11]
    assert part.cameras == ["camera 1", "camera 5"] and part.captions == []
    assert part.padding_mask[:, 0, 0].tolist() == [1, 5]
    assert part.latent[0, :, 0, 0].tolist() == [1, 1, 5, 5] and part.text[:, 0, 0].tolist() == [1, 5]
    assert collate([(0, part)], 4).text[0, ::4, 0].tolist() == [1, 5]


def test_view_dropout_draws_a_number_for_each_step_and_views_for_each_sample() -> None:
    dropout = ViewDropout(0.5, seed=3, global_batch=4)
    counts = Counter(dropout.kept(step, 5) for step in range(2000))
    assert counts[5] == pytest.approx(1000, abs=90) and set(counts) == {1, 2, 3, 4, 5}
    assert all(counts[number] == pytest.approx(250, abs=70) for number in range(1, 5))
    sample, seen = many(WAYMO), set()
    for step in range(200):
        rigs = [dropout(4 * step + row, sample).view_ids.tolist() for row in range(4)]
        assert {len(rig) for rig in rigs} == {dropout.kept(step, 5)}
        assert all(rig == [view for view in WAYMO if view in rig] for rig in rigs)
        seen |= {tuple(rig) for rig in rigs if len(rig) == 2}
    assert len(seen) == 10
    assert dropout(0, many([3])).view_ids.tolist() == [3]
    assert dropout.shape(0, (16, 10, 4, 6), 5)[1] == 2 * dropout.kept(0, 5)


def test_view_dropout_is_the_same_when_resumed_and_on_other_ranks(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[WAYMO], count=4)
    dropping = ("data.view_dropout=0.8", "trainer.max_steps=5")
    whole = run(shards, tmp_path / "whole", *dropping)
    broken = run(shards, tmp_path / "broken", *dropping, "checkpoint.every_n_steps=2", "trainer.max_steps=2")
    run(shards, broken, *dropping)
    assert losses(broken) == losses(whole)
    assert worst_difference(exported(broken), exported(whole)) == 0
    two = run(shards, tmp_path / "two", *dropping, "parallel.pipeline=2", processes=2)
    assert losses(two) == pytest.approx(losses(whole), rel=1e-5)


def test_steps_with_dropped_views_have_fewer_frames(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[WAYMO], count=2)
    cfg = small_run(shards, tmp_path / "run", "data.view_dropout=1", preset=PREDICT2)
    data = CosmosDataModule(open_samples(cfg, DiTConfig.preset(PREDICT2, text_width=16)), cfg.data, seed=cfg.seed)
    assert data.dropout is not None
    for step in range(10):
        assert data.shapes(step) == [(16, 2 * data.dropout.kept(step, 5), 4, 6)] * 4
    assert len({data.shapes(step)[0] for step in range(20)}) == 4


def released(tmp_path: Path, num_views: int = 7) -> Path:
    """A file of the small network as a release has it."""
    config = DiTConfig.preset(PREDICT2, **yaml.safe_load(SMALL), num_views=num_views)
    save_tensors(tmp_path / "base.pt", build_dit(config).to_original())
    return tmp_path / "base.pt"


TWELVE = ["model.overrides.num_views=12", "trainer.max_steps=1", "optimizer.lr=0"]


def test_more_views_than_the_base_has_start_with_its_views(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[range(12)], count=2)
    base = torch.load(released(tmp_path), weights_only=True)["net.view_embeddings.weight"]
    words = [f"model.init_from={tmp_path / 'base.pt'}", "model.init_new_views=true", *TWELVE]
    out = run(shards, tmp_path / "run", *words, "seed=1")
    table = exported(out, 1)["net.view_embeddings.weight"]
    assert torch.equal(table[:7], base) and table.shape == (12, 7) and 0.5 < table[7:].std() < 1.6
    log = "".join(file.read_text() for file in (out / "logs").iterdir())
    assert "view_embeddings.weight from 7 to 12 views, the new ones start anew" in " ".join(log.split())
    two = run(shards, tmp_path / "two", *words, "seed=1", "parallel.context=2", processes=2)
    assert torch.equal(exported(two, 1)["net.view_embeddings.weight"], table)


@pytest.mark.parametrize(
    "rows, overrides, message",
    [
        (7, ["model.overrides.num_views=12"], "it has 7 views, the network 12: model.init_new_views=true takes"),
        (9, [], "it has 9 views, the network 7: set model.overrides.num_views=9"),
        (7, ["model.init_new_views=true"], "7 views and the network 7: model.init_new_views=true has no effect"),
        (7, ["model.init_new_views=true", "model.overrides.num_views=12", "lora.enabled=true"], "would stay random"),
        (None, ["model.init_new_views=true"], "model.init_new_views has no effect without model.init_from"),
    ],
)  # fmt: skip
def test_other_numbers_of_views_are_told(rows: int | None, overrides: list[str], message: str, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[[0, 1]], count=2)
    init = [] if rows is None else [f"model.init_from={released(tmp_path, rows)}"]
    refuse(small_run(shards, tmp_path / "run", *init, *overrides, preset=PREDICT2), message)


def test_the_exported_file_starts_adapters_and_holds_the_average(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(2, 4, 6), rigs=[WAYMO], count=2)
    words = ("trainer.precision=bf16", "trainer.max_steps=2")
    full = run(shards, tmp_path / "full", *words, "checkpoint.export_layout=joint")
    file = full / "checkpoints" / "model" / "iter_000000002.pt"
    content = torch.load(file, weights_only=True)
    names = {name for name in content if name.startswith("net.")}
    assert {f"net_ema.{name.removeprefix('net.')}" for name in names} == set(content) - names
    assert {"net.view_embeddings.weight", "net.pos_embedder_options.n_cameras_7.seq"} <= names
    for weights in ("reg", "ema"):
        source = open_weights(file, weights=weights)  # type: ignore[arg-type]
        assert build_dit(source.require_config()).load_original(source.state).complete
    adapters = run(shards, tmp_path / "lora", *words, f"model.init_from={file}", "lora.enabled=true")
    for weights in ("reg", "ema"):
        assert (adapters / f"checkpoints/iter_000000002_{weights}_lora/adapter_model.safetensors").is_file()
    merged = open_weights(adapters, weights="reg").state
    assert torch.equal(merged["view_embeddings.weight"], content["net.view_embeddings.weight"])
