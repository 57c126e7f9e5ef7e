"""The VAE of Wan 2.1, which Cosmos-Predict2 uses: diffusers' AutoencoderKLWan behind the tokenizers' interface.

Weights with the original names (``tokenizer.pth``, ``Wan2.1_VAE.pth``) and with diffusers' are both read and written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nemo_cosmos.atomic import finished_folder
from nemo_cosmos.checksums import Verify, seal_folder, verify
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer.checks import check_frames, check_latent, check_video, checked_values
from nemo_cosmos.models.tokenizer.state_dict import tensors_sha256
from nemo_cosmos.models.torch_files import load_restricted, load_safetensors, read_parts, safetensors_names
from nemo_cosmos.models.wan_state_dict import parameter_names
from nemo_cosmos.tokenizer_identity import TokenizerIdentity
from nemo_cosmos.typed import Limits, check_fields, read_object

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

NAME = "Wan2.1-VAE"
DIFFUSERS_CLASS = "AutoencoderKLWan"
ORIGINAL_FILES = ("tokenizer/tokenizer.pth", "tokenizer.pth", "Wan2.1_VAE.pth")
"""Where folders have the original weights; the first is that of the released Predict2 repositories."""
DIFFUSERS_FILES = tuple(
    f"diffusion_pytorch_model{kind}" for kind in (".safetensors", ".bf16.safetensors", ".fp16.safetensors", ".bin")
)
_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
LATENTS_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)  # fmt: skip
"""Of the released weights' raw latents by channel; a checkpoint of the original form has none of its own."""
LATENTS_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
               3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)  # fmt: skip
TEMPORAL_COMPRESSION = 4
"""diffusers encodes pieces of four frames; two levels halve time."""

_LIMITS: Limits = {"base_dim": (2, 1 << 12), "z_dim": (1, 1 << 12), "dim_mult": (1, 64), "num_res_blocks": (1, 64),
                   "latents_mean": (-1e4, 1e4), "latents_std": (1e-4, 1e4)}  # fmt: skip


@dataclass(frozen=True)
class WanConfig:
    """What fixes the parameters of a Wan 2.1 VAE; diffusers' names and defaults."""

    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = LATENTS_MEAN
    latents_std: tuple[float, ...] = LATENTS_STD
    name: str = field(default=NAME, init=False)
    in_channels: int = field(default=3, init=False)
    codebook_size: int = field(default=0, init=False)
    """Latents are continuous."""
    discrete: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_fields(self, _LIMITS, f"{NAME}: ")
        levels, halvings = len(self.dim_mult), sum(self.temperal_downsample)
        if self.base_dim % 2:
            raise InputError(f"{NAME}: base_dim={self.base_dim}, expected an even width")
        if len(self.temperal_downsample) != levels - 1 or 2**halvings != TEMPORAL_COMPRESSION:
            raise InputError(f"{NAME}: {halvings} of {levels - 1} steps halve time, expected 2")
        for title in ("latents_mean", "latents_std"):
            if (count := len(getattr(self, title))) != self.z_dim:
                raise InputError(f"{NAME}: {count} {title} for {self.z_dim} latent channels, expected one a channel")

    @property
    def temporal_compression(self) -> int:
        return TEMPORAL_COMPRESSION

    @property
    def spatial_compression(self) -> int:
        return 2 ** (len(self.dim_mult) - 1)

    @property
    def latent_channels(self) -> int:
        return self.z_dim

    def arguments(self) -> dict[str, Any]:
        """Of AutoencoderKLWan."""
        return {
            "base_dim": self.base_dim,
            "z_dim": self.z_dim,
            "dim_mult": list(self.dim_mult),
            "num_res_blocks": self.num_res_blocks,
            "attn_scales": [],
            "temperal_downsample": list(self.temperal_downsample),
            "latents_mean": list(self.latents_mean),
            "latents_std": list(self.latents_std),
            "scale_factor_spatial": self.spatial_compression,
        }


