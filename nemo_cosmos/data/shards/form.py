"""The form of a sample in a shard: two members of a tar file, ``K.safetensors`` and ``K.json``."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, cast

import safetensors.torch
from torch import Tensor

from nemo_cosmos.camera.stored import stored_rays
from nemo_cosmos.choices import TemporalMapping
from nemo_cosmos.data.network_inputs import SAMPLE_RULES
from nemo_cosmos.data.sample import LatentSample, Origin
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import from_json, parse_json

TENSOR_NAMES = ("latent", "text", *SAMPLE_RULES)
KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # 90 + ".safetensors" fits the 100 bytes of a ustar name


def safe_key(name: str) -> str:
    """Turn any file stem into a valid sample key; two different stems give two different keys.

    WebDataset ends a key at the first dot and tar names are 100 bytes of ASCII, so other characters become ``_`` and a
    digest of the name is appended.
    """
    if KEY.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:70] + "-" + digest


def encode_sample(sample: LatentSample) -> tuple[bytes, bytes]:
    """The two members of a sample: safetensors bytes and JSON bytes; equal samples give equal bytes."""
    tensors: dict[str, Tensor] = {}
    for name in TENSOR_NAMES:
        value = getattr(sample, name)
        if value is not None:
            tensors[name] = value.detach().cpu().contiguous()
    record = {
        "key": sample.key,
        "caption": sample.caption,
        "fps": float(sample.fps),
        "num_frames": int(sample.num_frames),
        "image_size": [int(v) for v in sample.image_size],
        "source": sample.source,
        **({} if sample.origin is None else {"origin": sample.origin.to_record()}),
        **{name: value for name in ("cameras", "captions") if (value := getattr(sample, name))},
    }
    content = json.dumps(record, ensure_ascii=False, sort_keys=True)
    # A lone surrogate (from an undecodable file name) is no UTF-8: JSON's own escape keeps it readable.
    encoded = content.encode("utf-8", "backslashreplace")
    return safetensors.torch.save(tensors), encoded


@dataclass
class _Record:
    """The JSON member of a sample, as ``encode_sample`` writes it."""

    key: str
    caption: str
    fps: float
    num_frames: int
    image_size: list[int]
    source: str
    origin: Origin | None = None
    cameras: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def decode_sample(tensors: bytes, record: bytes, where: str = "the sample") -> LatentSample:
    """Inverse of ``encode_sample``.

    Raises:
        InputError: either member is not what ``encode_sample`` writes; ``where`` names the sample.
    """
    try:
        values = from_json(_Record, parse_json(record), "its record")
        if len(values.image_size) != 4:
            raise InputError("its record: image_size: expected four integers")
        parts = safetensors.torch.load(tensors)
        if not {"latent", "text"} <= set(parts) <= set(TENSOR_NAMES):
            raise InputError(f"expected the tensors latent and text, found {', '.join(sorted(parts)) or 'none'}")
        views = parts["view_ids"].shape if "view_ids" in parts else ()
        if parts["latent"].ndim != 4 or parts["text"].shape[:-2] != views:
            raise InputError("expected latent (C, T, h, w) and text (n, width), with view_ids (V,) text (V, n, width)")
    except (ValueError, KeyError, TypeError, MemoryError, safetensors.SafetensorError) as error:
        raise InputError(f"{where} is malformed: {error}; run `nemo-cosmos prepare` again") from error
    size = cast(tuple[int, int, int, int], tuple(values.image_size))
    fields: dict[str, Any] = {**vars(values), "image_size": size, **parts}
    return LatentSample(**fields)


def with_rays(sample: LatentSample, mapping: TemporalMapping, where: str = "the sample") -> LatentSample:
    """The sample with ``plucker`` made of its cameras, where it has these and no rays yet.

    Raises:
        InputError: its cameras are none, or do not fit its latent; ``where`` names the sample.
    """
    if sample.plucker is not None or sample.camera_poses is None or sample.camera_intrinsics is None:
        return sample
    height, width = sample.image_size[:2]
    _, *latent_size = sample.latent.shape
    grid = cast(tuple[int, int, int], tuple(latent_size))
    try:
        rays = stored_rays(
            sample.camera_poses, sample.camera_intrinsics, (height, width), grid, mapping, sample.padding_mask
        )
    except InputError as error:
        raise InputError(f"{where}: {error}; run `nemo-cosmos prepare` again") from error
    return replace(sample, plucker=rays)
