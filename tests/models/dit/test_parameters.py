"""The table of parameters: complete, without doubles, and the same as the network, diffusers and PEFT have it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from megatron.core import parallel_state

from nemo_cosmos.checkpoint.diffusers import diffusers_config, diffusers_names
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import PRESETS, DiTConfig, build_dit, transformer_config
from nemo_cosmos.models.dit.families import FAMILIES
from nemo_cosmos.models.dit.init import RULES
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from nemo_cosmos.models.dit.parameters import parameters
from tests.parallel.processes import run_processes

TINY = [name for name in PRESETS if name.startswith("tiny-")]
WITHOUT_CLASS = [name for name in PRESETS if "multiview" in name or "camera" in name]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
ADAPTED = {
    "predict1": [f"blocks.block{{i}}.blocks.{n}.block.attn.{m}.weight" for n in (0, 1)
                 for m in ("to_q.0", "to_k.0", "to_v.0", "to_out.0")]
    + [f"blocks.block{{i}}.blocks.2.block.{m}.weight" for m in ("layer1", "layer2")],
    "predict2": [f"blocks.{{i}}.{part}_attn.{m}.weight" for part in ("self", "cross")
                 for m in ("q_proj", "k_proj", "v_proj", "output_proj")]
    + [f"blocks.{{i}}.mlp.{m}.weight" for m in ("layer1", "layer2")],
}  # fmt: skip
"""Released names of the matrices that the makers' own adapters stand on: ten in a layer."""


@pytest.mark.parametrize("preset", PRESETS)
def test_covers_the_network(preset: str) -> None:
    config = DiTConfig.preset(preset)
    with torch.device("meta"):
        net = build_dit(config)
    built = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    stated = {p.name: (len(p.released) * p.shape[0], *p.shape[1:]) for p in parameters(config)}
    assert stated == built
    assert len(parameters(config)) == len(stated)
    released = [name for p in parameters(config) for name in p.released]
    assert len(set(released)) == len(released)
    assert all(p.initial in RULES for p in parameters(config))


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in WITHOUT_CLASS])
def test_names_of_diffusers(preset: str) -> None:
    config = DiTConfig.preset(preset)
    with torch.device("meta"):
        model = CosmosTransformer3DModel(**diffusers_config(config))
    stated = [
        (name, p.shape) for p in parameters(config) for name in p.diffusers or pytest.fail(f"{p.name}: no name there")
    ]
    assert len(dict(stated)) == len(stated)
    assert dict(stated) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert diffusers_names(config).keys() == dict(stated).keys()


@pytest.mark.parametrize("preset", WITHOUT_CLASS)
def test_networks_without_a_class_there(preset: str) -> None:
    for ask in (diffusers_names, diffusers_config):
        with pytest.raises(InputError, match=r"no form with (several views|camera rays); convert to a \.pt file"):
            ask(DiTConfig.preset(preset))


@pytest.mark.parametrize("preset", TINY)
def test_fused_matrices_come_apart(preset: str) -> None:
    for parameter in parameters(DiTConfig.preset(preset)):
        parts = [torch.randn(parameter.shape) for _ in parameter.released]
        fused = parameter.fuse(parts)
        assert all(map(torch.equal, parameter.separate(fused), parts))
        shards = [parameter.shard(fused, 2, rank) for rank in range(2)]
        if parameter.tensor_axis is None:
            assert torch.equal(shards[0], shards[1])
        else:
            assert torch.equal(torch.cat(shards, parameter.tensor_axis), fused)


@pytest.mark.parametrize("preset", PRESETS)
def test_adapters_stand_on_attention_and_mlp(preset: str) -> None:
    config = DiTConfig.preset(preset)
    every = adapter_entries(config, LoraSpec(4, 4.0, (*ATTENTION, "ff.net.0.proj", "ff.net.2")))
    layers = range(config.num_layers)
    assert sorted(entry.original for entry in every) == sorted(
        name.format(i=i) for name in ADAPTED[config.family] for i in layers
    )
    named = [f"attn{n}.{part}" for n in (1, 2) for part in ATTENTION] + ["ff.net.0.proj", "ff.net.2"]
    assert {entry.diffusers for entry in every} == {f"transformer_blocks.{i}.{name}" for i in layers for name in named}
    one = adapter_entries(config, LoraSpec(4, 4.0, ("attn2.to_k",)))
    assert [entry.diffusers for entry in one] == [f"transformer_blocks.{i}.attn2.to_k" for i in layers]


def test_tensor_axis_is_the_layers_own(tmp_path: Path) -> None:
    run_processes(2, _compare_axes, log=tmp_path)


def _compare_axes() -> None:
    torch.distributed.init_process_group("gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=2)
    for preset in TINY:
        config = DiTConfig.preset(preset, num_layers=1)
        net = build_dit(config, transformer=transformer_config(config, tensor_model_parallel_size=2), seed=1)
        whole = dict(build_dit(config, seed=1).named_parameters())
        own = dict(net.named_parameters())
        assert any(p.tensor_axis is not None for p in parameters(config))
        for p in parameters(config):
            found = own[p.name]
            axis = found.partition_dim if getattr(found, "tensor_model_parallel", False) else None
            assert axis == p.tensor_axis, f"{p.name}: {axis}, in the table {p.tensor_axis}"
            assert torch.equal(found, p.shard(whole[p.name], 2, net.groups.tensor_rank)), p.name
    torch.distributed.destroy_process_group()


def test_every_family_has_networks_and_no_two_look_alike() -> None:
    assert {fields["family"] for fields in PRESETS.values()} == set(FAMILIES)
    settings = [family.diffusers.settings for family in FAMILIES.values() if family.diffusers is not None]
    assert all(one != other for i, one in enumerate(settings) for other in settings[:i])
    with pytest.raises(InputError, match="family='predict9': expected 'predict1' or 'predict2'"):
        DiTConfig.preset("tiny-video2world", family="predict9")
