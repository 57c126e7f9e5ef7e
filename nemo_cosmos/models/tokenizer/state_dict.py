"""Released key layouts of tokenizer weights: model keys, JIT state dicts, training checkpoints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.config import PRESETS, TokenizerConfig
from nemo_cosmos.models.torch_files import Parts, split

CONSTANT_BUFFERS = (
    "encoder.patcher3d.wavelets",
    "encoder.patcher3d._arange",
    "encoder.patcher3d.patch_size_buffer",
    "decoder.unpatcher3d.wavelets",
    "decoder.unpatcher3d._arange",
    "quantizer._levels",
    "quantizer._basis",
    "quantizer.implicit_codebook",
)
"""Constants of the released files. Training checkpoints leave them out, so their absence is no error."""


@dataclass
class LoadReport:
    """Counts and names of one load."""

    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    """Names with both shapes, "key: file (…) model (…)"."""

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network was given, and none else."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = [f"{self.matched} tensors matched"]
        for title in ("missing", "unexpected", "misshapen"):
            names: list[str] = getattr(self, title)
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                parts.append(f"{len(names)} {title}: {', '.join(names[:5])}{more}")
        return "; ".join(parts)


def normalise_keys(state_dict: Mapping[str, Tensor], *, ema: bool = False) -> dict[str, Tensor]:
    """Keys as in the released model, whichever container they come from.

    Args:
        state_dict: released keys; the parts of encoder.jit and decoder.jit; or a training checkpoint's ``model`` with
            ``network.`` and ``ema.network-`` prefixes.
        ema: take the moving average of a training checkpoint; InputError when there is none.
    """
    kinds = split_weights(state_dict)
    if ema and not kinds.averaged:
        raise InputError("these tokenizer weights hold no moving average (keys ema.network-…): load the regular ones")
    return kinds.averaged if ema else kinds.regular


def split_weights(content: Mapping[Any, Any], origin: str = "tokenizer weights") -> Parts:
    """Regular and averaged tensors under released names, from any container that :func:`normalise_keys` takes.

    Raises:
        InputError: a name occurs twice; ``origin`` is the file that the message names.
    """
    kinds = split(content, origin)
    return Parts(_released(kinds.regular), _released(kinds.averaged), kinds.odd)


def _released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        name = key.removeprefix("network.").removeprefix("net.")
        # The decoder half of a discrete tokenizer wraps its quantizer once more.
        name = re.sub(r"^inv_quant\.(quantizer\.)?", "quantizer.", name)
        if not name.startswith(("loss.", "distribution.")):
            out[name] = value
    return out


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> LoadReport:
    """How given tensors fit a network's by key and shape; the constant buffers may be missing."""
    report = LoadReport()
    for key, target in own.items():
        source = given.get(key)
        if source is None:
            if key not in CONSTANT_BUFFERS:
                report.missing.append(key)
        elif source.shape != target.shape:
            report.misshapen.append(f"{key}: file {tuple(source.shape)} model {tuple(target.shape)}")
        else:
            report.matched += 1
    report.unexpected = [key for key in given if key not in own]
    return report


def load_original(module: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True) -> LoadReport:
    """Copy released weights into ``module``, a tokenizer's network, keeping its dtype and device.

    Raises:
        InputError: with ``strict``, missing, unknown or misshapen tensors (the constant buffers may be missing).
    """
    given = normalise_keys(state_dict)
    own = module.state_dict(keep_vars=True)
    report = require_fit(module, given) if strict else compare(own, given)
    with torch.no_grad():
        for key, target in own.items():
            source = given.get(key)
            if source is None or source.shape != target.shape:
                continue
            # Files cast to bf16 hold 0.70703125 for 1/√2: keep the exact constant instead of its rounding.
            if key in CONSTANT_BUFFERS and torch.equal(target.to(source.dtype).cpu(), source.cpu()):
                continue
            target.copy_(source)
    return report


def require_fit(module: nn.Module, given: Mapping[str, Tensor]) -> LoadReport:
    """What loading released names would find; ``module`` may be on the meta device.

    Raises:
        InputError: missing, unknown or misshapen tensors (the constant buffers may be missing).
    """
    config: Any = module.config
    report = compare(module.state_dict(), given)
    if not report.complete:
        hint = ""
        if any(".upsample." in key for key in [*report.missing, *report.unexpected]):
            hint = (
                f". The decoder upsamples on other levels: legacy_mode={config.legacy_mode} does not fit these "
                f"weights; set legacy_mode={not config.legacy_mode} (the older 0.1 tokenizers need True)"
            )
        raise InputError(f"weights do not fit tokenizer {config.name}: {report}{hint}")
    return report


