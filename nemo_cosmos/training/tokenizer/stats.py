"""Mean and standard deviation of raw latents per channel and latent-frame position."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.checksums import Verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import CosmosTokenizer, TokenizerModule
from nemo_cosmos.models.tokenizer.pretrained import write_statistics
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.tiny import is_packaged
from nemo_cosmos.training.tokenizer.config import TokenizerDataConfig
from nemo_cosmos.training.tokenizer.data import CenterClips, resolve_source


@torch.no_grad()
def latent_statistics(module: TokenizerModule, clips: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """(mean, std), each (C, P) fp32, over all clips and pixels, for a continuous tokenizer.

    Args:
        clips: videos (B, 3, T, H, W) in [−1, 1], all with the T of one chunk, in the module's dtype and device.

    Raises:
        InputError: no clip, clips of different lengths, or a discrete tokenizer, whose codes need none.
    """
    if module.config.discrete:
        raise InputError(f"{module.config.name} is discrete: its codes are bounded and need no statistics")
    total = total_square = torch.zeros(0)
    count = 0
    for clip in clips:
        latent = module.encode(clip)
        assert isinstance(latent, Tensor)
        value = latent.double().cpu()
        if count and value.shape[2] != total.shape[1]:
            raise InputError(f"clips of {value.shape[2]} and {total.shape[1]} latent frames: use one frame count")
        if not count:
            total = torch.zeros(value.shape[1], value.shape[2], dtype=torch.float64)
            total_square = torch.zeros_like(total)
        total = total + value.sum(dim=(0, 3, 4))
        total_square = total_square + value.square().sum(dim=(0, 3, 4))
        count += value.shape[0] * value.shape[3] * value.shape[4]
    if not count:
        raise InputError("no clips to take latent statistics from")
    mean = total / count
    variance = (total_square / count - mean.square()).clamp(min=0.0)
    if not bool((variance > 0).all()):
        raise InputError("a latent channel is constant over these clips: give more, or different, videos")
    return mean.float(), variance.sqrt().float()


def measure_folder(
    folder: Path,
    videos: str,
    *,
    max_clips: int,
    crop: tuple[int, int],
    resolution: int | None,
    device: str | torch.device,
    verify_files: Verify = "auto",
) -> Path:
    """Compute the statistics of a tokenizer folder on centre clips of videos and store them beside its weights.

    Args:
        videos: glob or registered dataset name.
        crop: height and width of the clips, multiples of the spatial compression.
        verify_files: whether the tokenizer is compared with its checksums, where it has them.

    Raises:
        InputError: no video long enough for one chunk, a wrong crop, a discrete tokenizer, or a Wan VAE.
    """
    import warnings

    from tqdm import tqdm

    if is_packaged(folder):
        raise InputError(
            f"{folder} belongs to the package and has its statistics; write a copy with `nemo-cosmos tokenizer export "
            f"{folder} MY_TOKENIZER` and measure that"
        )
    with warnings.catch_warnings():
        # Missing statistics are the reason for this call.
        warnings.simplefilter("ignore", UserWarning)
        tokenizer = open_tokenizer(folder, device=device, verify_files=verify_files)
    if not isinstance(tokenizer, CosmosTokenizer):
        raise InputError(
            f"{folder}: the latent statistics of {tokenizer.name} belong to its weights; there is nothing to measure"
        )
    config = TokenizerDataConfig(
        train=videos, num_frames=tokenizer.chunk_frames, crop=list(crop), resolution=resolution
    )
    source = resolve_source(videos, config)
    try:
        clips = CenterClips(source, config, max_clips, progress=True)
    except InputError as error:
        raise InputError(f"{error}. Statistics are of one whole chunk of {tokenizer.name}") from error
    with contextlib.closing(tqdm(clips, desc="latent statistics", disable=len(clips) < 2)) as bar:
        mean, std = latent_statistics(tokenizer.module, (clip.unsqueeze(0).to(device) for clip in bar))
    return write_statistics(folder, mean, std)
