"""Released files to this package's parameters and back, by the table of parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.families import FAMILIES
from nemo_cosmos.models.dit.growth import grown_weights
from nemo_cosmos.models.dit.parameters import parameters
from nemo_cosmos.models.dit.sharding import global_name
from nemo_cosmos.models.dit.stage import Stage

MAX_NAMED = 20


@dataclass
class LoadReport:
    """What a load found; names are the released ones without prefix."""

    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    """``name: shape found, shape expected``."""
    passed_over: list[str] = field(default_factory=list)
    """Names that hold nothing for the network: ``logvar.*``, ``*_extra_state``, position tables, counters, entries
    that are no tensors, and the averaged weights of a file whose regular ones are taken, or the reverse."""
    taken: str | None = None
    """Which weights of a file that holds regular and averaged ones."""
    grown: str | None = None
    """What was added to weights of a network with fewer input channels."""

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        lines = [
            f"{self.matched} tensors loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.misshapen)} misshapen, {len(self.passed_over)} passed over{self._kinds()}"
        ]
        if self.taken is not None:
            lines[0] = f"{self.taken}; {lines[0]}"
        if self.grown is not None:
            lines.append(f"  grown: {self.grown}")
        for title, names in (
            ("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", self.misshapen)
        ):  # fmt: skip
            if names:
                more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
                lines.append(f"  {title}: {', '.join(names[:MAX_NAMED])}{more}")
        return "\n".join(lines)

    def _kinds(self) -> str:
        """How many entries of which kind were passed over, in brackets."""
        kinds = Counter(
            "_extra_state" if name.endswith("_extra_state") else f"{name.split('.')[0]}.*" if "." in name else name
            for name in self.passed_over
        )
        return f" ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common(5))})" if kinds else ""


@cache
def original_shapes(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    """Released parameter names, without prefix, and their shapes."""
    return {name: parameter.shape for parameter in parameters(config) for name in parameter.released}


def original_buffers(config: DiTConfig) -> dict[str, Tensor]:
    """What released files of the family carry beside parameters: position buffers, and counters."""
    described = FAMILIES[config.family].buffers
    spatial = config.head_dim // 6 * 2
    temporal = config.head_dim - 2 * spatial
    tables = {
        "seq": torch.arange(max(config.position_lengths), dtype=torch.float32),
        "dim_spatial_range": torch.arange(0, spatial, 2, dtype=torch.float32) / spatial,
        "dim_temporal_range": torch.arange(0, temporal, 2, dtype=torch.float32) / temporal,
    }
    prefixes = [described.prefix]
    if config.multiview and described.views_prefix is not None:
        prefixes = [described.views_prefix.format(n=n) for n in range(1, config.num_views + 1)]
    buffers = {name: torch.zeros((), dtype=dtype) for name, dtype in described.counters}
    return {**buffers, **{f"{prefix}{name}": tables[name].clone() for prefix in prefixes for name in described.tables}}


def compare(config: DiTConfig, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """What a load of ``state_dict`` (released names, with or without ``net.``) would find; nothing is read."""
    # A file's tensors know what else it held.
    report = LoadReport(taken=getattr(state_dict, "taken", None), grown=getattr(state_dict, "grown", None))
    report.passed_over = list(getattr(state_dict, "passed_over", ()))
    given = {name.removeprefix("net."): name for name in state_dict}
    shapes, buffers = original_shapes(config), original_buffers(config)
    report.missing = [name for name in shapes if name not in given]
    for name in given:
        if name in shapes:
            continue
        known = name in buffers or name.startswith(("logvar.", "net_ema.")) or name.endswith("_extra_state")
        (report.passed_over if known else report.unexpected).append(name)
    # A mapping that makes tensors on demand knows their shapes without making them.
    shape_of = getattr(state_dict, "shape_of", None) or (lambda key: getattr(state_dict[key], "shape", None))
    for name, shape in shapes.items():
        if name in given:
            found = shape_of(given[name])
            if found == shape:
                report.matched += 1
            else:
                text = "no tensor" if found is None else str(list(found))
                report.misshapen.append(f"{name}: {text}, expected {list(shape)}")
    return report


def check(config: DiTConfig, state_dict: Mapping[str, Tensor], *, strict: bool = True) -> LoadReport:
    """:func:`compare`, and InputError where something is missing, unknown or misshapen and ``strict`` is true."""
    report = compare(config, state_dict)
    if strict and not report.complete:
        raise InputError(f"the state dict does not fit the network {config.family} ({config.num_layers} layers of "
                         f"width {config.hidden_size})\n{report}{_how_to_grow(config, state_dict)}")  # fmt: skip
    return report


def _how_to_grow(config: DiTConfig, state_dict: Mapping[str, Tensor]) -> str:
    """What to do about weights that lack input channels alone; nothing for others."""
    if not compare(config, grown_weights(config, state_dict)).complete:
        return ""
    return (
        "\n  they are of the network without camera rays: train from them (model.init_from), which adds zero columns, "
        "or make a file of them with `nemo-cosmos convert --preset`"
    )


def load(net: Stage, state_dict: Mapping[str, Tensor], *, strict: bool) -> LoadReport:
    """See :meth:`CosmosDiT.load_original`."""
    config = net.dit_config
    report = check(config, state_dict, strict=strict)
    given = {name.removeprefix("net."): name for name in state_dict}
    usable = set(original_shapes(config)) - set(report.missing) - {text.split(":")[0] for text in report.misshapen}
    own = {global_name(net, name): parameter for name, parameter in net.named_parameters()}
    size, rank = net.groups.tensor_size, net.groups.tensor_rank
    with torch.no_grad():
        for parameter in parameters(config):
            if parameter.name in own and all(name in usable for name in parameter.released):
                whole = parameter.fuse([state_dict[given[name]] for name in parameter.released])
                own[parameter.name].copy_(parameter.shard(whole, size, rank))
    net.original_extras = {name: state_dict[given[name]] for name in original_buffers(config) if name in given}
    return report


def export(net: Stage) -> dict[str, Tensor]:
    """See :meth:`CosmosDiT.to_original`."""
    if net.groups.tensor_size > 1 or net.groups.pipeline_size > 1:
        raise RuntimeError("the network is split over processes; export it through nemo_cosmos.checkpoint")
    if net.lora is not None:
        raise RuntimeError("the network has adapters, which these names do not hold; merge them first")
    own = dict(net.named_parameters())
    whole = {parameter.name: own[parameter.name].detach() for parameter in parameters(net.dit_config)}
    return to_original(net.dit_config, whole, net.original_extras)


def to_original(
    config: DiTConfig, whole: Mapping[str, Tensor], extras: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Whole parameters under our names -> released names with the ``net.`` prefix, buffers included.

    ``extras`` are buffers as a file carried them; the others are made anew.
    """
    out = {f"net.{name}": tensor for name, tensor in {**original_buffers(config), **(extras or {})}.items()}
    for parameter in parameters(config):
        for name, tensor in zip(parameter.released, parameter.separate(whole[parameter.name]), strict=True):
            out[f"net.{name}"] = tensor.clone()
    return out
