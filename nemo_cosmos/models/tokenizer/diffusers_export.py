"""Continuous tokenizers as diffusers' AutoencoderKLCosmos: key map and a folder that ``from_pretrained`` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from nemo_cosmos.atomic import finished_folder, write_json
from nemo_cosmos.checksums import seal_folder
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule
from nemo_cosmos.models.tokenizer.config import TokenizerConfig
from nemo_cosmos.models.tokenizer.state_dict import CONSTANT_BUFFERS

DIFFUSERS_CLASS = "AutoencoderKLCosmos"


class Exported(Protocol):
    """What is needed of a ``CosmosTokenizer``."""

    config: TokenizerConfig
    module: TokenizerModule
    mean: Tensor
    std: Tensor


_RULES: tuple[tuple[str, str], ...] = (
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
    (r"mid\.block_1\.", "mid_block.resnets.0."),
    (r"mid\.block_2\.", "mid_block.resnets.1."),
    (r"mid\.attn_1\.0\.", "mid_block.attentions.0."),
    (r"mid\.attn_1\.1\.", "mid_block.temp_attentions.0."),
    (r"\.([qkv])\.conv3d\.", r".to_\1."),
    (r"\.proj_out\.conv3d\.", ".to_out.0."),
    (r"\.(conv_in|conv_out|conv1|conv2)\.0\.conv3d\.", r".\1.conv_s."),
    (r"\.(conv_in|conv_out|conv1|conv2)\.1\.conv3d\.", r".\1.conv_t."),
    (r"\.(conv[123])\.conv3d\.", r".\1."),
    (r"\.nin_shortcut\.conv3d\.", ".conv_shortcut."),
    (r"^(post_quant_conv|quant_conv)\.conv3d\.", r"\1."),
)


def to_diffusers_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename released keys; the Haar constants are dropped, decoder levels are counted in execution order."""
    num_levels = len({key.split(".")[2] for key in state_dict if key.startswith("decoder.up.")})
    out: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key in CONSTANT_BUFFERS:
            continue
        name = re.sub(r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1.", key)
        name = re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up_blocks.{num_levels - 1 - int(m[1])}.", name)
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out


def diffusers_config(tokenizer: Exported) -> dict[str, Any]:
    """Arguments of AutoencoderKLCosmos for a continuous tokenizer.

    Raises:
        InputError: a discrete or VAE tokenizer, which that class cannot hold.
    """
    config = tokenizer.config
    if config.discrete or config.formulation != "AE" or config.legacy_mode:
        raise InputError(
            f"{config.name} is {'discrete' if config.discrete else 'not a plain autoencoder'}: diffusers' "
            "AutoencoderKLCosmos holds continuous ones only"
        )
    widths = tuple(config.channels * mult for mult in config.channels_mult)
    return {
        "_class_name": DIFFUSERS_CLASS,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": [config.channels, *widths],
        # diffusers widens by one level more than there are: the last entry is the width at the bottleneck.
        "decode_block_out_channels": [*widths, widths[-1]],
        "attention_resolutions": [32],
        "resolution": 1024,
        "num_layers": config.num_res_blocks,
        "patch_size": config.patch_size,
        "patch_type": "haar",
        "scaling_factor": 1.0,
        "spatial_compression_ratio": config.spatial_compression,
        "temporal_compression_ratio": config.temporal_compression,
        "latents_mean": tokenizer.mean.flatten().tolist(),
        "latents_std": tokenizer.std.flatten().tolist(),
    }


def export_diffusers(tokenizer: Exported, path: str | Path) -> Path:
    """Write a folder for ``AutoencoderKLCosmos.from_pretrained``; an existing one is replaced at the end."""
    from safetensors.torch import save_file

    config = diffusers_config(tokenizer)
    target = Path(path)
    state = to_diffusers_state_dict(tokenizer.module.to_original())
    with finished_folder(target) as temporary:
        save_file(
            {key: value.cpu().contiguous() for key, value in state.items()},
            temporary / "diffusion_pytorch_model.safetensors",
            metadata={"format": "pt"},
        )
        write_json(temporary / "config.json", config, indent=2)
        seal_folder(temporary)
    return target
