"""Encode and decode whole videos with a tokenizer: TorchScript files, weight files or tokenizer folders.

A video is cut into windows in time that do not overlap; each is padded to sizes every Cosmos tokenizer takes, coded
alone and cut back, so that any length and size works in bounded memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.checksums import verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerConfig, TokenizerModule
from nemo_cosmos.models.tokenizer.checks import Geometry, check_indices, check_latent, check_video, checked_values
from nemo_cosmos.models.tokenizer.pretrained import module_with_weights
from nemo_cosmos.models.tokenizer.state_dict import compare, infer_config
from nemo_cosmos.models.tokenizer.weights import load_jit, read_pair, read_weights
from nemo_cosmos.models.wan_vae import NAME as WAN
from nemo_cosmos.models.wan_vae import find_wan_vae, load_wan_vae
from nemo_cosmos.pixels import from_levels, to_uint8

logger = logging.getLogger(__name__)

SPATIAL_ALIGN = 16
"""Heights and widths are padded to a multiple of this, legal for every released tokenizer."""
TEMPORAL_ALIGN = 8
"""Windows are padded to 1 + a multiple of this many frames."""


class CodecConfig(Geometry, Protocol):
    """What a codec knows of its tokenizer."""

    @property
    def discrete(self) -> bool: ...


class TokenizerCodec:
    """Latents of one tokenizer, with one interface for TorchScript files and for this package's module.

    They are raw; those of a Wan VAE are normalised.

    Build it with :meth:`from_jit` or :meth:`from_weights`.
    """

    def __init__(
        self,
        config: CodecConfig,
        encode: Callable[[Tensor], tuple[Tensor, ...]],
        decode: Callable[[Tensor], Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        autoencode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self._encode, self._decode, self._autoencode = encode, decode, autoencode

    @classmethod
    def from_jit(
        cls,
        *,
        full: str | Path | None = None,
        encoder: str | Path | None = None,
        decoder: str | Path | None = None,
        expected: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> TokenizerCodec:
        """Run TorchScript files, released ones or our exports.

        Args:
            full: the whole autoencoder (it reconstructs; encoding alone uses its weights in our network), or a
                tokenizer folder, of which encoder.jit and decoder.jit are run, else autoencoder.jit; or
            encoder: encoder and
            decoder: decoder files.
            expected: preset name that the files must be of.

        Raises:
            InputError: no file, files that are not TorchScript, or of different or unexpected tokenizers.
        """
        where = torch.device(device)
        if full is not None and Path(full).is_dir():
            full, encoder, decoder = _jit_files(Path(full))
        if full is not None:
            codec = cls.from_weights([full], name=expected, device=where, dtype=dtype)
            script = load_jit(full, where).to(dtype)
            codec._autoencode = lambda video: script(video)[0]
            return codec
        if encoder is None or decoder is None:
            raise InputError("give a full autoencoder file, or an encoder and a decoder file")
        for file in (encoder, decoder):
            verify(file)
        enc, dec, state = read_pair(encoder, decoder, where)
        enc, dec = enc.to(dtype), dec.to(dtype)
        config = _identify(state, expected, f"{encoder} and {decoder}")
        with torch.device("meta"):
            report = compare(TokenizerModule(config).state_dict(), state)
        if not report.complete:
            raise InputError(f"{encoder} and {decoder} are not the halves of one tokenizer: {report}")
        logger.info("tokenizer %s: running %s and %s", config.name, encoder, decoder)

        def encode(video: Tensor) -> tuple[Tensor, ...]:
            answer = enc(video)
            return (answer,) if isinstance(answer, Tensor) else tuple(answer[:-1])

        return cls(config, encode, dec, device=where, dtype=dtype)

    @classmethod
    def from_weights(
        cls,
        paths: Sequence[str | Path],
        *,
        name: str | None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> TokenizerCodec:
        """Run this package's network with the weights of folders or of .pt, .safetensors and .jit files together.

        Raises:
            InputError: no weights, or those of another tokenizer than ``name``.
        """
        if name == WAN:
            return cls._from_wan(paths, torch.device(device), dtype)
        found = [read_weights(path) for path in paths]
        state = {key: value for weights in found for key, value in weights.state.items()}
        config = _identify(state, name, " and ".join(map(str, paths)))
        module = module_with_weights(config, state).eval().requires_grad_(False)
        logger.info("tokenizer %s: %s", config.name, " and ".join(map(str, found)))
        module.to(device=device, dtype=dtype).tune()

        def encode(video: Tensor) -> tuple[Tensor, ...]:
            answer = module.encode(video)
            return (answer,) if isinstance(answer, Tensor) else answer

        return cls(config, encode, module.decode, device=torch.device(device), dtype=dtype)

    @classmethod
    def _from_wan(cls, paths: Sequence[str | Path], device: torch.device, dtype: torch.dtype) -> TokenizerCodec:
        found = find_wan_vae(paths[0]) if len(paths) == 1 else None
        if found is None:
            raise InputError(
                f"{' and '.join(map(str, paths))}: not a {WAN} tokenizer; expected a folder of diffusers' "
                "AutoencoderKLWan, or one tokenizer.pth"
            )
        vae = load_wan_vae(found, device=device, dtype=dtype)
        logger.info("tokenizer %s: %s", vae.name, vae.origin)
        return cls(vae.config, lambda video: (vae.encode(video),), vae.decode, device=device, dtype=dtype)

    @torch.no_grad()
    def encode(self, video: Tensor) -> tuple[Tensor, ...]:
        """(latent,) or (indices, codes) of a (B, 3, T, H, W) video in [−1, 1]: the encoder's answer less its last.

        Raises:
            InputError: another shape, type or range, or an empty batch.
        """
        check_video(self.config, video)
        with checked_values(self.config, video):
            return self._encode(video.to(self.device, self.dtype))

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Video of latents or indices, not clamped.

        Raises:
            InputError: another shape or type, an empty batch, or indices outside the codebook.
        """
        if not self.config.discrete:
            check_latent(self.config, latent)
            return self._decode(latent.to(self.device, self.dtype))
        check_indices(self.config, latent)
        with checked_values(self.config, latent):
            return self._decode(latent.to(self.device))

    @torch.no_grad()
    def autoencode(self, video: Tensor) -> Tensor:
        """Reconstruction of a (B, 3, T, H, W) video, not clamped."""
        if self._autoencode is not None:
            check_video(self.config, video)
            with checked_values(self.config, video):
                return self._autoencode(video.to(self.device, self.dtype))
        return self.decode(self.encode(video)[0])

    def reconstruct(self, frames: Tensor, window: int = 17) -> Tensor:
        """uint8 (3, T, H, W) to its reconstruction, the same shape, window by window."""
        parts = []
        for part in windows(frames, window):
            padded, crop = pad_window(part)
            output = self.autoencode(from_levels(padded.to(self.device).unsqueeze(0)))
            parts.append(crop.apply(to_uint8(output[0])).cpu())
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class WindowCrop:
    """Where the frames lie inside a padded window."""

    first: int
    top: int
    left: int
    shape: tuple[int, int, int]

    def apply(self, video: Tensor) -> Tensor:
        """(3, T, H, W) without the padding."""
        frames, height, width = self.shape
        return video[:, self.first : self.first + frames, self.top : self.top + height, self.left : self.left + width]


