"""From the cameras that a sample stores to the rays that a network is given."""

from __future__ import annotations

from torch import Tensor

from nemo_cosmos.camera.latent_frames import chosen_frames, to_latent_frames
from nemo_cosmos.camera.rays import Cameras, plucker
from nemo_cosmos.choices import TemporalMapping
from nemo_cosmos.errors import InputError


def stored_rays(
    poses: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    latent_size: tuple[int, int, int],
    mapping: TemporalMapping,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """(6, T, h, w) float32 rays per latent frame.

    Args:
        poses: (N, 4, 4) of every pixel frame, relative to the first and scaled.
        intrinsics: (N, 4) in pixels of the encoded frames.
        size: (height, width) of the encoded frames.
        latent_size: (T, h, w) of the latent.
        mapping: which frames' rays a latent frame is given.
        padding_mask: (1, h, w), not zero where a cell is padding.

    Raises:
        InputError: the cameras are none, or do not fit the latent.
    """
    frames, latent_frames = len(poses), latent_size[0]
    compression = temporal_compression(frames, latent_frames)
    cameras, cell = Cameras(poses, intrinsics, size), size[0] // latent_size[1]
    if mapping == "mean":
        rays = plucker(cameras, latent_size[1:], cell, padding_mask=padding_mask, scale=1.0)
        return to_latent_frames(rays, mapping, compression)
    # The first frame is always among the chosen ones, so that all stay relative to it.
    chosen = cameras[chosen_frames(frames, mapping, compression)]
    return plucker(chosen, latent_size[1:], cell, padding_mask=padding_mask, scale=1.0)


def temporal_compression(frames: int, latent_frames: int) -> int:
    """Pixel frames per latent frame after the first; InputError where the numbers do not fit each other."""
    if (latent_frames < 2) != (frames < 2) or (latent_frames > 1 and (frames - 1) % (latent_frames - 1)):
        raise InputError(f"{frames} poses for {latent_frames} latent frames: expected one for every pixel frame")
    return (frames - 1) // (latent_frames - 1) if latent_frames > 1 else 1
