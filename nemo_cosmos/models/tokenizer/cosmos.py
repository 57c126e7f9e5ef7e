"""The Cosmos-Tokenize1 tokenizers behind the interface of :mod:`nemo_cosmos.models.video_tokenizer`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule
from nemo_cosmos.models.tokenizer.checks import check_frames, check_latent, check_video, checked_values
from nemo_cosmos.models.tokenizer.diffusers_export import DIFFUSERS_CLASS, export_diffusers
from nemo_cosmos.models.tokenizer.state_dict import to_original, weights_sha256
from nemo_cosmos.tokenizer_identity import TokenizerIdentity

MAX_ENCODE_CHUNKS = 8
"""Chunks per encoder call: bounds memory, as in the released tokenizer."""
MAX_DECODE_CHUNKS = 4


class CosmosTokenizer:
    """Encode video to latents normalised per channel and latent-frame position, and back.

    Args:
        module: the network, in the dtype and on the device it shall run with.
        mean: (C, P) or None for zeros; P is the number of latent frames of a chunk.
        std: (C, P) or None for ones.
        chunk_frames: pixel frames encoded independently of each other; longer videos must be a multiple of it.
        sha256: digest of weights and statistics if known; computed from the module otherwise.
        origin: which weights of which file these are.
    """

    diffusers_class = DIFFUSERS_CLASS

    def __init__(
        self,
        module: TokenizerModule,
        *,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        chunk_frames: int | None = None,
        sha256: str | None = None,
        origin: str = "weights in memory",
    ) -> None:
        config = module.config
        self.module = module.eval().requires_grad_(False).tune()
        self.config, self.origin = config, origin
        self.name = config.name
        self.temporal_compression = config.temporal_compression
        self.spatial_compression = config.spatial_compression
        self.latent_channels = config.latent_channels
        self.chunk_frames = config.chunk_frames if chunk_frames is None else chunk_frames
        check_frames(config, self.chunk_frames)
        self.has_statistics = mean is not None
        shape = (config.latent_channels, self.latent_frames(self.chunk_frames))
        self.mean = _statistics(mean, 0.0, shape, "mean")
        self.std = _statistics(std, 1.0, shape, "std")
        if not bool((self.std > 0).all()):
            raise InputError(f"latent statistics of {self.name}: every std must be positive")
        digest = sha256 if sha256 is not None else weights_sha256(to_original(module), mean, std)
        self.identity = TokenizerIdentity(
            name=self.name,
            sha256=digest,
            temporal_compression=self.temporal_compression,
            spatial_compression=self.spatial_compression,
            latent_channels=self.latent_channels,
        )

    @property
    def device(self) -> torch.device:
        return self.module.quant_conv.conv3d.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.module.quant_conv.conv3d.weight.dtype

    def to(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> CosmosTokenizer:
        """Move in place; statistics stay fp32."""
        self.module.to(device=device, dtype=dtype)
        self.module.tune()
        return self

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of ``num_frames`` pixel frames.

        Raises:
            InputError: neither 1 + k·temporal_compression (up to one chunk) nor a whole number of chunks.
        """
        chunk = self.chunk_frames
        if num_frames > chunk:
            if num_frames % chunk:
                below = num_frames // chunk * chunk
                raise InputError(
                    f"{num_frames} frames do not fit tokenizer {self.name}: beyond {chunk} frames it takes whole "
                    f"chunks of {chunk}; nearest legal {below} or {below + chunk}"
                )
            return num_frames // chunk * self.latent_frames(chunk)
        check_frames(self.config, num_frames)
        return 1 + (num_frames - 1) // self.temporal_compression

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames that ``latent_frames`` decode to; InputError when longer than a chunk and not whole chunks."""
        chunk = self.latent_frames(self.chunk_frames)
        if latent_frames > chunk:
            if latent_frames % chunk:
                below = latent_frames // chunk * chunk
                raise InputError(
                    f"{latent_frames} latent frames do not fit tokenizer {self.name}: beyond {chunk} it takes whole "
                    f"chunks of {chunk}; nearest legal {below} or {below + chunk}"
                )
            return latent_frames // chunk * self.chunk_frames
        if latent_frames < 1:
            raise InputError(f"{latent_frames} latent frames: expected at least 1")
        return 1 + (latent_frames - 1) * self.temporal_compression

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Normalised fp32 latents (B, C, t, h, w) of a (B, 3, T, H, W) video in [−1, 1].

        Discrete tokenizers give their codes.

        Raises:
            InputError: an illegal frame count or size, an empty batch, integers, or values outside [−1, 1].
        """
        if video.ndim != 5:
            raise InputError(f"video of shape {tuple(video.shape)}: expected (B, 3, T, H, W)")
        self.latent_frames(video.shape[2])
        chunks = _fold(video, self.chunk_frames)
        check_video(self.config, chunks)
        latents = []
        with checked_values(self.config, video):
            for part in chunks.to(self.device, self.dtype).split(MAX_ENCODE_CHUNKS):
                encoded = self.module.encode_checked(part)
                latents.append(encoded if isinstance(encoded, Tensor) else encoded[1])
        raw = torch.cat(latents).float()
        return _unfold(self._normalise(raw), video.shape[0])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """fp32 video (B, 3, T, H, W), not clamped, of normalised latents (B, C, t, h, w).

        Raises:
            InputError: another shape, integers, an empty batch, or an illegal number of latent frames.
        """
        check_latent(self.config, latent)
        self.pixel_frames(latent.shape[2])
        chunks = _fold(latent, self.latent_frames(self.chunk_frames)).to(self.device)
        raw = self._denormalise(chunks.float()).to(self.dtype)
        videos = [self.module.decode_codes(part).float() for part in raw.split(MAX_DECODE_CHUNKS)]
        return _unfold(torch.cat(videos), latent.shape[0])

    def save_diffusers(self, path: str | Path) -> Path:
        """Write a folder for diffusers' AutoencoderKLCosmos; InputError for what that class cannot hold."""
        return export_diffusers(self, path)

    def _normalise(self, raw: Tensor) -> Tensor:
        mean, std = self._columns(raw)
        return (raw - mean) / std

    def _denormalise(self, latent: Tensor) -> Tensor:
        mean, std = self._columns(latent)
        return latent * std + mean

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        frames = like.shape[2]
        shape = (1, -1, frames, 1, 1)
        return (
            self.mean[:, :frames].to(like.device).reshape(shape),
            self.std[:, :frames].to(like.device).reshape(shape),
        )


def _statistics(values: Tensor | None, default: float, shape: tuple[int, int], title: str) -> Tensor:
    if values is None:
        return torch.full(shape, default)
    if values.shape[0] != shape[0] or values.shape[1] < shape[1]:
        raise InputError(f"latent {title} of shape {tuple(values.shape)}: expected ({shape[0]}, at least {shape[1]})")
    return values.float().cpu()[:, : shape[1]].contiguous()


def _fold(x: Tensor, chunk: int) -> Tensor:
    """(B, C, n·chunk, H, W) to (B·n, C, chunk, H, W); anything up to one chunk stays whole."""
    if x.shape[2] <= chunk:
        return x
    batch, channels, frames, height, width = x.shape
    folded = x.reshape(batch, channels, frames // chunk, chunk, height, width).transpose(1, 2)
    return folded.reshape(batch * (frames // chunk), channels, chunk, height, width)


def _unfold(x: Tensor, batch: int) -> Tensor:
    """Inverse of :func:`_fold`."""
    if x.shape[0] == batch:
        return x.contiguous()
    return x.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3).contiguous()
