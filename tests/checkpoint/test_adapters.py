"""Adapters within a file and beside it: whose names they have, how they add up, what does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.adapters import AdapterChoice, choices, read_adapter, with_adapters
from nemo_cosmos.checkpoint.convert import convert
from nemo_cosmos.checkpoint.files import MODEL_CONFIG, read_tensors
from nemo_cosmos.checkpoint.lora import save_adapter
from nemo_cosmos.checkpoint.merging import SummedWeights
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.cli import app
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from nemo_cosmos.training.initial_weights import check_initial_weights
from tests.checkpoint.networks import difference, ours, theirs

ALL = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
SIZES = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "text_width": 16, "adaln_lora_dim": 8}
CONFIG = DiTConfig.preset("tiny-predict2-video2world", **SIZES)
RANK = 3
SPEC = LoraSpec(RANK, 6.0, ALL)
ENTRIES = adapter_entries(CONFIG, SPEC)
NAMES = {
    "peft": lambda e, factor: f"base_model.model.{e.diffusers}.{factor}.weight",
    "diffusers": lambda e, factor: f"transformer.{e.diffusers}.{factor}.weight",
    "ours": lambda e, factor: f"{e.ours}.{factor}",
    "original": lambda e, factor: f"net.{e.original.removesuffix('.weight')}.{factor}.default.weight",
    "original, by peft": lambda e, factor: f"base_model.model.{e.original.removesuffix('.weight')}.{factor}.weight",
    "others": lambda e, factor: f"diffusion_model.{e.original.removesuffix('.weight')}.{factor}.weight",
}


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Released names with ``net.``."""
    net = build_dit(CONFIG, seed=seed)
    for parameter in net.final_layer.parameters():
        parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(seed))
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in net.to_original().items()}


def adapters(seed: int = 0, entries: Any = ENTRIES, rank: int = RANK) -> dict[tuple[str, str], Tensor]:
    """By released name and factor."""
    generator = torch.Generator().manual_seed(seed)
    return {
        (e.original, factor): torch.randn(shape, generator=generator) / 8
        for e in entries
        for factor, shape in (("lora_A", (rank, e.shape[1])), ("lora_B", (e.shape[0], rank)))
    }


def merged(base: dict[str, Tensor], *parts: tuple[dict[tuple[str, str], Tensor], float]) -> dict[str, Tensor]:
    out = dict(base)
    for name in {name for factors, _ in parts for name, _ in factors}:
        total = base[f"net.{name}"].float()
        for factors, scale in parts:
            total = total + scale * factors[name, "lora_B"].float() @ factors[name, "lora_A"].float()
        out[f"net.{name}"] = total.to(base[f"net.{name}"].dtype)
    return out


def wrapped(
    base: dict[str, Tensor], factors: dict[tuple[str, str], Tensor], prefix: str = "net."
) -> dict[str, Tensor]:
    """As the training code of Predict2 saves a network with adapters."""
    out = {}
    for name, tensor in base.items():
        bare = name.removeprefix("net.")
        if (bare, "lora_A") not in factors:
            out[prefix + bare] = tensor
            continue
        layer = prefix + bare.removesuffix(".weight")
        out[f"{layer}.base_layer.weight"] = tensor
        for factor in ("lora_A", "lora_B"):
            out[f"{layer}.{factor}.default.weight"] = factors[bare, factor].to(tensor.dtype)
    return out


def equal(found: Any, expected: dict[str, Tensor], tolerance: float = 1e-6) -> bool:
    assert set(found) == set(expected)
    return all(
        torch.allclose(found[k].float(), v.float(), atol=tolerance, rtol=tolerance) for k, v in expected.items()
    )


