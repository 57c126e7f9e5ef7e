"""VGG16 feature distance and Gram-matrix distance between a video and its reconstruction."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.models.torch_files import load_restricted

VGG16_PLAN: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
"""Convolution widths and poolings up to relu5_3 (Simonyan & Zisserman 2014, configuration D)."""
SLICES = (4, 9, 16, 23, 30)
"""Ends of the five slices of ``features``: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""
LAYER_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
HUB_REPOSITORY = "timm/vgg16.tv_in1k"


class Vgg16Features(nn.Module):
    """Frozen VGG16 trunk giving five feature maps of (N, 3, H, W) images in [−1, 1].

    Args:
        weights: "hub" (ImageNet weights of timm/vgg16.tv_in1k), a .pth or .safetensors file with keys
            ``features.N.weight`` (torchvision's vgg16 and timm's have them), or "random".

    Raises:
        InputError: the file is missing or not VGG16's, or the hub cannot be reached.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for entry in VGG16_PLAN:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.ReLU()]
                width = entry
        self.features = nn.Sequential(*layers)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        if weights == "random":
            generator = torch.Generator().manual_seed(0)
            for layer in self.features:
                if isinstance(layer, nn.Conv2d):
                    std = (2.0 / layer.weight[0].numel()) ** 0.5
                    layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * std
                    nn.init.zeros_(layer.get_parameter("bias"))
        else:
            self._load(weights)
        self.requires_grad_(False).eval()
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _load(self, weights: str) -> None:
        path = _download() if weights == "hub" else Path(weights)
        state = read_tensors(path)
        wanted = {f"features.{key}": key for key in self.features.state_dict()}
        missing = [key for key in wanted if key not in state]
        if missing:
            raise InputError(
                f"{path}: not the weights of VGG16 ({len(missing)} tensors missing, the first is {missing[0]}); "
                f"expected torchvision's vgg16 .pth or timm's vgg16.tv_in1k"
            )
        for key, own in wanted.items():
            if state[key].shape != self.features.state_dict()[own].shape:
                raise InputError(f"{path}: {key} has shape {tuple(state[key].shape)}, not VGG16's")
        self.features.load_state_dict({own: state[key].float() for key, own in wanted.items()})

    def forward(self, images: Tensor) -> list[Tensor]:
        x = ((images - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index + 1 in SLICES:
                maps.append(x)
        return maps


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A flat file of tensors, never unpickling anything else."""
    require_file(path, "loss weights ")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(f"loss weights {path}: not a readable safetensors file ({error})") from error
    content = load_restricted(path, mmap=False)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"loss weights {path}: expected a state dict of tensors")
    return content


def _download() -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(HUB_REPOSITORY, "model.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"the VGG16 weights of {HUB_REPOSITORY} cannot be fetched ({type(error).__name__}); "
            "give a local file with loss.perceptual.weights=FILE"
        ) from error


def frames_of(video: Tensor) -> Tensor:
    """(B, 3, T, H, W) to (B·T, 3, H, W)."""
    return video.transpose(1, 2).flatten(0, 1)


def feature_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Σ_k λ_k · mean |V_k(x) − V_k(x̂)|, absolute differences of unnormalised features."""
    terms = [
        weight * (a.float() - b.float()).abs().mean()
        for weight, a, b in zip(LAYER_WEIGHTS, first, second, strict=True)
    ]
    return torch.stack(terms).sum()


def gram_distance(first: list[Tensor], second: list[Tensor], batch: int) -> Tensor:
    """Σ_k λ_k · mean (G − Ĝ)² with G = F·Fᵀ/(t·h·w) over all frames of a clip."""
    terms = []
    for weight, a, b in zip(LAYER_WEIGHTS, first, second, strict=True):
        terms.append(weight * (_gram(a, batch) - _gram(b, batch)).square().mean())
    return torch.stack(terms).sum()


def _gram(features: Tensor, batch: int) -> Tensor:
    x = features.float().unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)
    return x @ x.transpose(1, 2) / x.shape[2]
