"""Which weights a tokenizer folder or file gives.

The released world models were trained with the averaged weights of their tokenizer. A released folder has them as
``encoder.jit`` and ``decoder.jit``, and once more in ``model.pt``, beside the regular weights, with which training
goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.checksums import Verify, verify
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.models.tokenizer.state_dict import CONSTANT_BUFFERS, split_weights
from nemo_cosmos.models.torch_files import Parts, load_restricted, load_safetensors
from nemo_cosmos.tiny import located

logger = logging.getLogger(__name__)

ROUNDING = 0.005
"""Relative difference above which two sets of weights are not the same; rounding to bf16 makes 0.0016."""
_SPOT_CHECK = ("encoder.conv_in.", "encoder.conv_out.", "quant_conv.", "post_quant_conv.", "decoder.conv_in.",
               "decoder.conv_out.")  # fmt: skip
_DECODER = ("decoder.", "post_quant_conv.")
_told: set[str] = set()
"""TorchScript files that the log of this process has named."""


@dataclass(frozen=True)
class TokenizerWeights:
    """Tensors under their released names, and where they are from."""

    state: dict[str, Tensor]
    origin: str
    """Such as ``averaged weights of …/model.pt``."""
    averaged: bool = False
    """Whether these are known to be averaged."""
    odd: int = 0
    """Entries of the file that are no weights, such as ``_extra_state``."""

    def __str__(self) -> str:
        return self.origin + (f" ({self.odd} entries that are no weights passed over)" if self.odd else "")


def read_weights(path: str | Path, *, regular: bool = False, verify_files: Verify | None = "auto") -> TokenizerWeights:
    """The weights at ``path``: the averaged ones where there are two kinds.

    A folder is searched for ``model.safetensors``, ``encoder.jit`` with ``decoder.jit``, averaged weights in
    ``model.pt``, ``autoencoder.jit``, and ``model.pt``.

    Args:
        path: tokenizer folder, name of a packaged tokenizer, or a .pt, .safetensors or .jit file.
        regular: the regular weights where there are two kinds: those of ``model.pt`` in a released folder.
        verify_files: whether the files are compared with their checksums, where they have them; None: it was done.

    Raises:
        InputError: no weights, an unreadable file, or half of the JIT pair beside weights of another tokenizer.
    """
    path = located(path, "tokenizer")
    if verify_files is not None and path.exists():
        verify(path, verify_files)
    if path.is_dir():
        return _read_folder(path, regular)
    if path.is_file():
        return _choose(_read_parts(path), path, regular)
    raise InputError(f"{path}: no such tokenizer folder or weights file")


def read_pair(
    encoder: str | Path, decoder: str | Path, device: str | torch.device = "cpu"
) -> tuple[torch.jit.ScriptModule, torch.jit.ScriptModule, dict[str, Tensor]]:
    """The two TorchScript halves of a tokenizer, and their weights under released names.

    Raises:
        InputError: not TorchScript, or a file that holds the other half.
    """
    for path in (encoder, decoder):
        require_file(path)
    _tell_that_code_runs(encoder, decoder)
    scripts = load_jit(encoder, device), load_jit(decoder, device)
    halves = [split_weights(script.state_dict(), "").regular for script in scripts]
    for path, half, wanted, other in (
        (encoder, halves[0], "encoder", "a decoder"),
        (decoder, halves[1], "decoder", "an encoder"),
    ):
        if any(key.startswith(f"{other.split()[1]}.") for key in half):
            raise InputError(f"{path}: expected the {wanted}'s file alone, this one holds {other}")
    return *scripts, halves[0] | halves[1]


def load_jit(path: str | Path, device: str | torch.device = "cpu") -> torch.jit.ScriptModule:
    """A TorchScript file; InputError when it is not one. The log names it first: loading it can run code in it."""
    require_file(path)
    _tell_that_code_runs(path)
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:  # torch raises many types for a broken archive; all mean the same to the user
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a TorchScript file ({reason})") from error


def _tell_that_code_runs(*paths: str | Path) -> None:
    """One line of the log for TorchScript files, which are programs; each is named once in a process."""
    new = [name for name in dict.fromkeys(map(str, paths)) if name not in _told]
    _told.update(new)
    if new:
        logger.info("TorchScript, take it only from those you trust, the code in it runs: %s", " and ".join(new))


def _read_parts(file: Path) -> Parts:
    if file.suffix == ".safetensors":
        return split_weights(load_safetensors(file), str(file))
    if file.suffix == ".jit":
        return split_weights(load_jit(file).state_dict(), str(file))
    content = load_restricted(file)
    parts = split_weights(content, str(file)) if isinstance(content, Mapping) else Parts()
    if not parts.regular and not parts.averaged:
        raise InputError(f"{file}: expected a state dict of tensors or a checkpoint with the key 'model'")
    return parts


def _choose(parts: Parts, file: Path, regular: bool) -> TokenizerWeights:
    """One of the kinds that a file holds, the regular ones only where they are asked for or alone."""
    if not parts.averaged:
        return TokenizerWeights(parts.regular, f"weights of {file}", odd=len(parts.odd))
    if regular and parts.regular:
        return TokenizerWeights(parts.regular, f"regular weights of {file}", odd=len(parts.odd))
    # The average is over parameters: the constants stand with the regular weights.
    constants = {key: value for key, value in parts.regular.items() if key in CONSTANT_BUFFERS}
    return TokenizerWeights(
        constants | parts.averaged, f"averaged weights of {file}", averaged=True, odd=len(parts.odd)
    )


def _read_folder(folder: Path, regular: bool) -> TokenizerWeights:
    tensors, checkpoint, whole = (folder / name for name in ("model.safetensors", "model.pt", "autoencoder.jit"))
    pair = [folder / "encoder.jit", folder / "decoder.jit"]
    halves = [file for file in pair if file.is_file()]
    if tensors.is_file():
        return _choose(_read_parts(tensors), tensors, regular)
    if regular and checkpoint.is_file():
        return _choose(_read_parts(checkpoint), checkpoint, regular)
    if len(halves) == 2:
        state = read_pair(pair[0], pair[1])[2]
        _compare_with_checkpoint(pair, checkpoint, state)
        return TokenizerWeights(state, f"weights of {pair[0]} and {pair[1]}", averaged=True)
    parts = _read_parts(checkpoint) if checkpoint.is_file() else Parts()
    if not parts.averaged and whole.is_file():
        found = _choose(_read_parts(whole), whole, regular)
    elif checkpoint.is_file():
        found = _choose(parts, checkpoint, regular)
    else:
        missing = f" ({_other(halves[0])} is missing beside {halves[0].name})" if halves else ""
        raise InputError(
            f"{folder}: no weights; expected model.safetensors, model.pt, encoder.jit and decoder.jit, or "
            f"autoencoder.jit{missing}"
        )
    if halves:
        _check_half(halves[0], found, folder)
    return found


def _other(half: Path) -> str:
    return "decoder.jit" if half.name == "encoder.jit" else "encoder.jit"


def _check_half(half: Path, found: TokenizerWeights, folder: Path) -> None:
    """A half must hold the same weights as what stands in for the pair."""
    other = _other(half)
    difference = relative_difference(_read_parts(half).regular, found.state)
    if not difference <= ROUNDING:
        raise InputError(
            f"{folder}: {other} is missing, and the {found.origin} {_differ(difference)} {half.name}: "
            f"fetch {other}, or remove {half.name} to use the others"
        )
    logger.warning("%s: %s is missing; %s agrees with what is used, %s", folder, other, half.name, found.origin)


def _compare_with_checkpoint(pair: list[Path], checkpoint: Path, state: Mapping[str, Tensor]) -> None:
    """Say it when the averaged weights of ``model.pt``, which should be the same as the pair's, are not."""
    try:
        averaged = _read_parts(checkpoint).averaged if checkpoint.is_file() else {}
    except InputError as error:
        logger.warning("%s; it is not needed beside %s and %s", error, pair[0].name, pair[1].name)
        return
    spots = {key: value for key, value in averaged.items() if key.startswith(_SPOT_CHECK)}
    for file, part in (
        (pair[0], {key: value for key, value in spots.items() if not key.startswith(_DECODER)}),
        (pair[1], {key: value for key, value in spots.items() if key.startswith(_DECODER)}),
    ):
        difference = relative_difference(part, state)
        if part and not difference <= ROUNDING:
            logger.warning(
                "the averaged weights of %s %s %s; the pair is used", checkpoint, _differ(difference), file.name
            )


def _differ(difference: float) -> str:
    return f"differ by {difference:.1%} from" if difference < float("inf") else "are of another network than"


def relative_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """|a − b| / |b| over all weights of ``first``; infinite where ``second`` lacks one or has another shape."""
    error = norm = 0.0
    for key, a in first.items():
        if key in CONSTANT_BUFFERS:
            continue
        b = second.get(key)
        if b is None or b.shape != a.shape:
            return float("inf")
        error += (a.float() - b.float()).square().sum().item()
        norm += b.float().square().sum().item()
    return (error / norm) ** 0.5 if norm else float(error > 0)