def put(path: Path, tensors: dict[str, Tensor]) -> Path:
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def beside(folder: Path) -> None:
    (folder / MODEL_CONFIG).write_text(json.dumps(CONFIG.to_dict()))


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (6.0, 2.0)])
def test_a_full_file_with_adapters_in_it(alpha: float | None, scale: float, tmp_path: Path) -> None:
    beside(tmp_path)
    states = {"reg": network(0, torch.bfloat16), "ema": network(1)}
    content = wrapped(states["reg"], adapters(0)) | wrapped(states["ema"], adapters(1), "net_ema.")
    file = put(tmp_path / "model.pt", content)
    for number, (weights, state) in enumerate(states.items()):
        source = open_weights(file, weights=weights, lora_alpha=alpha)  # type: ignore[arg-type]
        factors = {k: v.to(state["net.x_embedder.proj.1.weight"].dtype) for k, v in adapters(number).items()}
        expected = merged(state, (factors, scale))
        assert equal(source.state, expected)
        assert {k: source.state.dtype_of(k) for k in expected} == {k: v.dtype for k, v in expected.items()}  # type: ignore[attr-defined]
        net = load_network(file, weights=weights, lora_alpha=alpha)  # type: ignore[arg-type]
        assert equal(net.to_original(), {k: v.float() if "accum" not in k else v for k, v in expected.items()})
        convert(file, tmp_path / f"{weights}.pt", "pt", weights=weights, lora_alpha=alpha)  # type: ignore[arg-type]
        assert equal(torch.load(tmp_path / f"{weights}.pt", weights_only=True), expected)


def test_training_starts_from_it(tmp_path: Path) -> None:
    file = put(tmp_path / "model.pt", wrapped(network(), adapters()))
    words = ["data.path=x", f"model.init_from={file}", "experiment=predict2_text2image_training_2b_cosmos_nemo_assets"]
    check_initial_weights(load_config(TrainConfig, words), CONFIG)
    check_initial_weights(load_config(TrainConfig, [*words, "model.init_lora_alpha=32"]), CONFIG)
    other = dataclasses.replace(CONFIG, hidden_size=128)
    with pytest.raises(
        InputError, match=r"(?s)model\.init_from=.*misshapen: .*q_proj\.weight: \[64, 64\], expected \[128"
    ):
        check_initial_weights(load_config(TrainConfig, words), other)
    put(file, network())
    with pytest.raises(InputError, match="lora_alpha=32 has no effect"):
        check_initial_weights(load_config(TrainConfig, [*words, "model.init_lora_alpha=32"]), CONFIG)


