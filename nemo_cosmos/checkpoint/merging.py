"""Low-rank adapters added to the weights that they change: W + scale · B·A."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_cosmos.checkpoint.stream import dtype_of, shape_of
from nemo_cosmos.errors import InputError

_FACTOR = re.compile(r"(?P<module>.+)\.(?P<factor>lora_[AB])(?:\.(?!weight$)(?P<adapter>\w+))?(?:\.weight)?")
_BASE = ".base_layer."
"""What PEFT puts into the name of a layer that it has wrapped, and with it the training code of Predict2."""

ADAPTERS_ALONE = (
    "holds adapters alone: name the weights that they were trained on, and these beside them (--lora of generate, "
    "--adapter of convert, --lora_path of the examples)"
)


class NamedTensors(dict[str, Tensor]):
    """Tensors of one file under their released names, and what was left of the file."""

    taken: str | None = None
    """Which of two kinds of weights these are; None for a file that holds one."""
    passed_over: tuple[str, ...] = ()
    """Names of the entries that are no weights or of the other kind."""


@dataclass(frozen=True)
class Term:
    """One adapter of one matrix W (out, in)."""

    a: Tensor
    """(rank, in)."""
    b: Tensor
    """(out, rank)."""
    scale: float


@dataclass(frozen=True)
class Whole:
    """Weights that were trained whole beside adapters, and how far the network's go towards them."""

    tensor: Tensor
    weight: float = 1.0


class SummedWeights(Mapping[str, Tensor]):
    """A state dict in which W + Σ scale · B·A stands for every W with adapters, and new weights for what was trained
    whole beside them: W + Σ weight · (new - W).

    Each sum is made in fp32 when the tensor is asked for; it has the widest of the dtypes of W and of what is added.

    Args:
        base: the weights, names with or without ``net.``.
        terms: by name without ``net.``; shapes that fit.
        whole: likewise.
    """

    def __init__(
        self,
        base: Mapping[str, Tensor],
        terms: Mapping[str, Sequence[Term]],
        whole: Mapping[str, Sequence[Whole]] | None = None,
    ) -> None:
        self.base, self.terms, self.whole = base, terms, whole or {}
        self.taken: str | None = getattr(base, "taken", None)
        self.grown: str | None = getattr(base, "grown", None)
        self.passed_over: tuple[str, ...] = getattr(base, "passed_over", ())

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without merging it."""
        return shape_of(self.base, name)

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without merging it."""
        dtype = dtype_of(self.base, name)
        for term in self._terms(name):
            dtype = torch.promote_types(dtype, torch.promote_types(term.a.dtype, term.b.dtype))
        for new in self._whole(name):
            dtype = torch.promote_types(dtype, new.tensor.dtype)
        return dtype

    def __getitem__(self, name: str) -> Tensor:
        weight, terms, whole = self.base[name], self._terms(name), self._whole(name)
        if not terms and not whole:
            return weight
        if len(whole) == 1 and whole[0].weight == 1 and not terms:
            return whole[0].tensor.to(self.dtype_of(name))
        merged = weight.float()
        for term in terms:
            merged = torch.addmm(merged, term.b.float(), term.a.float(), alpha=term.scale)
        for new in whole:
            merged = merged + new.weight * (new.tensor.float() - weight.float())
        return merged.to(self.dtype_of(name))

    def _terms(self, name: str) -> Sequence[Term]:
        return self.terms.get(name.removeprefix("net."), ())

    def _whole(self, name: str) -> Sequence[Whole]:
        return self.whole.get(name.removeprefix("net."), ())


