"""Adapters from files of others and of our own, to be added to the weights of a network."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemo_cosmos.checkpoint.merging import Factors, SummedWeights, Term, Whole, split_factors
from nemo_cosmos.checksums import Verify, verify
from nemo_cosmos.choices import Weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.families import LORA_TARGETS
from nemo_cosmos.models.dit.growth import grown_weights, patch_embedding_name
from nemo_cosmos.models.dit.lora import AdapterEntry, LoraSpec, adapter_entries
from nemo_cosmos.models.dit.parameters import parameters
from nemo_cosmos.models.torch_files import read_parts
from nemo_cosmos.typed import parse_json, read_object

logger = logging.getLogger(__name__)

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_ALPHA = 1e9
_WRAPPERS = re.compile(r"^(?:(?:base_model|model|module|net|transformer|diffusion_model)\.)+")
"""What programs put before the name of a layer."""
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False, "use_rslora": False,
    "lora_bias": False, "rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None,
    "target_parameters": None, "trainable_token_indices": None, "use_qalora": False, "alora_invocation_tokens": None,
}  # fmt: skip
"""Settings of PEFT with which an adapter is W + alpha / rank · B·A of one rank and nothing else."""
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda")
"""Ways to begin (``init_lora_weights``) that take something away from W."""
_COPY = re.compile(r"\.modules_to_save(?:\.\w+)?(?=\.)")
"""What PEFT puts into the name of a weight that is trained whole."""
_METADATA = "lora_adapter_metadata"
"""Where diffusers notes the settings of PEFT within a file of adapters."""


class PeftSettings(NamedTuple):
    """What a file says of its adapters besides the tensors."""

    rank: int
    alpha: float
    targets: tuple[str, ...] | None
    """Names of layers or their ends; None: those that have tensors."""
    everywhere: bool
    """Whether every layer of such a name has an adapter."""
    whole: tuple[str, ...] = ()
    """Names of modules, or their ends, whose weights were trained whole (PEFT's ``modules_to_save``)."""


class AdapterFile(NamedTuple):
    """Adapters as they lie in one file or folder."""

    settings: PeftSettings | None
    """None for a file that holds tensors alone."""
    tensors: Mapping[str, Tensor]
    """``transformer_blocks.0.attn1.to_q.lora_A`` (rank, in), ``….lora_B`` (out, rank); layers as in the file."""
    path: Path
    factors: Mapping[str, Factors]
    """The same by layer."""
    whole: Mapping[str, Tensor] = {}
    """Weights that were trained whole beside them; names as in the file."""


@dataclass(frozen=True)
class AdapterChoice:
    """Adapters that a user names, and how much of them is added: ``PATH`` or ``PATH:0.7``."""

    path: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight) or abs(self.weight) > 1000:
            raise InputError(
                f"{self.path}: the weight {self.weight} of the adapters; expected a number of at most 1000"
            )

    @classmethod
    def parse(cls, text: str | Path) -> AdapterChoice:
        """A path, with ``:WEIGHT`` behind it where no file has the whole as its name."""
        path, colon, weight = str(text).rpartition(":")
        if not colon or not path or Path(text).exists():
            return cls(Path(text))
        try:
            number = float(weight)
        except ValueError:
            if Path(path).exists():
                raise InputError(f"{text}: {weight!r} is no weight; expected PATH:NUMBER, like {path}:0.7") from None
            return cls(Path(text))
        return cls(Path(path), number)

    def __str__(self) -> str:
        return str(self.path) if self.weight == 1 else f"{self.path}:{self.weight:g}"


Adapters = str | Path | Sequence[str | Path | AdapterChoice] | None
"""One of them, or several; see :func:`choices`."""


def choices(adapters: Adapters) -> tuple[AdapterChoice, ...]:
    """What was named, as choices; a text may say ``PATH:WEIGHT``."""
    named = () if adapters is None else (adapters,) if isinstance(adapters, str | Path) else adapters
    return tuple(one if isinstance(one, AdapterChoice) else AdapterChoice.parse(one) for one in named)


