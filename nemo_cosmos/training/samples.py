"""The samples that a run trains on, checked against the experiment and the network before anything is built."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nemo_cosmos.choices import TemporalMapping, Verify
from nemo_cosmos.config import DataConfig, TrainConfig
from nemo_cosmos.data.eight_files import EightFileDataset, is_sample_folder
from nemo_cosmos.data.listing import is_video_name, walk_files
from nemo_cosmos.data.manifest import MANIFEST_NAME
from nemo_cosmos.data.positions import Bucket, LatentShape, SampleSource
from nemo_cosmos.data.record import DataRecord
from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.run_folder import is_first
from nemo_cosmos.training.sample_inputs import refuse_other_rays

if TYPE_CHECKING:
    from nemo_cosmos.training.online import OnlineEncoder

logger = logging.getLogger(__name__)
ONLINE_KEYS = ("tokenizer_path", "text_encoder", "num_frames", "size")
"""Keys of ``data`` that say how clips are encoded during training."""
OPTIONAL_ONLINE_KEYS = ("text_encoder",)
CACHED_KEYS = ("verify",)
"""Keys of ``data`` that say how shards are read."""


@dataclass(frozen=True)
class Samples:
    """What a run trains on.

    Attributes:
        source: records of latents, or the frames of clips where there is an ``encoder``.
        latent_shape: (channels, frames, height, width) of every latent; where they differ, of the largest.
        record: what the run folder keeps about them.
        encoder: makes latents of the frames during training.
        buckets: the samples by shape, where there are several.
    """

    source: SampleSource[Any]
    latent_shape: LatentShape
    record: DataRecord
    encoder: OnlineEncoder | None = None
    buckets: Sequence[Bucket] = ()

    def shape(self, sample: int) -> LatentShape:
        """That of a sample's latent, by its number."""
        return self.buckets[self._bucket_numbers[sample]].shape if self.buckets else self.latent_shape

    @cached_property
    def _bucket_numbers(self) -> np.ndarray:
        numbers = np.empty(len(self.source), np.int32)
        for number, bucket in enumerate(self.buckets):
            numbers[bucket.samples] = number
        return numbers


def open_samples(cfg: TrainConfig, dit: DiTConfig) -> Samples:
    """The samples of ``data.path``: a folder of shards, or of clips with ``data.mode=online``.

    Raises:
        InputError: nothing usable is there, it does not belong to the network, or a key belongs to the other mode.
    """
    check_mode(cfg.data)
    samples, tokenizer, text_width = (_open_online if cfg.data.mode == "online" else _open_cached)(cfg.data)
    path = cfg.data.path
    if cfg.data.tokenizer is not None and tokenizer is not None and tokenizer.name != cfg.data.tokenizer:
        made = (
            f"data.tokenizer_path={cfg.data.tokenizer_path} holds"
            if samples.encoder
            else f"{path}: these shards were made with"
        )
        advice = "name that one" if samples.encoder else "prepare the clips again with that tokenizer"
        raise InputError(
            f"{made} the tokenizer {tokenizer.name!r}, but the experiment names "
            f"data.tokenizer={cfg.data.tokenizer!r}; {advice}"
        )
    _check_shapes(samples, dit, path)
    if samples.encoder is None:
        refuse_other_rays(samples.source, dit, path)
    elif dit.plucker_channels:
        raise InputError(
            f"data.mode=online encodes the clips of {path}, which have no camera poses: prepare scenes with poses "
            "(nemo-cosmos prepare --layout dl3dv) and set data.mode=cached"
        )
    if text_width != dit.text_width:
        raise InputError(
            f"{path}: text embeddings are {text_width} wide, the network takes {dit.text_width} "
            "(model.overrides.text_width); prepare the clips again with the text encoder that belongs to the network"
        )
    return samples


def _check_shapes(samples: Samples, dit: DiTConfig, path: str) -> None:
    """InputError where the network does not take a latent; of several shapes it names a sample that has it."""
    for bucket in samples.buckets or [Bucket(samples.latent_shape, range(0))]:
        channels, *sides = bucket.shape
        try:
            if channels != dit.in_channels:
                raise InputError(f"{path}: latents have {channels} channels, the network takes {dit.in_channels}")
            dit.token_grid(*sides)
        except InputError as error:
            if not samples.buckets:
                raise
            named = f"sample {samples.source.keys[bucket.samples[0]]!r}"  # type: ignore[attr-defined]
            more = f" and {len(bucket.samples) - 1} more" if len(bucket.samples) > 1 else ""
            raise InputError(
                f"{path}: {named}{more} of {len(samples.source)} have latents of {bucket.shape}: {error}"
            ) from error


