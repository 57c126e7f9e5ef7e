"""TorchScript files that run without this package, in the layout of the released ones.

They are scripted, not traced: frame count and size stay free. The encoder file answers ``(latent, (0, 0))`` for
continuous tokenizers and ``(indices, codes, 0)`` for discrete ones; the decoder file takes latents or indices.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from nemo_cosmos.checksums import finished_archive
from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule


class _NoDistribution(nn.Module):
    """The deterministic bottleneck, with the posterior's place kept."""

    def forward(self, moments: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        zero = torch.zeros([1], device=moments.device)
        return moments, (zero, zero)


class _MeanDistribution(nn.Module):
    """Mean of the VAE's posterior, then mean and log-variance."""

    def forward(self, moments: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mean, logvar = moments.chunk(2, dim=1)
        return mean, (mean, logvar.clamp(-30.0, 20.0))


class _ContinuousEncoder(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.encoder, self.quant_conv = module.encoder, module.quant_conv
        self.distribution = _MeanDistribution() if module.config.formulation == "VAE" else _NoDistribution()

    def forward(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.distribution(self.quant_conv(self.encoder(video)))


class _ContinuousDecoder(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = module.post_quant_conv, module.decoder

    def forward(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent))


class _ContinuousAutoencoder(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.encoder, self.quant_conv = module.encoder, module.quant_conv
        self.distribution = _MeanDistribution() if module.config.formulation == "VAE" else _NoDistribution()
        self.post_quant_conv, self.decoder = module.post_quant_conv, module.decoder

    def forward(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        latent, posterior = self.distribution(self.quant_conv(self.encoder(video)))
        return self.decoder(self.post_quant_conv(latent)), posterior, latent


class _DiscreteEncoder(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.encoder, self.quant_conv, self.quantizer = module.encoder, module.quant_conv, module.quantizer

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        indices, codes = self.quantizer(self.quant_conv(self.encoder(video)))
        return indices, codes, torch.zeros([codes.shape[0], 1, 1, 1, 1], device=codes.device)


class _InverseQuantizer(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.quantizer = module.quantizer

    def forward(self, indices: Tensor) -> Tensor:
        return self.quantizer.indices_to_codes(indices)


class _DiscreteDecoder(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.inv_quant = _InverseQuantizer(module)
        self.post_quant_conv, self.decoder = module.post_quant_conv, module.decoder

    def forward(self, indices: Tensor) -> Tensor:
        codes = self.inv_quant(indices).to(self.post_quant_conv.conv3d.weight.dtype)
        return self.decoder(self.post_quant_conv(codes))


class _DiscreteAutoencoder(nn.Module):
    def __init__(self, module: TokenizerModule) -> None:
        super().__init__()
        self.encoder, self.quant_conv, self.quantizer = module.encoder, module.quant_conv, module.quantizer
        self.post_quant_conv, self.decoder = module.post_quant_conv, module.decoder

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        indices, codes = self.quantizer(self.quant_conv(self.encoder(video)))
        loss = torch.zeros([codes.shape[0], 1, 1, 1, 1], device=codes.device)
        return self.decoder(self.post_quant_conv(codes)), loss, indices


def script_tokenizer(module: TokenizerModule) -> dict[str, torch.jit.ScriptModule]:
    """The parts ``encoder``, ``decoder`` and ``autoencoder`` as TorchScript, in the module's dtype and device."""
    source = copy.deepcopy(module).eval().requires_grad_(False)
    if module.config.discrete:
        parts: dict[str, nn.Module] = {
            "encoder": _DiscreteEncoder(source),
            "decoder": _DiscreteDecoder(source),
            "autoencoder": _DiscreteAutoencoder(source),
        }
    else:
        parts = {
            "encoder": _ContinuousEncoder(source),
            "decoder": _ContinuousDecoder(source),
            "autoencoder": _ContinuousAutoencoder(source),
        }
    return {name: torch.jit.script(part.eval()) for name, part in parts.items()}


def export_jit(module: TokenizerModule, files: dict[str, Path]) -> None:
    """Write TorchScript parts to files, each under a temporary name first, with its checksum beside it.

    Args:
        files: file per part; keys ``encoder``, ``decoder``, ``autoencoder``, any subset.
    """
    parts = script_tokenizer(module)
    for name, path in files.items():
        # PyTorch writes the name of a file that it opens into it, and a part of this one's is drawn at random.
        with finished_archive(path) as temporary, temporary.open("wb") as stream:
            torch.jit.save(parts[name], stream)