@dataclass(frozen=True)
class Factors:
    """What a file has of the adapter of one matrix."""

    tensors: dict[str, Tensor]
    """``lora_A``, ``lora_B``."""
    names: dict[str, str]
    """The same in the file's words."""

    def term(self, origin: str, scale: float | None, *, alpha: float | None = None) -> Term:
        """Both halves; ``scale``, or else ``alpha`` / rank, 1 without.

        Raises:
            InputError: one half is missing, or the two do not fit each other; names the tensor.
        """
        name = next(iter(self.names.values()))
        a, b = (self.tensors.get(factor) for factor in ("lora_A", "lora_B"))
        if a is None or b is None:
            other = name.replace("lora_A", "lora_*").replace("lora_B", "lora_A").replace("lora_*", "lora_B")
            raise InputError(f"{origin}: half an adapter: {name} without {other}; take the file from a copy")
        for factor, tensor in self.tensors.items():
            if tensor.dim() != 2 or not tensor.is_floating_point():
                found = f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
                raise InputError(f"{origin}: {self.names[factor]} is {found}, expected a matrix of numbers")
        rank = a.shape[0]
        if b.shape[1] != rank or not rank:
            raise InputError(
                f"{origin}: {self.names['lora_B']} {list(b.shape)} does not fit {self.names['lora_A']} "
                f"{list(a.shape)}: expected as many columns as that has rows"
            )
        if scale is None:
            scale = 1.0 if alpha is None else alpha / rank
        return Term(a, b, scale)

    def fit(self, origin: str, term: Term, shape: tuple[int, ...]) -> None:
        """InputError where the adapter is not one of a matrix of this shape; names the first tensor at fault."""
        out, columns = shape if len(shape) == 2 else (0, 0)
        for factor, found, expected in (
            ("lora_A", tuple(term.a.shape), (term.a.shape[0], columns)),
            ("lora_B", tuple(term.b.shape), (out, term.b.shape[1])),
        ):
            if found != expected:
                raise InputError(
                    f"{origin}: {self.names[factor]} {list(found)}, expected {list(expected)}: it is the adapter of a "
                    "network of another size"
                )


def split_factors(tensors: Mapping[str, Tensor], origin: str) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """Other tensors, and adapters by the layer that they belong to, named as in the file.

    Raises:
        InputError: a layer has several adapters, or a kind that is no plain LoRA.
    """
    others: dict[str, Tensor] = {}
    found: dict[str, Factors] = {}
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name)
        if match is None:
            if ".lora_" in name:
                raise InputError(f"{origin}: {name}: only plain LoRA, of matrices lora_A and lora_B, can be merged")
            others[name] = tensor
            continue
        factors = found.setdefault(match["module"], Factors({}, {}))
        if match["factor"] in factors.tensors:
            both = f"{factors.names[match['factor']]} and {name}"
            raise InputError(f"{origin}: {both} belong to one layer; keep the adapter that is meant")
        factors.tensors[match["factor"]], factors.names[match["factor"]] = tensor, name
    return others, found


def merge_inside(tensors: NamedTensors, origin: str, alpha: float | None) -> NamedTensors | SummedWeights:
    """The weights of a file that holds adapters beside the layers that they wrap; a file without gives itself.

    Args:
        tensors: names as in the file.
        origin: names the file in errors.
        alpha: scales adapters by alpha / rank; None: by 1, as these files are trained unless told otherwise.

    Raises:
        InputError: half an adapter, one that does not fit its layer or has none, or a file of adapters alone.
    """
    others, found = split_factors(tensors, origin)
    if not found and not any(_BASE in name for name in others):
        return tensors
    if not others:
        raise InputError(f"{origin} {ADAPTERS_ALONE}")
    base = NamedTensors()
    base.taken, base.passed_over = tensors.taken, tensors.passed_over
    for name, tensor in others.items():
        plain = name.replace(_BASE, ".")
        if plain in base:
            raise InputError(f"{origin}: holds {plain} twice, once as a layer with adapters; keep one of the two")
        base[plain] = tensor
    wrapped = {name.rpartition(_BASE)[0] for name in others if _BASE in name}
    if bare := next((module for module in wrapped if module not in found), None):
        raise InputError(f"{origin}: {bare}.base_layer.weight has no adapter: {bare}.lora_A and lora_B are missing")
    terms = {}
    for module, factors in found.items():
        name = f"{module}.weight"
        if module not in wrapped or name not in base:
            first = next(iter(factors.names.values()))
            raise InputError(f"{origin}: {first} without the matrix that it changes, {module}.base_layer.weight")
        term = factors.term(origin, None, alpha=alpha)
        factors.fit(origin, term, tuple(base[name].shape))
        terms[name.removeprefix("net.")] = [term]
    return SummedWeights(base, terms)
