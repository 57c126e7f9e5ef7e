"""Mistakes of a user of `nemo-cosmos train` end with one message, exit status 2 and nothing half written."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nemo_cosmos import cli
from nemo_cosmos.checkpoint.files import save_tensors, write_latest
from nemo_cosmos.checksums import beside
from nemo_cosmos.models.dit import DiTConfig, build_dit
from tests.parallel.processes import run_processes
from tests.parallel.runs import SMALL
from tests.training.clips import RawData, add_clip, write_raw_data
from tests.training.shards import write_shards

NETWORK = {
    "num_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "text_width": 16, "adaln_lora_dim": 8,
    "max_frames": 16, "max_height": 32, "max_width": 32,
}  # fmt: skip
"""What ``SMALL`` says, as Python."""

Main = Callable[..., str]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawData:
    return write_raw_data(tmp_path_factory.mktemp("raw"), count=2)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


@pytest.fixture
def refused(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Runs `nemo-cosmos train` in this process and gives the message that it ends with."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Marks of messages that another process has printed.

    def run(*overrides: str) -> str:
        output = tmp_path / "run"
        before = contents(output)
        monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *arguments(shards, output), *overrides])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert contents(output) == before
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ") and printed.err.count("error: ") == 1
        assert "Traceback" not in printed.err
        return printed.err

    return run


def arguments(shards: Path, output: Path) -> list[str]:
    return [
        "train", "experiment=demo_video2world", "model.preset=tiny-video2world", "model.init_from=null",
        f"model.overrides={SMALL}", f"data.path={shards}",
        f"output_dir={output}", "data.micro_batch=1", "data.global_batch=4", "data.num_workers=0",
        "data.text_length=24", "data.tokenizer=null",
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def flip_a_byte(shards: Path) -> Path:
    """In the middle of the first shard, where a latent lies."""
    shard = sorted(shards.glob("*.tar"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return shard


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["parallel.tensor=3"], "parallel.tensor=3 does not divide the network's 4 attention heads; possible sizes"),
        (["parallel.tensor=2"], "1 processes are not divisible by parallel.tensor=2"),
        (["data.global_batch=3", "data.micro_batch=2"], "use a multiple of 2"),
        (["trainer.max_stepz=3"], "did you mean trainer.max_steps?"),
        (["data.tokeniser=x"], "did you mean data.tokenizer?"),
        (["experiment=demo_video2wrld"], "did you mean demo_video2world?"),
        (["data.tokenizer=CV8x8x8-720p"], "made with the tokenizer 'CV-test'"),
        (["model.overrides.text_width=32"], "text embeddings are 16 wide, the network takes 32"),
        (["model.overrides.in_channels=8"], "latents have 16 channels, the network takes 8"),
        (["data.path=/nowhere"], "no folder /nowhere: expected a folder of shards"),
        (["data.micro_batch=3"], "data.global_batch=4 is not divisible by data.micro_batch=3"),
        (["data.text_encoder=t5"], "data.text_encoder=t5 has no effect with data.mode=cached"),
        (["data.size=[32,48]"], "data.size=[32, 48] has no effect with data.mode=cached"),
        (["data.mode=online", "data.verify=full"], "data.verify=full has no effect with data.mode=online"),
        (["data.mode=online"], "data.mode=online needs data.tokenizer_path, data.num_frames, data.size"),
        (["model.init_from=/nowhere.pt"], "model.init_from=/nowhere.pt: /nowhere.pt: no such file or folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_override(overrides: list[str], answer: str, refused: Main) -> None:
    assert answer in refused(*overrides)


def test_processes_that_the_layout_does_not_divide(refused: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "6", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    message = refused("parallel.tensor=2", "parallel.pipeline=2")
    assert (
        "6 processes are not divisible by parallel.tensor=2 × parallel.pipeline=2 × parallel.context=1 = 4" in message
    )


def test_damaged_shard_is_named(refused: Main, shards: Path) -> None:
    shard = flip_a_byte(shards)
    assert f"checksum of shard {shard} differs" in refused()


def test_shards_of_raw_videos(refused: Main, raw: RawData) -> None:
    message = refused(f"data.path={raw.clips}")
    assert f"data.path={raw.clips} holds videos, not shards" in message and "data.mode=online" in message


def test_checkpoint_with_resume_off(refused: Main, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    (folder / "iter_000000005").mkdir(parents=True)
    write_latest(folder, 5)
    assert f"{folder} holds a checkpoint of step 5 and resume=false" in refused("resume=false")
    write_latest(folder, 7)
    message = refused("resume=true")
    assert "iter_000000007: named by latest_checkpoint.txt but not there" in message and "[5]" in message


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "extra", "misshapen"])
def test_broken_weights_to_start_from(damage: str, refused: Main, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    state = build_dit(DiTConfig.preset("tiny-video2world", **NETWORK)).to_original()
    name = "net.blocks.block1.blocks.2.block.layer1.weight"
    if damage == "missing":
        del state[name]
    elif damage == "extra":
        state["net.blocks.block9.weight"] = torch.zeros(1)
    elif damage == "misshapen":
        state[name] = torch.zeros(3, 3)
    save_tensors(file, state)
    if damage in ("cut", "text"):
        beside(file).unlink()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "text":
        file.write_text("version https://git-lfs.github.com/spec/v1\n")
    answer = {
        "cut": "not a readable tensor file",
        "text": "not a readable tensor file",
        "missing": "missing: blocks.block1.blocks.2.block.layer1.weight",
        "extra": "unexpected: blocks.block9.weight",
        "misshapen": "misshapen: blocks.block1.blocks.2.block.layer1.weight: [3, 3], expected [256, 64]",
    }[damage]
    message = refused(f"model.init_from={file}")
    assert f"error: model.init_from={file}: " in message
    assert answer in message


def test_online_with_unusable_clips(refused: Main, raw: RawData, tmp_path: Path) -> None:
    for name, frames in (("good", 9), ("short", 5)):
        add_clip(tmp_path / "clips", name, frames=frames)
    add_clip(tmp_path / "clips", "broken")
    (tmp_path / "clips/videos/broken.mp4").write_bytes(b"no video")
    message = refused(*raw.online(), f"data.path={tmp_path / 'clips'}")
    assert "2 of 3 clips cannot be used with data.num_frames=9" in message
    assert "broken.mp4" in message and "videos/short.mp4 has 5 frames" in message


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["data.tokenizer_path=/nowhere"], "/nowhere: no such tokenizer folder"),
        (["data.text_encoder=/nowhere"], "text encoder '/nowhere' is neither a folder nor"),
        (["data.text_encoder=null"], "clips have no text embedding"),
        (["data.num_frames=8"], "nearest legal 5 or 9"),
        (["data.size=[33,48]"], "size 33x48: height and width must be multiples of 16"),
        (["data.size=[32]"], "data.size=[32]: expected [height,width]"),
        (["data.tokenizer=CV8x8x8-720p"], "holds the tokenizer 'small'"),
        (["model.overrides.text_width=32"], "text embeddings are 16 wide, the network takes 32"),
        (["data.path=/nowhere"], "/nowhere is neither a folder nor a .jsonl file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_online_override(overrides: list[str], answer: str, refused: Main, raw: RawData) -> None:
    assert answer in refused(*raw.online(), *overrides)


def test_online_on_shards(refused: Main, raw: RawData, shards: Path) -> None:
    assert "holds shards: set data.mode=cached" in refused(*raw.online(), f"data.path={shards}")


def train_from_the_command_line(words: list[str]) -> None:
    sys.argv = ["nemo-cosmos", *words]
    try:
        cli.main()
    except SystemExit as ended:
        print(f"exit status {ended.code}")


def test_sample_damaged_behind_the_reader_processes(shards: Path, tmp_path: Path) -> None:
    """What a reader process meets in the middle of a run reaches the user as it is."""
    flip_a_byte(shards)
    words = [*arguments(shards, tmp_path / "run"), "data.verify=size", "data.num_workers=1"]
    run_processes(1, train_from_the_command_line, words, log=tmp_path / "logs")
    log = (tmp_path / "logs" / "rank0.log").read_text()
    assert "\nerror: checksum of sample 'clip-" in log
    assert "exit status 2" in log and "Traceback" not in log
    assert not list((tmp_path / "run").rglob("iter_*"))
