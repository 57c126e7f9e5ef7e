"""Small shards of random latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.data.shards import ShardWriter

TOKENIZER = TokenizerIdentity("CV-test", "0" * 64, 4, 8, 16)


def write_shards(
    path: Path,
    *,
    count: int = 8,
    shape: tuple[int, int, int] = (3, 8, 8),
    text_width: int = 16,
    seed: int = 0,
    shapes: Sequence[tuple[int, int, int]] = (),
    rigs: Sequence[Sequence[int]] = (),
    plucker: bool = False,
    without_rays: Sequence[str] = (),
) -> Path:
    """``count`` samples of 16-channel latents with some structure, so that a loss can fall; or one of each shape.

    With ``rigs`` the samples have these view ids, by turns, and ``shape`` is that of a view; the first view alone has
    a caption. With ``plucker`` each has rays as well, but for those named, of random numbers; all else is as without.
    """
    generator, other = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    with ShardWriter(path, tokenizer=TOKENIZER, text_encoder="random", samples_per_shard=3) as writer:
        for i, (frames, height, width) in enumerate(shapes or [shape] * count):
            rig = rigs[i % len(rigs)] if rigs else None
            views = len(rig or [0])
            latent = torch.randn(16, 1, height, width, generator=generator) + 0.3 * torch.randn(
                16, views * frames, height, width, generator=generator
            )
            text = torch.randn(3 + i % 4, text_width, generator=generator)
            if rig is not None:
                text = torch.cat([text[None], text.new_zeros(views - 1, *text.shape)])
            key, has_rays = f"clip-{i:03d}", plucker and f"clip-{i:03d}" not in without_rays
            writer.write(
                LatentSample(
                    key=key,
                    latent=latent,
                    text=text,
                    caption=f"clip {i}",
                    fps=24.0 + 6 * (i % 2),
                    num_frames=1 + 4 * (frames - 1),
                    image_size=(height * 8, width * 8, height * 8, width * 8),
                    view_ids=None if rig is None else torch.tensor(rig),
                    plucker=torch.randn(6, frames, height, width, generator=other) if has_rays else None,
                )
            )
    return path