class WanVAE:
    """A Wan 2.1 VAE as a ``VideoTokenizer``: latents are the posterior's mean, normalised per channel in fp32.

    Videos of 1 + 4k frames of any length are one causal whole; four frames at a time go through the network, so memory
    does not grow with length but for the video and the latent themselves.

    Args:
        vae: the network, in the dtype and on the device it shall run with.
        config: what it was built with.
        sha256: digest of weights and statistics if known; computed from the network otherwise.
        origin: which weights of which file these are.
    """

    name = NAME
    diffusers_class = DIFFUSERS_CLASS
    chunk_frames = None
    has_statistics = True
    temporal_compression = TEMPORAL_COMPRESSION

    def __init__(
        self, vae: AutoencoderKLWan, config: WanConfig, *, sha256: str | None = None, origin: str = "weights in memory"
    ) -> None:
        self.vae = vae.eval().requires_grad_(False)
        # One video of a batch at a time: memory, and bytes that do not depend on neighbours.
        self.vae.enable_slicing()
        self.config, self.origin = config, origin
        self.spatial_compression, self.latent_channels = config.spatial_compression, config.z_dim
        self.mean = torch.tensor(config.latents_mean).unsqueeze(1)
        self.std = torch.tensor(config.latents_std).unsqueeze(1)
        self.identity = TokenizerIdentity(
            name=NAME,
            sha256=sha256 or _sha256(self.to_original(), config),
            temporal_compression=self.temporal_compression,
            spatial_compression=self.spatial_compression,
            latent_channels=self.latent_channels,
        )

    @property
    def device(self) -> torch.device:
        return self.vae.quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.quant_conv.weight.dtype

    def to(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> WanVAE:
        """Move in place; statistics stay fp32."""
        if device is not None:
            self.vae.to(device)
        if dtype is not None:
            self.vae.to(dtype)
        return self

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of ``num_frames`` pixel frames; InputError unless these are 1 + 4k."""
        check_frames(self.config, num_frames)
        return 1 + (num_frames - 1) // self.temporal_compression

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames that ``latent_frames`` decode to; InputError below 1."""
        if latent_frames < 1:
            raise InputError(f"{latent_frames} latent frames: expected at least 1")
        return 1 + (latent_frames - 1) * self.temporal_compression

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """See :meth:`VideoTokenizer.encode`."""
        check_video(self.config, video)
        with checked_values(self.config, video):
            posterior = self.vae.encode(video.to(self.device, self.dtype)).latent_dist
        raw = posterior.mean.float()
        return ((raw - self._column(self.mean)) / self._column(self.std)).contiguous()

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """See :meth:`VideoTokenizer.decode`."""
        check_latent(self.config, latent)
        raw = latent.to(self.device).float() * self._column(self.std) + self._column(self.mean)
        return torch.cat([self._decode_one(video) for video in raw.to(self.dtype).split(1)]).float()

    def _decode_one(self, raw: Tensor) -> Tensor:
        """One video, a latent frame at a time; diffusers' own ``decode`` is the same, clamped to [−1, 1]."""
        features = [None] * sum(1 for _ in self.vae.decoder.modules())  # Each convolution keeps its last frames there.
        hidden = self.vae.post_quant_conv(raw).split(1, dim=2)
        pieces = [
            self.vae.decoder(piece, feat_cache=features, feat_idx=[0], first_chunk=index == 0)
            for index, piece in enumerate(hidden)
        ]
        return torch.cat(pieces, dim=2)

    def _column(self, statistic: Tensor) -> Tensor:
        return statistic.to(self.device).reshape(1, -1, 1, 1, 1)

    def to_original(self) -> dict[str, Tensor]:
        """The parameters under their original names."""
        state = self.vae.state_dict()
        names = {theirs: name for name, theirs in self._names().items()}
        return {names[key]: value for key, value in state.items()}

    def _names(self) -> dict[str, str]:
        return parameter_names(len(self.config.dim_mult), self.config.num_res_blocks)

    def save_diffusers(self, path: str | Path) -> Path:
        """Write a folder for ``AutoencoderKLWan.from_pretrained``; what is there is replaced at the end."""
        target = Path(path)
        with finished_folder(target) as temporary:
            self.vae.save_pretrained(temporary)
            seal_folder(temporary)
        return target

    def save_original(self, path: str | Path) -> Path:
        """Write a folder with ``tokenizer.pth`` under the original names; what is there is replaced at the end.

        Raises:
            InputError: other latent statistics than that form has.
        """
        if (self.config.latents_mean, self.config.latents_std) != (LATENTS_MEAN, LATENTS_STD):
            raise InputError(
                f"{self.origin}: latent statistics of its own, which tokenizer.pth cannot hold; write it with "
                "--format diffusers"
            )
        target = Path(path)
        with finished_folder(target) as temporary:
            torch.save({key: value.cpu() for key, value in self.to_original().items()}, temporary / "tokenizer.pth")
            seal_folder(temporary)
        return target


def find_wan_vae(path: str | Path) -> Path | None:
    """The file or the diffusers folder of the Wan VAE at a path, or None where there is none.

    Raises:
        InputError: a file that may be one cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return path if path.suffix in _SUFFIXES and _is_wan(_names_in(path)) else None
    for name in ORIGINAL_FILES:
        if (path / name).is_file():
            return path / name
    return next((folder for folder in (path, path / "vae") if _may_be_diffusers(folder)), None)


def _may_be_diffusers(folder: Path) -> bool:
    """Whether a folder names the class, or has its files; who loads it verifies them first and says what is wrong."""
    kind = diffusers_class_of(folder)
    return kind == DIFFUSERS_CLASS or (kind is None and any((folder / name).is_file() for name in DIFFUSERS_FILES))


def diffusers_class_of(folder: Path) -> str | None:
    """The class that diffusers' ``config.json`` in a folder names; None where none does."""
    try:
        kind = read_object(folder / "config.json").get("_class_name")
    except InputError:
        return None
    return kind if isinstance(kind, str) else None


def _names_in(file: Path) -> Iterator[str]:
    """Names of tensors; of a file without any, none."""
    if file.suffix == ".safetensors":
        return iter(safetensors_names(file))
    content = load_restricted(file)
    if isinstance(content, Mapping):
        content = next((content[k] for k in ("model", "state_dict") if isinstance(content.get(k), Mapping)), content)
    return map(str, content) if isinstance(content, Mapping) else iter(())


def _is_wan(names: Iterator[str]) -> bool:
    return any(".downsamples.0.residual." in name or ".down_blocks.0.norm1.gamma" in name for name in names)


def load_wan_vae(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    verify_files: Verify = "auto",
) -> WanVAE:
    """Load a file with original or diffusers' names, or a folder of diffusers.

    Args:
        path: what :func:`find_wan_vae` gives.
        device: where it shall run.
        dtype: compute and weight dtype; latents and statistics stay fp32.
        verify_files: whether the files are compared with their checksums, where they have them.

    Raises:
        InputError: missing, damaged, or the weights of something else.
    """
    path = Path(path)
    verify(path, verify_files)
    settings = _read_settings(path / "config.json") if path.is_dir() else {}
    file = _weights_file(path) if path.is_dir() else path
    try:
        state = load_safetensors(file) if file.suffix == ".safetensors" else read_parts(file).regular
        return _build(state, settings, f"weights of {file}").to(device=device, dtype=dtype)
    except InputError as error:
        raise error if str(file) in str(error) else InputError(f"{file}: {error}") from error


def _weights_file(folder: Path) -> Path:
    found = next((folder / name for name in DIFFUSERS_FILES if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder}: no weights; expected {DIFFUSERS_FILES[0]}")
    return found


def _read_settings(file: Path) -> dict[str, Any]:
    """The statistics of a diffusers folder.

    Raises:
        InputError: no JSON object, or another network than Wan 2.1's.
    """
    values = read_object(file)
    for key, expected in (("is_residual", False), ("patch_size", None), ("in_channels", 3), ("out_channels", 3)):
        if values.get(key, expected) != expected:
            raise InputError(f"{file}: {key}={values[key]!r}, expected {expected}: it is not a VAE of Wan 2.1")
    found = {key: values[key] for key in ("latents_mean", "latents_std") if key in values}
    if other := [key for key, value in found.items() if not isinstance(value, list)]:
        raise InputError(f"{file}: {other[0]} is no list; expected one number a latent channel")
    return {key: tuple(value) for key, value in found.items()}


def _build(state: Mapping[str, Tensor], settings: Mapping[str, Any], origin: str) -> WanVAE:
    from diffusers import AutoencoderKLWan

    levels, blocks = _sizes(state)
    names = parameter_names(levels, blocks)
    theirs = {names.get(key, key): value for key, value in state.items()}
    config = _infer_config(theirs, levels, blocks, settings)
    with torch.device("meta"):
        vae = AutoencoderKLWan(**config.arguments())
    _require_fit({key: value.shape for key, value in vae.state_dict().items()}, theirs)
    vae = vae.to_empty(device="cpu")
    vae.load_state_dict(theirs)
    return WanVAE(vae, config, origin=origin)


def _sizes(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Levels and residual blocks a level of the encoder, whose blocks both namings count through.

    Raises:
        InputError: not the names of a Wan 2.1 VAE.
    """
    prefix = "encoder.downsamples." if "encoder.conv1.weight" in state else "encoder.down_blocks."
    numbers = {key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)}
    steps = [i for i in range(len(numbers)) if f"{prefix}{i}.resample.1.weight" in state]
    if not steps or numbers != set(map(str, range(len(numbers)))):
        raise InputError(
            "not the weights of a Wan 2.1 VAE; expected tensors such as encoder.downsamples.0.residual.2.weight or "
            f"encoder.down_blocks.0.conv1.weight, found {', '.join(list(state)[:3])}"
        )
    return len(steps) + 1, steps[0]


def _infer_config(state: Mapping[str, Tensor], levels: int, blocks: int, settings: Mapping[str, Any]) -> WanConfig:
    """The configuration that weights with diffusers' names have by their shapes."""
    try:
        width = state["encoder.conv_in.weight"].shape[0]
        firsts = [f"encoder.down_blocks.{level * (blocks + 1)}" for level in range(levels)]
        steps = [f"encoder.down_blocks.{level * (blocks + 1) + blocks}" for level in range(levels - 1)]
        return WanConfig(
            base_dim=width,
            z_dim=state["post_quant_conv.weight"].shape[0],
            dim_mult=tuple(state[f"{first}.conv1.weight"].shape[0] // width for first in firsts),
            num_res_blocks=blocks,
            temperal_downsample=tuple(f"{step}.time_conv.weight" in state for step in steps),
            **settings,
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"not the weights of a Wan 2.1 VAE: {error} is missing, or of another shape") from error


def _require_fit(expected: Mapping[str, torch.Size], given: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in given]
    unknown = [key for key in given if key not in expected]
    misshapen = [key for key, shape in expected.items() if key in given and given[key].shape != shape]
    whole = [key for key, value in given.items() if not value.is_floating_point()]
    problems = (("missing", missing), ("unknown", unknown), ("misshapen", misshapen), ("not floating point", whole))
    if text := "; ".join(f"{len(keys)} {what}, such as {keys[0]}" for what, keys in problems if keys):
        raise InputError(f"weights do not fit {NAME}: {text}")


def _sha256(original: Mapping[str, Tensor], config: WanConfig) -> str:
    """Over bf16 values, in which released files are kept too, so that a file and its bf16 copy are one tokenizer."""
    rounded = {key: value.bfloat16() for key, value in original.items()}
    return tensors_sha256(rounded, torch.tensor(config.latents_mean), torch.tensor(config.latents_std))
