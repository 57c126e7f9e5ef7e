"""Continuous tokenizers as diffusers' AutoencoderKLCosmos: key map and a folder that ``from_pretrained`` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from nemo_cosmos.models.tokenizer.state_dict import CONSTANT_BUFFERS

if TYPE_CHECKING:
    pass

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
