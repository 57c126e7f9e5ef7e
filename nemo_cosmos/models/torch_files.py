"""Files of ``torch.save`` that others wrote: read without unpickling freely, sorted into regular and averaged weights.

World models and tokenizers come in many wrappings: the weights alone or below ``model`` in a training checkpoint,
names with ``net.``, ``network.`` or ``model.`` before them, a moving average beside the weights, and entries that are
no weights at all, such as the ``_extra_state`` of Transformer Engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.tensor_files import load_restricted as load_restricted

_WRAPPERS = re.compile(r"^(?:(?:model|module)\.)+|_orig_mod\.|_checkpoint_wrapped_module\.")
_AVERAGED = ("net_ema.", "network_ema.", "ema.")


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; InputError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def safetensors_names(path: Path) -> list[str]:
    """Names of the tensors of a safetensors file; InputError when it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


@dataclass
class Parts:
    """The tensors of a file by kind."""

    regular: dict[str, Tensor] = field(default_factory=dict)
    """Names as in the file, less wrappers; ``net.`` and ``network.`` are kept."""
    averaged: dict[str, Tensor] = field(default_factory=dict)
    """The moving average; names without ``net.`` and ``network.``."""
    odd: list[str] = field(default_factory=list)
    """Names of entries that are no weights: not tensors, or ``_extra_state``."""


def split(content: Mapping[Any, Any], origin: str) -> Parts:
    """Sort the content of a file; a training checkpoint gives its ``model`` and ``ema`` (or ``state_dict``).

    Raises:
        InputError: two entries of one kind have the same name once the wrappers are off; ``origin`` names the file.
    """
    parts = Parts()
    seen: set[tuple[bool, str]] = set()
    for name, value, averaged in _entries(content):
        plain = _WRAPPERS.sub("", str(name))
        if not isinstance(value, Tensor) or plain.endswith("_extra_state"):
            parts.odd.append(str(name))
            continue
        if not averaged and plain.startswith(_AVERAGED):
            averaged, plain = True, plain.split(".", 1)[1]
        # Buffers cannot have "." in their names: some trainers write "-" for it.
        if averaged and "." not in plain:
            plain = plain.replace("-", ".")
        plain = _WRAPPERS.sub("", plain)
        bare = plain.removeprefix("network.").removeprefix("net.")
        if (averaged, bare) in seen:
            raise InputError(f"{origin}: holds {bare} twice, the second time as {name}; keep one of the two")
        seen.add((averaged, bare))
        if averaged and name.startswith("ema.") and "." not in bare:
            parts.odd.append(name)  # The average's own counters.
        elif averaged:
            parts.averaged[bare] = value.detach()
        else:
            parts.regular[plain] = value.detach()
    return parts


def _entries(content: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, bool]]:
    """Name, value and whether it is known to be averaged."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            average = content.get("ema")
            yield from ((name, value, False) for name, value in content[key].items())
            yield from (
                (name, value, True) for name, value in (average.items() if isinstance(average, Mapping) else ())
            )
            return
    yield from ((name, value, False) for name, value in content.items())


def read_parts(path: Path) -> Parts:
    """:func:`split` of a file of ``torch.save`` or of safetensors, memory mapped.

    Raises:
        InputError: as :func:`load_restricted` and :func:`split`, or the file has no named tensor.
    """
    content = _load_safetensors(path) if path.suffix == ".safetensors" else load_restricted(path)
    parts = split(content, str(path)) if isinstance(content, Mapping) else Parts()
    if not parts.regular and not parts.averaged:
        raise InputError(f"{path}: expected a state dict of tensors, found {_describe(content)}")
    return parts


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = ", ".join(map(str, list(content)[:5]))
    return f"no tensor among the entries {names}" if names else "an empty one"