def to_original(module: nn.Module) -> dict[str, Tensor]:
    """Released key layout (315, 323, 326, 326 entries at full size), detached and contiguous."""
    out = {key: value.detach().contiguous() for key, value in module.state_dict().items()}
    key = "quantizer.implicit_codebook"
    if key in out:
        out[key] = out[key].to(torch.bfloat16)
    return out


def infer_config(state_dict: Mapping[str, Tensor], *, name: str) -> TokenizerConfig:
    """The configuration that a set of released-layout weights was made with, read off the tensor shapes.

    Args:
        name: name to record; when it is a preset's, its chunk length and FSQ levels are taken.

    Raises:
        InputError: not the weights of a Cosmos video tokenizer.
    """
    given = normalise_keys(state_dict)
    try:
        patched = given["encoder.conv_in.0.conv3d.weight"].shape[1]
        channels = given["encoder.conv_in.0.conv3d.weight"].shape[0]
        latent = given["post_quant_conv.conv3d.weight"].shape[1]
        z_channels = given["post_quant_conv.conv3d.weight"].shape[0]
        z_out = given["encoder.conv_out.1.conv3d.weight"].shape[0]
        num_levels = len({key.split(".")[2] for key in given if key.startswith("encoder.down.")})
        widths = [given[f"encoder.down.{i}.block.0.norm2.norm.weight"].shape[0] for i in range(num_levels)]
        blocks = len({key.split(".")[4] for key in given if key.startswith("encoder.down.0.block.")})
        multiples = tuple(width // channels for width in widths)
    except KeyError as error:
        raise InputError(f"not the weights of a Cosmos video tokenizer: the key {error} is missing") from error
    except (IndexError, ZeroDivisionError) as error:
        raise InputError("not the weights of a Cosmos video tokenizer: tensors of other shapes") from error
    patch = round((patched / 3) ** (1 / 3))
    spatial = sum(f"encoder.down.{i}.downsample.conv1.conv3d.weight" in given for i in range(num_levels))
    temporal = sum(f"encoder.down.{i}.downsample.conv2.conv3d.weight" in given for i in range(num_levels))
    preset = PRESETS.get(name, {})
    levels = given.get("quantizer._levels")
    if levels is not None and levels.numel() != latent:
        raise InputError(
            f"weights of a discrete and of a continuous tokenizer: {levels.numel()} FSQ levels, {latent} channels"
        )
    discrete = levels is not None or bool(preset.get("discrete", latent == 6))
    temporal_compression = patch * 2**temporal
    return TokenizerConfig(
        name=name,
        discrete=discrete,
        patch_size=patch,
        temporal_compression=temporal_compression,
        spatial_compression=patch * 2**spatial,
        channels=channels,
        channels_mult=multiples,
        num_res_blocks=blocks,
        z_channels=z_channels,
        latent_channels=latent,
        levels=tuple(int(v) for v in levels) if levels is not None else TokenizerConfig.levels,
        formulation="VAE" if z_out == 2 * z_channels else "AE",
        # Only the older order upsamples time right after the bottleneck.
        legacy_mode=f"decoder.up.{num_levels - 1}.upsample.conv1.conv3d.weight" in given,
        chunk_frames=preset.get("chunk_frames", 15 * temporal_compression + 1),
    )


def weights_sha256(state_dict: Mapping[str, Tensor], mean: Tensor | None, std: Tensor | None) -> str:
    """Digest over parameters in sorted order of their names, as fp32, and the statistics.

    The same weights give the same digest whichever file, dtype wide enough to hold them, or device they come from.
    """
    given = normalise_keys(state_dict)
    return tensors_sha256({k: v for k, v in given.items() if k not in CONSTANT_BUFFERS}, mean, std)


def tensors_sha256(tensors: Mapping[str, Tensor], mean: Tensor | None, std: Tensor | None) -> str:
    """Digest over tensors in sorted order of their names, as fp32, and over latent statistics."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().float().cpu().contiguous()
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.numpy().data.cast("B"))
    for title, statistic in (("mean", mean), ("std", std)):
        if statistic is not None:
            values = statistic.detach().float().cpu().contiguous()
            digest.update(f"{title}{tuple(values.shape)}".encode())
            digest.update(values.numpy().data.cast("B"))
    return digest.hexdigest()
