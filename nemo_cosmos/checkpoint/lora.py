"""Adapters as PEFT stores them, and weights with adapters merged in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from nemo_cosmos.atomic import write_json
from nemo_cosmos.checkpoint.adapters import PEFT_CONFIG, PEFT_WEIGHTS
from nemo_cosmos.checkpoint.adapters import read_adapter as read_adapter
from nemo_cosmos.checkpoint.files import Weights, iteration_name, replacing_folder
from nemo_cosmos.checkpoint.merging import SummedWeights, Term
from nemo_cosmos.checkpoint.stream import shape_of
from nemo_cosmos.checksums import seal_folder
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from nemo_cosmos.models.dit.state_dict import MAX_NAMED
from nemo_cosmos.typed import read_object

SPEC_FILE = "lora_config.json"
"""In a run's checkpoints folder: the adapters that its saves hold."""


def adapter_folder(folder: Path, step: int, weights: Weights) -> Path:
    """The PEFT folder of one save of a run with adapters."""
    return folder / f"{iteration_name(step)}_{weights}_lora"


def write_spec(folder: Path, spec: LoraSpec) -> None:
    """Record the adapters of a run."""
    write_json(folder / SPEC_FILE, dataclasses.asdict(spec), indent=2)


def read_spec(folder: Path) -> LoraSpec | None:
    """The adapters of a run, None where every weight is trained."""
    path = folder / SPEC_FILE
    if not path.is_file():
        return None
    values = read_object(path)
    if missing := [name for name in ("rank", "alpha", "targets") if name not in values]:
        raise InputError(f"{path}: the key {missing[0]!r} is missing")
    rank, alpha, targets, also = (values.get(name, ()) for name in ("rank", "alpha", "targets", "also_train"))
    if not all(isinstance(names, list | tuple) and all(type(n) is str for n in names) for names in (targets, also)):
        raise InputError(f"{path}: targets and also_train: expected lists of names")
    try:
        return LoraSpec(rank, alpha, tuple(targets), tuple(also))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def save_adapter(
    folder: Path,
    spec: LoraSpec,
    tensors: Mapping[str, Tensor],
    *,
    whole: Mapping[str, Tensor] | None = None,
    base: str | None = None,
) -> None:
    """A folder that ``peft.PeftModel.from_pretrained`` loads onto diffusers' CosmosTransformer3DModel.

    Args:
        tensors: ``transformer_blocks.0.attn1.to_q.lora_A`` (rank, in) and ``….lora_B`` (out, rank), and so on.
        whole: weights that were trained whole, by diffusers' names: ``patch_embed.proj.weight``.
        base: recorded as ``base_model_name_or_path``.

    Raises:
        InputError: the folder cannot be written; what stood there before stays.
    """
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "target_modules": list(spec.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    if whole:
        config["modules_to_save"] = [name.removesuffix(".weight") for name in whole]
    named = {f"base_model.model.{name}.weight": tensor.contiguous() for name, tensor in tensors.items()}
    named |= {f"base_model.model.{name}": tensor.contiguous() for name, tensor in (whole or {}).items()}
    with replacing_folder(folder) as temporary:
        save_file(named, temporary / PEFT_WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / PEFT_CONFIG, config, indent=2)
        seal_folder(temporary)


class MergedWeights(SummedWeights):
    """The weights of a run with its adapters.

    Args:
        base: the frozen weights, names with or without ``net.``.
        adapters: ``transformer_blocks.0.attn1.to_q.lora_A`` and so on.

    Raises:
        InputError: the adapters do not belong to this network.
    """

    def __init__(
        self, config: DiTConfig, base: Mapping[str, Tensor], spec: LoraSpec, adapters: Mapping[str, Tensor]
    ) -> None:
        entries = adapter_entries(config, spec)
        expected = {}
        for entry in entries:
            expected[f"{entry.diffusers}.lora_A"] = (spec.rank, entry.shape[1])
            expected[f"{entry.diffusers}.lora_B"] = (entry.shape[0], spec.rank)
        _check_adapters(expected, adapters)
        factors = {
            entry.original: [adapters[f"{entry.diffusers}.{factor}"] for factor in ("lora_A", "lora_B")]
            for entry in entries
        }
        super().__init__(base, {name: [Term(a, b, spec.scale)] for name, (a, b) in factors.items()})


def _check_adapters(expected: Mapping[str, tuple[int, ...]], adapters: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in adapters]
    unexpected = [name for name in adapters if name not in expected]
    misshapen = [
        f"{name}: {list(shape_of(adapters, name))}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in adapters and shape_of(adapters, name) != shape
    ]
    lines = []
    for title, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)):
        if names:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            lines.append(f"  {len(names)} {title}: {', '.join(names[:MAX_NAMED])}{more}")
    if lines:
        raise InputError("the adapters do not fit the network\n" + "\n".join(lines))