def read_adapter(path: str | Path, *, weights: Weights = "ema", verify_files: Verify = "auto") -> AdapterFile:
    """A PEFT folder, or a ``.safetensors`` or ``.pt`` file with adapters; tensors beside them are left, but for those
    that the file says were trained with the adapters.

    Args:
        weights: which of a ``.pt`` file that holds averaged ones beside the regular ones.
        verify_files: whether its files are compared with their checksums, where it has them.

    Raises:
        InputError: files are missing or broken, or the adapter is of a kind that cannot be merged here.
    """
    path = Path(path)
    if path.is_dir() or path.is_file():
        verify(path, verify_files)
    settings: PeftSettings | None = None
    if path.is_file():
        stored, settings = _read_file(path, weights)
    else:
        for name in (PEFT_CONFIG, PEFT_WEIGHTS):
            if not (path / name).is_file():
                saved = sorted([*path.glob("iter_*_lora"), *path.glob("checkpoints/iter_*_lora")])
                hint = f", such as {saved[-1]}" if saved else ""
                raise InputError(f"{path / name}: no such file; expected a PEFT folder with {PEFT_CONFIG}{hint}")
        settings = _settings(read_object(path / PEFT_CONFIG), path / PEFT_CONFIG)
        stored, _ = _read_safetensors(path / PEFT_WEIGHTS)
    others, found = split_factors(stored, str(path))
    if not found:
        raise InputError(f"{path}: no adapters in it: expected tensors named ….lora_A and ….lora_B")
    whole, others = _trained_whole(others, settings, path)
    if path.is_dir() and others:
        raise InputError(f"{path / PEFT_WEIGHTS}: {next(iter(others))} is no part of a plain adapter")
    if others:
        logger.info("%s: %d tensors that are no adapters are left", path, len(others))
    factors: dict[str, Factors] = {}
    for module, one in found.items():
        plain = _WRAPPERS.sub("", module)
        if plain in factors:
            raise InputError(f"{path}: two adapters of {plain}; keep the one that is meant")
        factors[plain] = one
    tensors = {f"{module}.{name}": tensor for module, one in factors.items() for name, tensor in one.tensors.items()}
    return AdapterFile(settings, tensors, path, factors, whole)


