"""Names and shapes of the released files, and the map between them and this package's parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.sharding import global_name
from nemo_cosmos.models.dit.stage import Stage

MAX_NAMED = 20


@dataclass(frozen=True)
class Entry:
    """One parameter of ours and the released tensors that it is made of.

    Several released matrices (D_out, D_in) are interleaved by head: rows ordered (head, matrix, channel).
    """

    name: str
    originals: tuple[str, ...]
    shape: tuple[int, ...]
    """Of each released tensor."""
    heads: int = 1

    def fuse(self, tensors: list[Tensor]) -> Tensor:
        if len(tensors) == 1:
            return tensors[0]
        parts = [tensor.unflatten(0, (self.heads, -1)) for tensor in tensors]
        return torch.stack(parts, dim=1).flatten(0, 2)

    def separate(self, tensor: Tensor) -> list[Tensor]:
        if len(self.originals) == 1:
            return [tensor]
        parts = tensor.unflatten(0, (self.heads, len(self.originals), -1))
        return [part.flatten(0, 1).contiguous() for part in parts.unbind(1)]


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


_PREDICT1 = {
    "time_1": "t_embedder.1.linear_1.weight",
    "time_2": "t_embedder.1.linear_2.weight",
    "time_norm": "affline_norm.weight",
    "self": "blocks.block{i}.blocks.0.block.attn.",
    "cross": "blocks.block{i}.blocks.1.block.attn.",
    "mlp": "blocks.block{i}.blocks.2.block.",
    "q": "to_q.0", "k": "to_k.0", "v": "to_v.0", "out": "to_out.0", "q_norm": "to_q.1", "k_norm": "to_k.1",
    "modulation_self_attention": "blocks.block{i}.blocks.0.adaLN_modulation.",
    "modulation_cross_attention": "blocks.block{i}.blocks.1.adaLN_modulation.",
    "modulation_mlp": "blocks.block{i}.blocks.2.adaLN_modulation.",
    "final": "final_layer.adaLN_modulation.",
}  # fmt: skip
_PREDICT2 = {
    "time_1": "t_embedder.1.linear_1.weight",
    "time_2": "t_embedder.1.linear_2.weight",
    "time_norm": "t_embedding_norm.weight",
    "self": "blocks.{i}.self_attn.",
    "cross": "blocks.{i}.cross_attn.",
    "mlp": "blocks.{i}.mlp.",
    "q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "output_proj", "q_norm": "q_norm", "k_norm": "k_norm",
    "modulation_self_attention": "blocks.{i}.adaln_modulation_self_attn.",
    "modulation_cross_attention": "blocks.{i}.adaln_modulation_cross_attn.",
    "modulation_mlp": "blocks.{i}.adaln_modulation_mlp.",
    "final": "final_layer.adaln_modulation.",
}  # fmt: skip


@cache
def entries(config: DiTConfig) -> tuple[Entry, ...]:
    """Every parameter of the whole network, in the order of the forward pass."""
    names = _PREDICT1 if config.family == "predict1" else _PREDICT2
    width, rank, heads, text = config.hidden_size, config.adaln_lora_dim, config.num_attention_heads, config.text_width
    out: list[Entry] = []

    def add(name: str, originals: str | tuple[str, ...], *shape: int) -> None:
        originals = (originals,) if isinstance(originals, str) else originals
        out.append(Entry(name, originals, shape, heads))

    add("patch_embedding.weight", "x_embedder.proj.1.weight", width, config.patch_features)
    if config.position_embedding == "learnable":
        sizes = (config.max_frames, config.max_height // config.patch_size, config.max_width // config.patch_size)
        for axis, size in zip("thw", sizes, strict=True):
            add(f"position.{axis}", f"extra_pos_embedder.pos_emb_{axis}", size, width)
    if config.multiview:
        add("view_embedding.weight", "view_embeddings.weight", config.num_views, config.view_channels)
        if config.frame_repeat:
            add("view_embedding.frame_repeat.weight", "repeat_frame_embedding.weight", config.view_channels, 1)
            add("view_embedding.frame_repeat.bias", "repeat_frame_embedding.bias", config.view_channels)
    add("time_embedding.linear_1.weight", names["time_1"], width, width)
    add("time_embedding.linear_2.weight", names["time_2"], 3 * width, width)
    add("time_embedding.norm_weight", names["time_norm"], width)
    for i in range(config.num_layers):
        ours, at = f"layers.{i}.", {key: value.format(i=i) for key, value in names.items()}
        qkv = tuple(f"{at['self']}{at[part]}.weight" for part in "qkv")
        add(f"{ours}self_attention.linear_qkv.weight", qkv, width, width)
        add(f"{ours}cross_attention.linear_q.weight", f"{at['cross']}{at['q']}.weight", width, width)
        kv = tuple(f"{at['cross']}{at[part]}.weight" for part in "kv")
        add(f"{ours}cross_attention.linear_kv.weight", kv, width, text)
        for ours_part, part in (("self_attention", "self"), ("cross_attention", "cross")):
            add(f"{ours}{ours_part}.q_layernorm.weight", f"{at[part]}{at['q_norm']}.weight", config.head_dim)
            add(f"{ours}{ours_part}.k_layernorm.weight", f"{at[part]}{at['k_norm']}.weight", config.head_dim)
            add(f"{ours}{ours_part}.linear_proj.weight", f"{at[part]}{at['out']}.weight", width, width)
        add(f"{ours}mlp.linear_fc1.weight", f"{at['mlp']}layer1.weight", config.mlp_size, width)
        add(f"{ours}mlp.linear_fc2.weight", f"{at['mlp']}layer2.weight", width, config.mlp_size)
        for part in ("modulation_self_attention", "modulation_cross_attention", "modulation_mlp"):
            add(f"{ours}{part}.linear_1.weight", f"{at[part]}1.weight", rank, width)
            add(f"{ours}{part}.linear_2.weight", f"{at[part]}2.weight", 3 * width, rank)
    add("final_layer.modulation.linear_1.weight", f"{names['final']}1.weight", rank, width)
    add("final_layer.modulation.linear_2.weight", f"{names['final']}2.weight", 2 * width, rank)
    patch_out = config.patch_size**2 * config.out_channels
    add("final_layer.linear.weight", "final_layer.linear.weight", patch_out, width)
    return tuple(out)


@cache
def original_shapes(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    """Released parameter names, without prefix, and their shapes."""
    return {name: entry.shape for entry in entries(config) for name in entry.originals}


def original_buffers(config: DiTConfig) -> dict[str, Tensor]:
    """What released files carry beside parameters: position buffers, and the counters of Predict2."""
    lengths = (config.max_frames, config.max_height // config.patch_size, config.max_width // config.patch_size)
    tables = {"seq": torch.arange(max(lengths), dtype=torch.float32)}
    if config.family == "predict1":
        return {"pos_embedder.seq": tables["seq"]}
    spatial = config.head_dim // 6 * 2
    temporal = config.head_dim - 2 * spatial
    tables["dim_spatial_range"] = torch.arange(0, spatial, 2, dtype=torch.float32) / spatial
    tables["dim_temporal_range"] = torch.arange(0, temporal, 2, dtype=torch.float32) / temporal
    counters = ("accum_video_sample_counter", "accum_image_sample_counter", "accum_iteration")
    buffers = {name: torch.tensor(0, dtype=torch.int64) for name in counters}
    buffers["accum_train_in_hours"] = torch.tensor(0.0)
    cameras = range(1, config.num_views + 1)
    prefixes = [f"pos_embedder_options.n_cameras_{n}" for n in cameras] if config.multiview else ["pos_embedder"]
    return {**buffers, **{f"{prefix}.{name}": t.clone() for prefix in prefixes for name, t in tables.items()}}


def compare(config: DiTConfig, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """What a load of ``state_dict`` (released names, with or without ``net.``) would find; nothing is read."""
    # A file's tensors know what else it held.
    report = LoadReport(taken=getattr(state_dict, "taken", None))
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
                         f"width {config.hidden_size})\n{report}")  # fmt: skip
    return report


def load(net: Stage, state_dict: Mapping[str, Tensor], *, strict: bool) -> LoadReport:
    """See :meth:`CosmosDiT.load_original`."""
    config = net.dit_config
    report = check(config, state_dict, strict=strict)
    given = {name.removeprefix("net."): name for name in state_dict}
    usable = set(original_shapes(config)) - set(report.missing) - {text.split(":")[0] for text in report.misshapen}
    parameters = {global_name(net, name): parameter for name, parameter in net.named_parameters()}
    with torch.no_grad():
        for entry in entries(config):
            if entry.name in parameters and all(name in usable for name in entry.originals):
                tensors = [state_dict[given[name]] for name in entry.originals]
                _copy_shard(net, parameters[entry.name], entry.fuse(tensors))
    net.original_extras = {name: state_dict[given[name]] for name in original_buffers(config) if name in given}
    return report


def _copy_shard(net: Stage, parameter: Tensor, whole: Tensor) -> None:
    if getattr(parameter, "tensor_model_parallel", False):
        dim = parameter.partition_dim  # type: ignore[attr-defined]
        whole = whole.chunk(net.groups.tensor_size, dim=dim)[net.groups.tensor_rank]
    parameter.copy_(whole)


def export(net: Stage) -> dict[str, Tensor]:
    """See :meth:`CosmosDiT.to_original`."""
    if net.groups.tensor_size > 1 or net.groups.pipeline_size > 1:
        raise RuntimeError("the network is split over processes; export it through nemo_cosmos.checkpoint")
    if net.lora is not None:
        raise RuntimeError("the network has adapters, which these names do not hold; merge them first")
    parameters = dict(net.named_parameters())
    whole = {entry.name: parameters[entry.name].detach() for entry in entries(net.dit_config)}
    return to_original(net.dit_config, whole, net.original_extras)


def to_original(
    config: DiTConfig, parameters: Mapping[str, Tensor], extras: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Whole parameters under our names -> released names with the ``net.`` prefix, buffers included.

    ``extras`` are buffers as a file carried them; the others are made anew.
    """
    out = {f"net.{name}": tensor for name, tensor in {**original_buffers(config), **(extras or {})}.items()}
    for entry in entries(config):
        for name, tensor in zip(entry.originals, entry.separate(parameters[entry.name]), strict=True):
            out[f"net.{name}"] = tensor.clone()
    return out
