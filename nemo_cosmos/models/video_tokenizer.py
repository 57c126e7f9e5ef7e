"""The one interface of video tokenizers, and what opens whichever of them lies at a path.

Data preparation, training and generation know a tokenizer by :class:`VideoTokenizer` alone. A new kind is a file with
a class of this shape, and a line in :func:`open_tokenizer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nemo_cosmos.checksums import Verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import load_tokenizer
from nemo_cosmos.models.wan_vae import diffusers_class_of, find_wan_vae, load_wan_vae
from nemo_cosmos.tiny import located
from nemo_cosmos.tokenizer_identity import TokenizerIdentity

_COSMOS_FILES = ("config.json", "checksums.json", "model.safetensors", "model.pt", "encoder.jit", "autoencoder.jit")
"""Any of them makes a folder a Cosmos-Tokenize1 tokenizer's, whose reader says what is missing."""


@runtime_checkable
class VideoTokenizer(Protocol):
    """Encodes video to latents normalised to mean 0 and deviation 1, and back.

    The first frame always is a latent frame of its own, so that an image is a video of one frame.
    """

    @property
    def name(self) -> str:
        """For people and configurations, such as ``CV8x8x8-720p``."""

    @property
    def origin(self) -> str:
        """Which weights of which file these are."""

    @property
    def identity(self) -> TokenizerIdentity:
        """Recorded with every latent; equal where the weights and the statistics are."""

    @property
    def temporal_compression(self) -> int:
        """Pixel frames per latent frame after the first."""

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along height and width."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def chunk_frames(self) -> int | None:
        """Pixel frames that are coded without regard to those before; None: a video of any length is one whole."""

    @property
    def has_statistics(self) -> bool:
        """Whether ``mean`` and ``std`` are measured; otherwise they are 0 and 1."""

    @property
    def mean(self) -> Tensor:
        """(C, P) fp32 of raw latents, by latent-frame position; P is 1 where all positions share it."""

    @property
    def std(self) -> Tensor:
        """Like ``mean``, positive."""

    @property
    def diffusers_class(self) -> str:
        """The class of diffusers that ``save_diffusers`` writes for."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and computation; latents and statistics are fp32."""

    def to(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> VideoTokenizer:
        """Move in place."""

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of pixel frames; InputError names the nearest legal numbers."""

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames that latent frames decode to; InputError where they are illegal."""

    def encode(self, video: Tensor) -> Tensor:
        """Normalised fp32 latents (B, C, t, h, w) of a (B, 3, T, H, W) video in [−1, 1].

        Raises:
            InputError: an illegal frame count or size, an empty batch, integers, or values outside [−1, 1].
        """

    def decode(self, latent: Tensor) -> Tensor:
        """fp32 video (B, 3, T, H, W), which may leave [−1, 1], of normalised latents (B, C, t, h, w).

        Raises:
            InputError: another shape, integers, an empty batch, or an illegal number of latent frames.
        """

    def save_diffusers(self, path: str | Path) -> Path:
        """Write a folder for ``diffusers_class``, at the end in place of what is there.

        Raises:
            InputError: that class cannot hold this tokenizer.
        """


def open_tokenizer(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    regular: bool = False,
    verify_files: Verify = "auto",
) -> VideoTokenizer:
    """The tokenizer that lies at a path, told by what is there.

    Args:
        path: a Cosmos-Tokenize1 folder, released or written by this package; a folder of diffusers' AutoencoderKLWan,
            or of a pipeline with it below ``vae/``; Wan's original ``tokenizer.pth``, or a folder with it, as the
            released Predict2 repositories have it below ``tokenizer/``; or the name of a packaged one.
        device: where it shall run.
        dtype: compute and weight dtype; latents and statistics stay fp32.
        regular: the regular weights of a Cosmos-Tokenize1 folder that has the averaged ones, too.
        verify_files: whether the files are compared with their checksums, where they have them.

    Raises:
        InputError: nothing of these is there, or it is damaged.
    """
    path = located(path, "tokenizer")
    wan = find_wan_vae(path)
    if wan is not None:
        if regular:
            raise InputError(f"{path}: a Wan VAE has one kind of weights; leave out the regular ones' option")
        return load_wan_vae(wan, device=device, dtype=dtype, verify_files=verify_files)
    _refuse_unknown(path)
    return load_tokenizer(path, device=device, dtype=dtype, regular=regular, verify_files=verify_files)


def _refuse_unknown(path: Path) -> None:
    """InputError for what no reader takes, with the forms that are taken."""
    forms = (
        "expected a Cosmos-Tokenize1 folder (config.json beside its weights), a folder of diffusers' AutoencoderKLWan "
        "or of a pipeline with it in vae/, or Wan's tokenizer.pth"
    )
    if path.is_file():
        raise InputError(f"{path}: no Wan VAE; {forms}")
    if not path.is_dir():
        return
    for folder in (path, path / "vae"):
        kind = diffusers_class_of(folder)
        if kind is not None:
            raise InputError(f"{folder}: of diffusers' class {kind}; {forms}")
    if not any((path / name).exists() for name in _COSMOS_FILES):
        raise InputError(f"{path}: no tokenizer; {forms}")
