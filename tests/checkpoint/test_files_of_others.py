"""World models in the wrappings that other programs write: read, counted, and the right kind taken."""

from __future__ import annotations

import io
import json
import resource
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.files import read_tensors
from nemo_cosmos.checkpoint.load import load_original_file
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.checkpoint.store import CheckpointReader
from nemo_cosmos.cli import app
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.dit.state_dict import compare

PRESET = "tiny-video2world"
SIZES = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "text_width": 16}
CONFIG = DiTConfig.preset(PRESET, **SIZES)
ODD: dict[str, Any] = {
    "net.blocks.block0.blocks.0.block.attn.to_q.1._extra_state": None,
    "net.blocks.block0.blocks.0.block.attn.to_k.1._extra_state": io.BytesIO(b"\x80\x04."),
    "net.blocks.block0.blocks.1.block.attn.to_q.1._extra_state": torch.zeros(5, dtype=torch.uint8),
    "net.blocks.block0.blocks.1.block.attn.to_k.1._extra_state": b"",
    "net.step": 12,
}


@pytest.fixture(scope="module")
def kinds() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Regular and averaged weights, names without ``net.``."""
    states = (build_dit(CONFIG, seed=seed).to_original() for seed in (1, 2))
    regular, averaged = ({k.removeprefix("net."): v for k, v in state.items()} for state in states)
    return regular, averaged


def head() -> dict[str, Tensor]:
    shapes = {"0.freqs": (128,), "0.phases": (128,), "1.weight": (1, 128)}
    return {f"logvar.{name}": torch.full(shape, 0.5) for name, shape in shapes.items()}


def same(path: Path, weights: Any, expected: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> bool:
    net = load_network(path, weights=weights, preset=PRESET, **SIZES)
    state = net.to_original()
    return all(torch.equal(state[f"net.{name}"].float(), t.to(dtype).float()) for name, t in expected.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("wrapper", "below"),
    [("{}", None), ("net.{}", "model"), ("model.net.{}", "state_dict"), ("module.net.{}", None),
     ("net._orig_mod.{}", None)],
)  # fmt: skip
def test_one_kind_of_weights(
    dtype: torch.dtype, wrapper: str, below: str | None, kinds: tuple[dict[str, Tensor], ...], tmp_path: Path
) -> None:
    content: Any = OrderedDict((wrapper.format(k), nn.Parameter(v.to(dtype))) for k, v in kinds[0].items())
    content |= ODD | head()
    torch.save(content if below is None else {below: content, "iteration": 3}, tmp_path / "model.pt")
    assert same(tmp_path / "model.pt", "reg", kinds[0], dtype) and same(tmp_path / "model.pt", "ema", kinds[0], dtype)
    report = compare(CONFIG, read_tensors(tmp_path / "model.pt"))
    assert report.complete and report.taken is None
    assert "9 passed over (4 _extra_state, 3 logvar.*, 1 net.*, 1 pos_embedder.*)" in str(report)


@pytest.mark.parametrize("average", ["net_ema.{}", "model.net_ema.{}", "ema.net-{}", "ema"])
def test_two_kinds_of_weights(average: str, kinds: tuple[dict[str, Tensor], ...], tmp_path: Path) -> None:
    content: Any = {f"net.{k}": v.bfloat16() for k, v in kinds[0].items()} | ODD | head()
    if average == "ema":
        content = {"model": content, "ema": {f"net.{k}": v for k, v in kinds[1].items()}}
    else:
        renamed = {k: k.replace(".", "-") if "-" in average else k for k in kinds[1]}
        content |= {average.format(renamed[k]): v for k, v in kinds[1].items()}
    torch.save(content, tmp_path / "model.pt")
    assert same(tmp_path / "model.pt", "ema", kinds[1]) and same(
        tmp_path / "model.pt", "reg", kinds[0], torch.bfloat16
    )
    for weights, name, other in (("ema", "averaged", "net"), ("reg", "regular", "net_ema")):
        source = open_weights(tmp_path / "model.pt", weights=weights)  # type: ignore[arg-type]
        report = compare(CONFIG, source.state)
        assert report.complete and report.taken == f"{name} weights"
        count = len(kinds[0]) + (weights == "ema")
        assert f"{count} {other}.*" in str(report), "the other kind is counted"
        assert {k: v for k, v in source.state.items() if k.startswith("logvar.")}.keys() == head().keys()


def test_the_average_alone(kinds: tuple[dict[str, Tensor], ...], tmp_path: Path) -> None:
    torch.save({f"net_ema.{k}": v for k, v in kinds[1].items()}, tmp_path / "model.pt")
    assert same(tmp_path / "model.pt", "reg", kinds[1])
    assert read_tensors(tmp_path / "model.pt", "reg").taken == "averaged weights, the file has no others"
    assert load_original_file(tmp_path / "model.pt").keys() == {f"net.{k}" for k in kinds[1]}


def test_convert_says_what_it_took(kinds: tuple[dict[str, Tensor], ...], tmp_path: Path) -> None:
    content = {f"net.{k}": v for k, v in kinds[0].items()} | {f"net_ema.{k}": v for k, v in kinds[1].items()} | ODD
    torch.save(content, tmp_path / "model.pt")
    sizes = [word for key, value in SIZES.items() for word in ("--set", f"{key}={value}")]
    for number, (weights, name) in enumerate((("reg", "regular"), ("ema", "averaged"))):
        target = tmp_path / f"{weights}.pt"
        words = [str(tmp_path / "model.pt"), str(target), "--weights", weights, "--preset", PRESET, *sizes]
        result = CliRunner().invoke(app, ["convert", *words])
        assert result.exit_code == 0, result.output
        assert f"model.pt: {name} weights; {len(kinds[0]) - 1} tensors loaded" in result.output
        assert "4 _extra_state" in result.output
        written = torch.load(target, weights_only=True)
        assert [k for k, v in kinds[number].items() if not torch.equal(written[f"net.{k}"], v)] == []


def test_big_tensors_stay_on_the_disk(kinds: tuple[dict[str, Tensor], ...], tmp_path: Path) -> None:
    torch.save(kinds[0], tmp_path / "model.pt")
    tensors = read_tensors(tmp_path / "model.pt")
    maps = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if "model.pt" in line
    ]
    spans = [(int(first, 16), int(last, 16)) for first, last in maps]
    assert all(any(first <= t.data_ptr() < last for first, last in spans) for t in tensors.values())
    torch.save(kinds[0], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(tmp_path / "old.pt", "reg", kinds[0])


def test_what_is_no_weights_file(kinds: tuple[dict[str, Tensor], ...], tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    for content, message in (
        ([torch.zeros(1)], "expected a state dict of tensors, found a list"),
        ({"iteration": 3, "b": None}, "found no tensor among the entries iteration, b"),
        ({}, "found an empty one"),
        ({"net.a": torch.zeros(1), "model.net.a": torch.zeros(1)}, "holds a twice"),
    ):
        torch.save(content, file)
        with pytest.raises(InputError, match=message):
            read_tensors(file)
    name = "final_layer.linear.weight"
    torch.save(kinds[0] | {name: None}, file)
    with pytest.raises(InputError, match=f"1 missing.*\n  missing: {name}"):
        load_network(file, preset=PRESET, **SIZES)
    with pytest.raises(InputError, match=f"{name}: no tensor, expected"):
        build_dit(CONFIG).load_original(kinds[0] | {name: None})


def test_no_memory_for_a_network_that_the_file_does_not_hold(
    kinds: tuple[dict[str, Tensor], ...], tmp_path: Path
) -> None:
    torch.save(kinds[0], tmp_path / "model.pt")
    sizes = {"num_layers": 1000, "hidden_size": 65536, "num_attention_heads": 512}
    values = DiTConfig.preset(PRESET, **SIZES | sizes).to_dict()
    (tmp_path / "model_config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"model\.pt: the state dict does not fit .* \(1000 layers of width 65536\)"):
        load_network(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04Nr\x00\x00\x00\x10.",
        b"\x80\x02Np268435456\n.",
        b"\x80\x05\x96" + (4 << 30).to_bytes(8, "little") + b".",
    ],
    ids=["binary", "text", "bytes"],
)
def test_an_index_takes_no_memory_by_its_numbers(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"\.metadata: not a readable index \((Unpickling|Value)Error"):
        CheckpointReader(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18, "a quarter of a GiB"