def check_mode(data: DataConfig) -> None:
    """InputError naming a key of ``data`` that the chosen mode does not read, or needs and has not."""
    defaults = DataConfig()
    online = data.mode == "online"
    for name in CACHED_KEYS if online else ONLINE_KEYS:
        if getattr(data, name) != getattr(defaults, name):
            raise InputError(
                f"data.{name}={getattr(data, name)} has no effect with data.mode={data.mode}; remove it, or set "
                f"data.mode={'cached' if online else 'online'}"
            )
    missing = [n for n in ONLINE_KEYS if n not in OPTIONAL_ONLINE_KEYS and getattr(data, n) is None]
    if online and missing:
        raise InputError(f"data.mode=online needs {', '.join(f'data.{name}' for name in missing)}")


def tell_shapes(samples: Samples, data: DataConfig) -> None:
    """Say which shapes there are and, where samples are repeated to fill a step of their shape, so."""
    if not samples.buckets:
        return
    counts = ", ".join(f"{bucket.shape}: {len(bucket.samples)}" for bucket in samples.buckets)
    how = "packed with others" if data.packing else "in steps of one shape"
    logger.info("samples of %d shapes, %s (%s)", len(samples.buckets), how, counts)
    small = [bucket for bucket in samples.buckets if len(bucket.samples) < data.global_batch]
    if small and not data.packing and is_first():
        logger.warning(
            "%d of %d shapes have fewer samples than data.global_batch=%d, which are repeated to fill a step (%s): "
            "data.packing=true repeats none",
            *(len(small), len(samples.buckets), data.global_batch),
            ", ".join(f"{bucket.shape}: {len(bucket.samples)}" for bucket in small),
        )


def refuse_packing(cfg: TrainConfig) -> None:
    """InputError where packed sequences cannot be trained in the layout."""
    if not cfg.data.packing:
        return
    if cfg.parallel.virtual_pipeline is not None:
        raise InputError(
            f"data.packing=true with parallel.virtual_pipeline={cfg.parallel.virtual_pipeline}: the interleaved "
            "schedule needs sequences of one length; leave it unset, or batch by buckets (data.packing=false)"
        )
    if cfg.parallel.context_backend == "transformer_engine":
        raise InputError(
            "data.packing=true with parallel.context_backend=transformer_engine: its attention does not keep packed "
            "samples apart; use auto"
        )


def _open_cached(data: DataConfig) -> tuple[Samples, TokenizerIdentity | None, int]:
    path = Path(data.path)
    if not (path / MANIFEST_NAME).is_file() and (
        path.suffix == ".jsonl"
        or (path / "videos").is_dir()
        or (path.is_dir() and any(map(is_video_name, walk_files(path))))
    ):
        raise InputError(
            f"data.path={path} holds videos, not shards: run `nemo-cosmos prepare {path} OUT ...` and name OUT, or "
            "set data.mode=online"
        )
    if not (path / MANIFEST_NAME).is_file() and is_sample_folder(path):
        return _open_folder(data)
    if data.repair_poses:
        raise InputError("data.repair_poses=true has no effect on shards: it is for folders of eight files per sample")
    rays = cast(TemporalMapping, data.camera_frames)
    shards = ShardDataset(data.path, verify=cast(Verify, data.verify), rays=rays)
    manifest = shards.manifest
    record = DataRecord(str(path.absolute()), shards.digest, len(shards), manifest.fps)
    if not shards.buckets:
        raise InputError(f"{path}: the dataset holds no samples")
    largest = max(shards.buckets, key=lambda bucket: math.prod(bucket.shape)).shape
    samples = Samples(shards, largest, record, buckets=shards.buckets if len(shards.buckets) > 1 else ())
    return samples, manifest.tokenizer, manifest.text_width


def _open_folder(data: DataConfig) -> tuple[Samples, TokenizerIdentity | None, int]:
    path, mapping = Path(data.path), cast(TemporalMapping, data.camera_frames)
    folder = EightFileDataset(path, mapping=mapping, repair_poses=data.repair_poses)
    record = DataRecord(str(path.absolute()), folder.digest, len(folder), folder.fps)
    largest = max(folder.buckets, key=lambda bucket: math.prod(bucket.shape)).shape
    if folder.tokenizer is None:
        logger.warning("%s does not record which tokenizer made it: that is not compared with the experiment's", path)
    samples = Samples(folder, largest, record, buckets=folder.buckets if len(folder.buckets) > 1 else ())
    return samples, folder.tokenizer, folder.text_width


def _open_online(data: DataConfig) -> tuple[Samples, TokenizerIdentity, int]:
    if (Path(data.path) / MANIFEST_NAME).is_file():
        raise InputError(f"data.path={data.path} holds shards: set data.mode=cached, or name a folder of videos")
    # Reads video files, and with them PyAV, which training from shards does without.
    from nemo_cosmos.training.online import open_clips

    clips, encoder = open_clips(data)
    record = DataRecord(str(Path(data.path).absolute()), clips.digest, len(clips), clips.rates)
    samples = Samples(clips, encoder.latent_shape(clips.plan), record, encoder)
    return samples, encoder.tokenizer.identity, encoder.text_width(clips)