LAYER = "net.blocks.1.mlp.layer2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{LAYER}.lora_B.default.weight": None}, r"half an adapter: .*layer2\.lora_A\.default.*without.*lora_B"),
        ({f"{LAYER}.lora_A.default.weight": None}, r"half an adapter: .*layer2\.lora_B\.default.*without.*lora_A"),
        ({f"{LAYER}.lora_A.default.weight": None, f"{LAYER}.lora_B.default.weight": None},
         r"layer2\.base_layer\.weight has no adapter"),
        ({f"{LAYER}.base_layer.weight": None}, r"layer2\.lora_A.* without the matrix that it changes"),
        ({f"{LAYER}.lora_A.default.weight": torch.zeros(3, 64)}, r"layer2\.lora_A.* \[3, 64\], expected \[3, 256\]"),
        ({f"{LAYER}.lora_B.default.weight": torch.zeros(3, 64)}, r"layer2\.lora_B.* \[3, 64\] does not fit"),
        ({f"{LAYER}.lora_B.default.weight": torch.zeros(3)}, r"layer2\.lora_B.* \[3\] of float32, expected a matrix"),
        ({f"{LAYER}.lora_A.style.weight": torch.zeros(3, 256)}, r"lora_A\.default.* and .*lora_A\.style"),
        ({f"{LAYER}.lora_magnitude_vector.default.weight": torch.zeros(64)}, "only plain LoRA"),
        ({f"{LAYER}.weight": torch.zeros(64, 256)}, r"holds net\.blocks\.1\.mlp\.layer2\.weight twice"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = {**wrapped(network(), adapters()), **change}
    file = put(tmp_path / "model.pt", {k: v for k, v in content.items() if v is not None})
    with pytest.raises(InputError, match=rf"model\.pt: .*{message}|model\.pt: {message}"):
        read_tensors(file)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("names", NAMES)
def test_files_of_adapters_alone(names: str, suffix: str, tmp_path: Path) -> None:
    base, by_name = network(), {e.original: e for e in ENTRIES}
    content = {NAMES[names](by_name[name], factor): t for (name, factor), t in adapters().items()}
    file = put(tmp_path / f"adapters{suffix}", content)
    assert equal(with_adapters(CONFIG, base, choices(file)), merged(base, (adapters(), 1.0)))
    alpha = with_adapters(CONFIG, base, choices(file), lora_alpha=1.5)
    assert equal(alpha, merged(base, (adapters(), 0.5)))
    with pytest.raises(InputError, match=rf"adapters\{suffix} holds adapters alone: .*--lora"):
        read_tensors(file)


def test_the_adapters_of_a_full_file_are_taken_alone(tmp_path: Path) -> None:
    file = put(tmp_path / "model.pt", wrapped(network(5), adapters()))
    assert equal(with_adapters(CONFIG, network(), choices(file)), merged(network(), (adapters(), 1.0)))


def folder_of(path: Path, factors: dict[tuple[str, str], Tensor], spec: LoraSpec = SPEC) -> Path:
    tensors = {f"{e.diffusers}.{f}": factors[e.original, f] for e in ENTRIES for f in ("lora_A", "lora_B")
               if (e.original, f) in factors}  # fmt: skip
    save_adapter(path, spec, tensors)
    return path


def test_several_adapters_add_up_in_one_rounding(tmp_path: Path) -> None:
    beside(tmp_path)
    base = network(0, torch.bfloat16)
    file = put(tmp_path / "model.pt", base)
    few = [e for e in ENTRIES if "attn1" in e.diffusers]
    first, second, third = ({k: v.bfloat16() for k, v in adapters(i, e).items()} for i, e in
                            enumerate((few, few, few), start=1))  # fmt: skip
    one = folder_of(tmp_path / "one", first, dataclasses.replace(SPEC, targets=("attn1.to_q", "attn1.to_k",
                    "attn1.to_v", "attn1.to_out.0")))  # fmt: skip
    by_name = {e.original: e for e in ENTRIES}
    two = put(tmp_path / "two.safetensors", {NAMES["others"](by_name[n], f): t for (n, f), t in second.items()})
    three = put(tmp_path / "a:3.pt", {NAMES["original"](by_name[n], f): t for (n, f), t in third.items()})
    words = ["convert", str(file), str(tmp_path / "out.pt"), "--adapter", f"{one}:0.25", "--adapter", f"{two}:-1",
             "--adapter", str(three)]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert equal(found, merged(base, (first, 0.25 * 2), (second, -1.0), (third, 1.0)), 0)


@pytest.mark.parametrize("text", ["a:nan", "a:inf", "a:1e9"])
def test_weights_that_are_no_weights(text: str) -> None:
    with pytest.raises(InputError, match=r"the weight .* expected a number"):
        AdapterChoice.parse(text)


def test_a_weight_behind_a_path_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"'much' is no weight; expected PATH:NUMBER"):
        AdapterChoice.parse(f"{tmp_path}/a:much")
    (tmp_path / "a:0.5").mkdir()
    assert AdapterChoice.parse(f"{tmp_path}/a:0.5") == AdapterChoice(tmp_path / "a:0.5")
    assert AdapterChoice.parse(f"{tmp_path}/a:0.7") == AdapterChoice(tmp_path / "a", 0.7)


@pytest.mark.parametrize("names", ["peft", "original"])
def test_adapters_of_another_network_are_refused_by_their_first_tensor(names: str, tmp_path: Path) -> None:
    for changes, message in (
        ({"hidden_size": 128}, r"expected \[\d+, \d+\]: it is the adapter of a network of another size"),
        ({"num_layers": 3}, r"network of 2 layers of width 64 has no such matrix"),
    ):
        other = dataclasses.replace(CONFIG, **changes)
        entries = adapter_entries(other, SPEC)
        by_name = {e.original: e for e in entries}
        content = {NAMES[names](by_name[n], f): t for (n, f), t in adapters(0, entries).items()}
        file = put(tmp_path / "adapters.safetensors", content)
        layer = "2" if "num_layers" in changes else "0"
        with pytest.raises(InputError, match=rf"adapters\.safetensors: \S*blocks\.{layer}\S*lora_[AB]\S*.*{message}"):
            with_adapters(CONFIG, network(), choices(file))
    content = {"base_model.model.norm_out.linear_1.lora_A.weight": torch.zeros(3, 64),
               "base_model.model.norm_out.linear_1.lora_B.weight": torch.zeros(8, 3)}  # fmt: skip
    with pytest.raises(InputError, match=r"norm_out\.linear_1\.lora_A\.weight: .* has no such matrix to adapt"):
        with_adapters(CONFIG, network(), choices(put(tmp_path / "other.safetensors", content)))


