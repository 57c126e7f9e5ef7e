"""Names of the parameters of a Wan 2.1 VAE: those of the original file, and diffusers' AutoencoderKLWan's."""

from __future__ import annotations


def parameter_names(levels: int, num_res_blocks: int) -> dict[str, str]:
    """{original name: diffusers' name} of all parameters that a Wan 2.1 VAE of these sizes may have.

    Whether a block changes the width or a step the frame rate is left open: the names of both cases are listed.
    """
    pairs = [*_conv("conv1", "quant_conv"), *_conv("conv2", "post_quant_conv")]
    for half in ("encoder", "decoder"):
        pairs += _conv(f"{half}.conv1", f"{half}.conv_in")
        pairs += [(f"{half}.head.0.gamma", f"{half}.norm_out.gamma"), *_conv(f"{half}.head.2", f"{half}.conv_out")]
        middle, mid_block = f"{half}.middle", f"{half}.mid_block"
        pairs += _residual(f"{middle}.0", f"{mid_block}.resnets.0") + _residual(
            f"{middle}.2", f"{mid_block}.resnets.1"
        )
        attention = f"{mid_block}.attentions.0"
        pairs.append((f"{middle}.1.norm.gamma", f"{attention}.norm.gamma"))
        pairs += [p for part in ("to_qkv", "proj") for p in _conv(f"{middle}.1.{part}", f"{attention}.{part}")]
    for index in range(levels * (num_res_blocks + 1) - 1):  # Each level but the last ends with a step to the next.
        down, theirs = f"encoder.downsamples.{index}", f"encoder.down_blocks.{index}"
        pairs += _step(down, theirs) if index % (num_res_blocks + 1) == num_res_blocks else _residual(down, theirs)
    blocks = num_res_blocks + 1  # The decoder has one more a level.
    for index in range(levels * (blocks + 1) - 1):
        level, place = divmod(index, blocks + 1)
        up, theirs = f"decoder.upsamples.{index}", f"decoder.up_blocks.{level}"
        is_step = place == blocks
        pairs += _step(up, f"{theirs}.upsamplers.0") if is_step else _residual(up, f"{theirs}.resnets.{place}")
    return dict(pairs)


def _conv(name: str, theirs: str) -> list[tuple[str, str]]:
    return [(f"{name}.{leaf}", f"{theirs}.{leaf}") for leaf in ("weight", "bias")]


def _residual(name: str, theirs: str) -> list[tuple[str, str]]:
    pairs = [(f"{name}.residual.{i}.gamma", f"{theirs}.norm{n}.gamma") for i, n in ((0, 1), (3, 2))]
    for part, conv in (("residual.2", "conv1"), ("residual.6", "conv2"), ("shortcut", "conv_shortcut")):
        pairs += _conv(f"{name}.{part}", f"{theirs}.{conv}")
    return pairs


def _step(name: str, theirs: str) -> list[tuple[str, str]]:
    return [pair for part in ("resample.1", "time_conv") for pair in _conv(f"{name}.{part}", f"{theirs}.{part}")]
