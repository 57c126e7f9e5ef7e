"""Tokenizer folders laid out as the released ones, small, with averaged weights that differ from the regular ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch

from nemo_cosmos.checksums import beside
from nemo_cosmos.models.tokenizer import TokenizerModule, build_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit
from tests.models.tokenizer.golden import fill_parameters

SMALL = {"channels": 4, "channels_mult": (1, 2, 2), "num_res_blocks": 1, "z_channels": 16}


def two_kinds(preset: str, difference: float = 0.02) -> tuple[TokenizerModule, TokenizerModule]:
    """Regular weights, and averaged ones that differ from them by this share."""
    regular = build_tokenizer(preset, **SMALL).eval().requires_grad_(False)
    fill_parameters(regular)
    averaged = copy.deepcopy(regular)
    generator = torch.Generator().manual_seed(1)
    for parameter in averaged.parameters():
        parameter += difference * parameter.square().mean().sqrt() * torch.randn(parameter.shape, generator=generator)
    return regular, averaged


def training_checkpoint(regular: TokenizerModule, averaged: TokenizerModule | None) -> dict:
    model = {f"network.{name}": value.bfloat16() for name, value in regular.named_parameters()}
    if averaged is not None:
        model |= {f"ema.network-{n.replace('.', '-')}": v.clone() for n, v in averaged.named_parameters()}
    return {"model": model, "optimizer": {"state": {}}, "scheduler": {}, "grad_scaler": {}, "iteration": 7}


def released_folder(
    root: Path, preset: str = "CV8x8x8-720p", *, parts: tuple[str, ...] = ("encoder", "decoder", "autoencoder")
) -> tuple[Path, TokenizerModule, TokenizerModule]:
    """The folder, its regular and its averaged weights."""
    folder = root / f"Cosmos-Tokenize1-{preset}"
    folder.mkdir(parents=True)
    regular, averaged = two_kinds(preset)
    (folder / "config.json").write_text(json.dumps({"architectures": ["whatever"]}))
    torch.save(training_checkpoint(regular, averaged), folder / "model.pt")
    if parts:
        export_jit(averaged, {part: folder / f"{part}.jit" for part in parts})
        for part in parts:  # The release has no checksums.
            beside(folder / f"{part}.jit").unlink()
    return folder, regular, averaged