def test_a_folder_lacks_what_its_settings_say(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "adapter", {k: v for k, v in adapters().items() if "blocks.1" not in k[0]})
    with pytest.raises(InputError, match=r"adapter: no adapter of transformer_blocks\.1\.attn1\.to_q"):
        with_adapters(CONFIG, network(), choices(folder))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "checksums.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({**config, "layers_to_transform": [0]}))
    assert isinstance(with_adapters(CONFIG, network(), choices(folder)), SummedWeights)
    (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 4, "layers_to_transform": [0]}))
    with pytest.raises(InputError, match=r"lora_A\.weight \[3, 64\], expected \[4, 64\]"):
        with_adapters(CONFIG, network(), choices(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank_pattern": {"attn1.to_q": 8}}, "rank_pattern="),
        ({"alpha_pattern": {"attn1.to_q": 8}}, "alpha_pattern="),
        ({"use_rslora": True}, "use_rslora=True"),
        ({"use_dora": True}, "use_dora=True"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights='pissa_niter_16'"),
        ({"modules_to_save": ["proj_out"]}, "modules_to_save="),
        ({"r": 0}, "r=0: expected a whole number"),
        ({"lora_alpha": "16"}, "lora_alpha=16: expected a number"),
        ({"target_modules": None}, "target_modules=None: expected names of layers"),
    ],
)
def test_kinds_of_adapters_that_are_not_merged(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "adapter", adapters())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "checksums.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(InputError, match=rf"adapter_config\.json: .*{message}|adapter_config\.json: {message}"):
        read_adapter(folder)


@pytest.mark.usefixtures("nearest_resize")
def test_peft_of_predict2_both_ways(tmp_path: Path) -> None:
    beside(tmp_path)
    file = put(tmp_path / "model.pt", network())
    convert(file, tmp_path / "transformer", "diffusers")
    times = {"time": torch.tensor([0.3, 0.5])}
    plain = ours(load_network(file), **times)
    # Ours, loaded by PEFT.
    folder = folder_of(tmp_path / "adapter", adapters())
    model = CosmosTransformer3DModel.from_pretrained(tmp_path / "transformer")
    with_peft = theirs(PeftModel.from_pretrained(model, str(folder)).eval(), None, **times)
    assert difference(with_peft, plain) > 1e-3
    assert difference(ours(load_network(file, adapter=folder), **times), with_peft) < 1e-5
    # PEFT's own, on some of the matrices, loaded here.
    model = CosmosTransformer3DModel.from_pretrained(tmp_path / "transformer")
    trained = get_peft_model(model, LoraConfig(r=4, lora_alpha=2, target_modules=["attn2.to_k", "ff.net.2"]))
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    trained.save_pretrained(tmp_path / "theirs")
    expected = theirs(trained.eval(), None, **times)
    assert difference(expected, plain) > 1e-3
    assert difference(ours(load_network(file, adapter=tmp_path / "theirs"), **times), expected) < 1e-5


def test_an_alpha_that_nothing_asks_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "adapter", adapters())
    for named in (None, folder):
        with pytest.raises(InputError, match="lora_alpha=4 has no effect"):
            with_adapters(CONFIG, network(), choices(named), lora_alpha=4)
    with pytest.raises(InputError, match="lora_alpha=nan: expected a number"):
        with_adapters(CONFIG, network(), (), lora_alpha=float("nan"))


def test_regular_and_averaged_weights_in_one_file(tmp_path: Path) -> None:
    beside(tmp_path)
    averaged = {k.replace("net.", "net_ema.", 1): v for k, v in network(1).items()}
    file = put(tmp_path / "model.pt", network(0, torch.bfloat16) | averaged)
    folder = folder_of(tmp_path / "adapter", adapters())
    convert(file, tmp_path / "both.pt", "pt", weights="both", adapter=folder, dtype=torch.float32)
    content = torch.load(tmp_path / "both.pt", weights_only=True)
    assert {k.split(".")[0] for k in content} == {"net", "net_ema"}
    for weights, seed in (("reg", 0), ("ema", 1)):
        base = network(seed, torch.bfloat16 if weights == "reg" else torch.float32)
        expected = merged({k: v.float() if "accum" not in k else v for k, v in base.items()}, (adapters(), 2.0))
        assert equal(read_tensors(tmp_path / "both.pt", weights), expected)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"fit into one \.pt file"):
        convert(file, tmp_path / "run", "run", weights="both")
    one = put(tmp_path / "one.pt", network())
    with pytest.raises(InputError, match=r"one\.pt has no averaged weights \(EMA\)"):
        convert(one, tmp_path / "new.pt", "pt", weights="both")
    assert not (tmp_path / "new.pt").exists()