def windows(frames: Tensor, length: int) -> Iterator[Tensor]:
    """Consecutive pieces of ``length`` frames of (3, T, H, W); the last may be shorter. InputError for length < 1."""
    if length < 1:
        raise InputError(f"temporal window of {length} frames: expected at least 1")
    yield from frames.split(length, dim=1)


def pad_window(frames: Tensor) -> tuple[Tensor, WindowCrop]:
    """Pad uint8 (3, T, H, W) to legal sizes: black around the picture, repeated first and last frames around time."""
    _, count, height, width = frames.shape
    extra_t = -(count - 1) % TEMPORAL_ALIGN
    extra_h, extra_w = -height % SPATIAL_ALIGN, -width % SPATIAL_ALIGN
    crop = WindowCrop(extra_t // 2, extra_h // 2, extra_w // 2, (count, height, width))
    index = torch.arange(-crop.first, count + extra_t - crop.first).clamp(0, count - 1)
    sides = (crop.left, extra_w - crop.left, crop.top, extra_h - crop.top)
    return F.pad(frames[:, index], sides), crop


def resize_short_side(frames: Tensor, short: int) -> Tensor:
    """uint8 (3, T, H, W) with the shorter side ``short`` pixels; the other is rounded and made even."""
    height, width = frames.shape[2:]
    if short < 1:
        raise InputError(f"short side of {short} pixels: expected at least 1")
    if height <= width:
        size = (short, max(round(width * short / height) // 2 * 2, 2))
    else:
        size = (max(round(height * short / width) // 2 * 2, 2), short)
    resized = F.interpolate(
        frames.transpose(0, 1).float(), size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return resized.transpose(0, 1).round().clamp(0, 255).to(torch.uint8)


def _jit_files(folder: Path) -> tuple[Path | None, Path | None, Path | None]:
    """Whole, encoder and decoder file of a tokenizer folder; either the first or the others are None."""
    full, encoder, decoder = (folder / f"{part}.jit" for part in ("autoencoder", "encoder", "decoder"))
    if encoder.is_file() and decoder.is_file():
        return None, encoder, decoder
    if full.is_file():
        return full, None, None
    raise InputError(
        f"{folder}: no TorchScript files encoder.jit and decoder.jit; --mode torch runs the folder's other weights"
    )


def _identify(state: dict[str, Tensor], expected: str | None, origin: str) -> TokenizerConfig:
    """Configuration of the weights; InputError when they are not of the tokenizer that was asked for."""
    try:
        config = infer_config(state, name=expected or Path(origin.split(" and ")[0]).stem)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
    if expected is not None:
        wanted = TokenizerConfig.preset(expected)
        for key in ("discrete", "patch_size", "temporal_compression", "spatial_compression", "latent_channels"):
            if getattr(config, key) != getattr(wanted, key):
                raise InputError(
                    f"{origin}: not a {expected} tokenizer ({key} is {getattr(config, key)}, expected "
                    f"{getattr(wanted, key)})"
                )
    return config
