"""Adapters as PEFT stores them, and weights with adapters merged in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nemo_cosmos.atomic import write_json
from nemo_cosmos.checkpoint.files import Weights, iteration_name, replacing_folder
from nemo_cosmos.checkpoint.stream import dtype_of, shape_of
from nemo_cosmos.checksums import Verify, seal_folder, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from nemo_cosmos.models.dit.state_dict import MAX_NAMED
from nemo_cosmos.typed import read_object

SPEC_FILE = "lora_config.json"
"""In a run's checkpoints folder: the adapters that its saves hold."""
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIXES = ("base_model.model.", "transformer.")


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
    return _spec(read_object(path), ("rank", "alpha", "targets"), path)


def save_adapter(folder: Path, spec: LoraSpec, tensors: Mapping[str, Tensor], *, base: str | None = None) -> None:
    """A folder that ``peft.PeftModel.from_pretrained`` loads onto diffusers' CosmosTransformer3DModel.

    Args:
        tensors: ``transformer_blocks.0.attn1.to_q.lora_A`` (rank, in) and ``….lora_B`` (out, rank), and so on.
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
    named = {f"base_model.model.{name}.weight": tensor.contiguous() for name, tensor in tensors.items()}
    with replacing_folder(folder) as temporary:
        save_file(named, temporary / PEFT_WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / PEFT_CONFIG, config, indent=2)
        seal_folder(temporary)


def read_adapter(folder: str | Path, *, verify_files: Verify = "auto") -> tuple[LoraSpec, dict[str, Tensor]]:
    """A PEFT folder -> its size and its tensors, named as :func:`save_adapter` takes them.

    Args:
        verify_files: whether its files are compared with their checksums, where it has them.

    Raises:
        InputError: files are missing or broken, or the adapter is of a kind that cannot be merged here.
    """
    folder = Path(folder)
    if folder.is_dir():
        verify(folder, verify_files)
    for name in (PEFT_CONFIG, PEFT_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; expected a PEFT folder with {PEFT_CONFIG}")
    config = read_object(folder / PEFT_CONFIG)
    plain = {"peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False,
             "use_rslora": False, "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}}  # fmt: skip
    other = [f"{key}={config[key]!r}" for key, value in plain.items() if config.get(key, value) not in (value, None)]
    if other:
        raise InputError(f"{folder / PEFT_CONFIG}: {', '.join(other)}: only plain LoRA of one rank can be merged")
    try:
        stored = load_file(folder / PEFT_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / PEFT_WEIGHTS}: not a readable safetensors file ({error})") from error
    spec = _spec(config, ("r", "lora_alpha", "target_modules"), folder / PEFT_CONFIG)
    return spec, {_plain_name(name): tensor for name, tensor in stored.items()}


def _spec(values: dict[str, Any], names: tuple[str, str, str], file: Path) -> LoraSpec:
    """Rank, alpha and targets of a file under the names it has for them."""
    if missing := [name for name in names if name not in values]:
        raise InputError(f"{file}: the key {missing[0]!r} is missing")
    rank, alpha, targets = (values[name] for name in names)
    try:
        return LoraSpec(rank, alpha, (targets,) if isinstance(targets, str) else targets)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _plain_name(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.removesuffix(".weight").removesuffix(".default")


class MergedWeights(Mapping[str, Tensor]):
    """A state dict with released names in which W + alpha/rank · B·A stands for every W with an adapter.

    Each sum is made in fp32 when the tensor is asked for; it has the wider of the dtypes of W and of the adapter.

    Args:
        base: the frozen weights, names with or without ``net.``.
        adapters: ``transformer_blocks.0.attn1.to_q.lora_A`` and so on.

    Raises:
        InputError: the adapters do not belong to this network.
    """

    def __init__(
        self, config: DiTConfig, base: Mapping[str, Tensor], spec: LoraSpec, adapters: Mapping[str, Tensor]
    ) -> None:
        self.base, self.scale, self.adapters = base, spec.scale, adapters
        self.taken, self.passed_over = getattr(base, "taken", None), getattr(base, "passed_over", ())
        entries = adapter_entries(config, spec)
        self._by_original = {entry.original: entry.diffusers for entry in entries}
        expected = {}
        for entry in entries:
            expected[f"{entry.diffusers}.lora_A"] = (spec.rank, entry.shape[1])
            expected[f"{entry.diffusers}.lora_B"] = (entry.shape[0], spec.rank)
        _check_adapters(expected, adapters)

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without merging it."""
        return shape_of(self.base, name)

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without merging it."""
        base, adapter = dtype_of(self.base, name), self._by_original.get(name.removeprefix("net."))
        return base if adapter is None else torch.promote_types(base, dtype_of(self.adapters, f"{adapter}.lora_A"))

    def __getitem__(self, name: str) -> Tensor:
        weight = self.base[name]
        adapter = self._by_original.get(name.removeprefix("net."))
        if adapter is None:
            return weight
        a, b = (self.adapters[f"{adapter}.{factor}"] for factor in ("lora_A", "lora_B"))
        merged = torch.addmm(weight.float(), b.float(), a.float(), alpha=self.scale)
        return merged.to(torch.promote_types(weight.dtype, a.dtype))


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