def _trained_whole(
    others: Mapping[str, Tensor], settings: PeftSettings | None, path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights that the settings say were trained whole, by their plain names, and the rest as it is."""
    whole: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    wanted = settings.whole if settings is not None else ()
    found = set()
    for name, tensor in others.items():
        plain = _COPY.sub("", _WRAPPERS.sub("", name))
        parents = [plain.rsplit(".", count)[0] for count in range(1, plain.count(".") + 1)]
        ends = [end for end in wanted if any(one == end or one.endswith(f".{end}") for one in parents)]
        found.update(ends)
        (whole if ends else rest)[plain if ends else name] = tensor
    if missing := [name for name in wanted if name not in found]:
        file = path / PEFT_CONFIG if path.is_dir() else path
        raise InputError(
            f"{file}: modules_to_save={list(wanted)}: there is no tensor of {missing[0]}: it is not whole"
        )
    return whole, rest


def with_adapters(
    config: DiTConfig,
    state: Mapping[str, Tensor],
    adapters: Sequence[AdapterChoice],
    *,
    lora_alpha: float | None = None,
    weights: Weights = "ema",
    verify_files: Verify = "auto",
) -> Mapping[str, Tensor]:
    """The weights of a network with adapters added: W + Σ weight · alpha / rank · B·A.

    What was trained whole beside them replaces the network's, with a weight in proportion. Where that is a patch
    embedding with more input channels than the weights have, these are grown first.

    Args:
        state: released names, with or without ``net.``; already with those of its own file.
        lora_alpha: of adapters whose files do not say it, those in the file of the weights included.

    Raises:
        InputError: adapters that cannot be read or are of another network, naming the first tensor that does not fit;
            a ``lora_alpha`` that nothing asks for.
    """
    if lora_alpha is not None and not 0 <= lora_alpha <= MOST_ALPHA:
        raise InputError(f"lora_alpha={lora_alpha:g}: expected a number from 0 to {MOST_ALPHA:g}")
    asks = isinstance(state, SummedWeights)
    terms: dict[str, list[Term]] = {}
    whole: dict[str, list[Whole]] = {}
    for choice in adapters:
        file = read_adapter(choice.path, weights=weights, verify_files=verify_files)
        asks = asks or file.settings is None
        for name, term in _terms(config, file, choice.weight, lora_alpha):
            terms.setdefault(name, []).append(term)
        for name, tensor in _whole(config, file):
            whole.setdefault(name, []).append(Whole(tensor, choice.weight))
    if patch_embedding_name(config) in whole:
        state = grown_weights(config, state)
    if lora_alpha is not None and not asks:
        raise InputError(f"lora_alpha={lora_alpha:g} has no effect: there are no adapters, or their files say it")
    return SummedWeights(state, terms, whole) if terms else state


def _whole(config: DiTConfig, file: AdapterFile) -> Iterator[tuple[str, Tensor]]:
    """(released name, weight) of what was trained whole; InputError for what is not the network's."""
    known = {
        name: (released, parameter.shape)
        for parameter in parameters(config)
        for theirs, released in zip(parameter.diffusers or parameter.released, parameter.released, strict=True)
        for name in (theirs, released)
    }
    for name, tensor in file.whole.items():
        if name not in known:
            raise InputError(f"{file.path}: {name}: the network {_described(config)} has no such weights")
        released, shape = known[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise InputError(
                f"{file.path}: {name} {list(tensor.shape)}, expected {list(shape)}: it belongs to a network of "
                "another size or with other inputs"
            )
        yield released, tensor


def _terms(
    config: DiTConfig, file: AdapterFile, weight: float, lora_alpha: float | None
) -> Iterator[tuple[str, Term]]:
    entries = adapter_entries(config, _EVERYWHERE)
    named = {name: entry for entry in entries for name in _names(entry)}
    settings, seen = file.settings, set()
    scale = None if settings is None else settings.alpha / settings.rank
    for module, factors in file.factors.items():
        entry, first = named.get(module), next(iter(factors.names.values()))
        if entry is None:
            raise InputError(f"{file.path}: {first}: the network {_described(config)} has no such matrix to adapt")
        if entry.original in seen:
            raise InputError(f"{file.path}: {first}: a second adapter of this matrix; keep the one that is meant")
        seen.add(entry.original)
        term = factors.term(str(file.path), scale, alpha=lora_alpha)
        if settings is not None and term.a.shape[0] != settings.rank:
            expected = [settings.rank, term.a.shape[1]]
            raise InputError(f"{file.path}: {factors.names['lora_A']} {list(term.a.shape)}, expected {expected}")
        factors.fit(str(file.path), term, entry.shape)
        yield entry.original, Term(term.a, term.b, term.scale * weight)
    for entry in entries:
        if settings is not None and settings.everywhere and entry.original not in seen and _covers(settings, entry):
            raise InputError(
                f"{file.path}: no adapter of {entry.diffusers}: it is not whole, or of another network than "
                f"{_described(config)}"
            )


_EVERYWHERE = LoraSpec(1, 1, tuple(dict.fromkeys(name for names in LORA_TARGETS.values() for name in names)))


def _names(entry: AdapterEntry) -> tuple[str, str, str]:
    """What a matrix is called in PEFT's files for diffusers, for the original network, and in our saves."""
    return entry.diffusers, entry.original.removesuffix(".weight"), entry.ours


def _covers(settings: PeftSettings, entry: AdapterEntry) -> bool:
    ends = settings.targets or ()
    return any(name == end or name.endswith(f".{end}") for name in _names(entry)[:2] for end in ends)


def _described(config: DiTConfig) -> str:
    return f"of {config.num_layers} layers of width {config.hidden_size}"


def _read_file(path: Path, weights: Weights) -> tuple[Mapping[str, Tensor], PeftSettings | None]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    parts = read_parts(path)
    return (parts.averaged if parts.averaged and weights == "ema" else parts.regular or parts.averaged), None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], PeftSettings | None]:
    try:
        with safe_open(path, framework="pt") as file:
            noted = (file.metadata() or {}).get(_METADATA)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    if noted is None:
        return tensors, None
    try:
        values = parse_json(noted)
    except (ValueError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: its {_METADATA} is damaged ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: its {_METADATA} is no object")
    return tensors, _settings({key.removeprefix("transformer."): value for key, value in values.items()}, path)


def _settings(values: Mapping[str, Any], file: Path) -> PeftSettings:
    """What matters of PEFT's settings; InputError for those that change what an adapter computes."""
    other = [f"{key}={values[key]!r}" for key, value in _PLAIN.items() if values.get(key, value) not in (value, None)]
    start = values.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        other.append(f"init_lora_weights={start!r}")
    if other:
        raise InputError(f"{file}: {', '.join(other)}: only plain LoRA of one rank can be merged")
    if missing := [name for name in ("r", "lora_alpha", "target_modules") if name not in values]:
        raise InputError(f"{file}: the key {missing[0]!r} is missing")
    rank, alpha, targets = values["r"], values["lora_alpha"], values["target_modules"]
    if type(rank) is not int or not 0 < rank <= 1 << 16:
        raise InputError(f"{file}: r={str(rank)[:80]}: expected a whole number from 1 to {1 << 16}")
    if type(alpha) not in (int, float) or not 0 <= alpha <= MOST_ALPHA:
        raise InputError(f"{file}: lora_alpha={str(alpha)[:80]}: expected a number from 0 to {MOST_ALPHA:g}")
    if not isinstance(targets, str) and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        raise InputError(f"{file}: target_modules={str(targets)[:80]}: expected names of layers")
    # A single text is a pattern.
    names = None if isinstance(targets, str) else tuple(targets)
    whole = values.get("modules_to_save") or ()
    if not isinstance(whole, list | tuple) or not all(isinstance(name, str) and name for name in whole):
        raise InputError(f"{file}: modules_to_save={str(whole)[:80]}: expected names of modules")
    some = any(values.get(key) for key in ("layers_to_transform", "exclude_modules"))
    return PeftSettings(rank, alpha, names, everywhere=names is not None and not some, whole=tuple(whole))
