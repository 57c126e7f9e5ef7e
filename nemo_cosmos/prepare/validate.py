"""Check a folder of shards: every byte, every record, every tensor, and whether the latents look like latents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.data.manifest import Manifest, ShardIndex, ShardInfo
from nemo_cosmos.data.network_inputs import RULES, STORED
from nemo_cosmos.data.sample import TEXT_LENGTH, LatentSample
from nemo_cosmos.data.shards import decode_sample, read_member, verify_shard
from nemo_cosmos.errors import InputError
from nemo_cosmos.precision import shown_dtype

MEAN_LIMIT, STD_LIMITS = 1.0, (0.3, 3.0)
"""Normalised latents have mean 0 and standard deviation 1 over a large dataset; a small one may be this far off."""
DEAD_CHANNEL = 1e-3


@dataclass
class LatentStatistics:
    """Sums over all latents, per channel, in float64."""

    count: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(self, latent: Tensor) -> None:
        """Take in a (C, T, h, w) latent."""
        values = latent.double().flatten(1)
        if not self.count:
            self.total, self.squares = torch.zeros(2, len(values), dtype=torch.float64)
        self.count += values.shape[1]
        self.total += values.sum(dim=1)
        self.squares += values.square().sum(dim=1)

    @property
    def mean(self) -> Tensor:
        """(C,) mean per channel."""
        return self.total / max(self.count, 1)

    @property
    def std(self) -> Tensor:
        """(C,) standard deviation per channel."""
        return (self.squares / max(self.count, 1) - self.mean.square()).clamp(min=0).sqrt()


@dataclass
class Report:
    """What was found.

    Attributes:
        samples: samples that could be read.
        errors: what makes the shards unfit for training, each naming shard and sample.
        warnings: what may be intended but seldom is.
        latents: statistics of the latents.
        tokens: number of text tokens of each sample, counted.
        fps: frame rates, counted.
        shapes: shapes of the latents, counted.
        empty_captions: samples with an empty caption.
        distinct_captions: different captions.
        views: lists of view ids of multiview samples, counted.
    """

    samples: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    latents: LatentStatistics = field(default_factory=LatentStatistics)
    tokens: Counter[int] = field(default_factory=Counter)
    fps: Counter[float] = field(default_factory=Counter)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    empty_captions: int = 0
    distinct_captions: int = 0
    views: Counter[tuple[int, ...]] = field(default_factory=Counter)


def validate(path: str | Path, on_sample: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Check every shard and sample under ``path``; goes on after an error, so that one call finds all.

    Args:
        path: folder of shards.
        on_sample: called with (samples done, samples in all).

    Raises:
        InputError: there is no readable manifest. Everything else is in the report.
    """
    path, report = Path(path), Report()
    manifest = Manifest.load(path)
    keys: Counter[str] = Counter()
    captions: set[int] = set()
    for shard in manifest.shards:
        for sample in _samples(path, shard, report):
            keys[sample.key] += 1
            captions.add(hash(sample.caption))
            where = f"{shard.file} sample {sample.key!r}"
            report.errors.extend(f"{where}: {problem}" for problem in check_sample(sample, manifest))
            _count(sample, report)
            on_sample(report.samples, manifest.samples)
    report.errors.extend(f"sample key {key!r} occurs {n} times" for key, n in keys.items() if n > 1)
    if report.samples != manifest.samples:
        report.errors.append(f"{report.samples} samples are readable, the manifest counts {manifest.samples}")
    listed = {name for shard in manifest.shards for name in (shard.file, shard.index_file)}
    strays = sorted(f.name for f in path.glob("shard-*") if f.name not in listed)
    if strays:
        report.warnings.append(f"{len(strays)} files are not in the manifest, for example {strays[0]}: prepare again")
    report.distinct_captions = len(captions)
    _judge(report)
    return report


def check_sample(sample: LatentSample, manifest: Manifest) -> list[str]:
    """Everything that is wrong with one sample, in words."""
    tokenizer, problems = manifest.tokenizer, []
    latent, text = sample.latent, sample.text
    if latent.ndim != 4 or latent.shape[0] != tokenizer.latent_channels or not latent.is_floating_point():
        return [
            f"latent {_describe(latent)}, expected {tokenizer.latent_channels} channels and (C, T, h, w) floating "
            "point"
        ]
    height, width = sample.image_size[:2]
    compression = tokenizer.spatial_compression
    if tuple(latent.shape[2:]) != (height // compression, width // compression):
        problems.append(f"latent {_describe(latent)} does not fit frames of {height}x{width} pixels")
    frames, uneven = divmod(latent.shape[1], sample.num_views)
    if uneven or not _frames_fit(sample.num_frames, frames, tokenizer.temporal_compression):
        problems.append(f"latent {_describe(latent)} does not fit {sample.num_frames} frames")
    views = () if sample.view_ids is None else (sample.num_views,)
    if text.shape[:-2] != views or not text.is_floating_point() or not 1 <= text.shape[-2] <= TEXT_LENGTH:
        shape = ", ".join([*map(str, views), f"1..{TEXT_LENGTH} tokens", "width"])
        problems.append(f"text {_describe(text)}, expected ({shape}) floating point")
    for name, value in (("latent", latent), ("text", text)):
        if not bool(torch.isfinite(value).all()):
            problems.append(f"{name} has {int((~torch.isfinite(value)).sum())} numbers that are not finite")
    if not 0 < sample.fps < math.inf:
        problems.append(f"fps is {sample.fps}, expected a positive rate")
    for name in STORED:
        given = getattr(sample, name)
        if given is not None and (problem := RULES[name].problem(given, latent)) is not None:
            problems.append(f"{name} {_describe(given)}: {problem}")
    mask = sample.padding_mask
    if mask is not None and RULES["padding_mask"].problem(mask, latent) is None:
        if not bool(((mask == 0) | (mask == 1)).all()):
            problems.append("padding_mask: expected values 0 and 1")
        elif bool(mask.flatten(1).all(dim=1).any()):
            problems.append("padding_mask covers the whole frame")
        if mask.shape[0] not in (1, sample.num_views):
            problems.append(f"padding_mask has {mask.shape[0]} masks for {sample.num_views} views")
    problems.extend(_view_problems(sample))
    return problems


def _view_problems(sample: LatentSample) -> list[str]:
    """What is wrong with the views of a sample of several cameras, in words."""
    ids, problems = sample.view_ids, []
    if ids is None:
        stray = [name for name in ("cameras", "captions") if getattr(sample, name)]
        return [f"{', '.join(stray)} of several views without view_ids"] if stray else []
    if ids.ndim != 1 or ids.is_floating_point() or not ids.numel():
        return [f"view_ids {_describe(ids)}, expected (views,) of whole numbers"]
    numbers = ids.tolist()
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        problems.append(f"view_ids {numbers}: expected different numbers from 0 on")
    if sample.frame_repeat is not None and sample.frame_repeat.shape != ids.shape:
        problems.append(f"frame_repeat {_describe(sample.frame_repeat)} for {len(numbers)} views")
    for name in ("cameras", "captions"):
        if len(getattr(sample, name)) not in (0, len(numbers)):
            problems.append(f"{len(getattr(sample, name))} {name} for {len(numbers)} views")
    if sample.text.ndim == 3 and len(sample.captions) == len(sample.text):
        told = sample.text.flatten(1).abs().amax(dim=1) > 0
        bare = [
            view for view, caption, some in zip(numbers, sample.captions, told, strict=True) if caption and not some
        ]
        if bare:
            problems.append(f"views {bare} have a caption and no text embedding")
    return problems


def _frames_fit(frames: int, latent_frames: int, compression: int) -> bool:
    """One chunk gives 1 + (frames - 1) / compression latent frames; n chunks of equal length n times as many."""
    return any(
        latent_frames % chunks == 0
        and frames % chunks == 0
        and frames // chunks == 1 + (latent_frames // chunks - 1) * compression
        for chunks in range(1, latent_frames + 1)
    )


def _samples(path: Path, shard: ShardInfo, report: Report) -> Iterator[LatentSample]:
    """Samples of a shard that can be read; what cannot goes into the report."""
    try:
        index = shard.read_index(path)
        verify_shard(path, shard.file, shard.bytes, None)
    except InputError as error:
        report.errors.append(str(error))
        return
    damaged = 0
    with (path / shard.file).open("rb") as file:
        for number, key in enumerate(index.keys):
            try:
                sample = _read(file.fileno(), path / shard.file, index, number)
            except InputError as error:
                damaged += 1
                report.errors.append(str(error))
                continue
            if sample.key != key:
                report.errors.append(f"{shard.file}: the record of sample {key!r} names it {sample.key!r}")
            yield sample
    if not damaged:
        try:
            verify_shard(path, shard.file, shard.bytes, shard.sha256)
        except InputError as error:
            report.errors.append(str(error))


def _read(file: int, shard: Path, index: ShardIndex, number: int) -> LatentSample:
    key = index.keys[number]
    tensors = read_member(file, index.tensors[number], key, shard)
    record = read_member(file, index.records[number], key, shard)
    return decode_sample(tensors, record, f"{shard.name} sample {key!r}")


def _count(sample: LatentSample, report: Report) -> None:
    report.samples += 1
    report.tokens[sample.text.shape[-2]] += 1
    report.fps[round(sample.fps, 3)] += 1
    report.shapes[tuple(sample.latent.shape)] += 1
    report.empty_captions += not sample.caption
    if sample.view_ids is not None:
        report.views[tuple(sample.view_ids.flatten().tolist())] += 1
    if sample.latent.ndim == 4 and bool(torch.isfinite(sample.latent).all()):
        report.latents.add(sample.latent)


def _judge(report: Report) -> None:
    if not report.samples:
        report.errors.append("no sample could be read")
        return
    if report.empty_captions:
        report.warnings.append(f"{report.empty_captions} samples have an empty caption")
    if len({tuple(sorted(ids)) for ids in report.views}) > 1 or 0 < report.views.total() < report.samples:
        report.warnings.append("samples have different views")
    if report.samples > 1 and report.distinct_captions == 1:
        report.warnings.append("all samples have the same caption")
    mean, std = report.latents.mean, report.latents.std
    dead = (std < DEAD_CHANNEL).nonzero().flatten().tolist()
    if dead:
        report.warnings.append(f"latent channels {dead} are constant")
    off = (mean.abs() > MEAN_LIMIT) | (std < STD_LIMITS[0]) | (std > STD_LIMITS[1])
    odd = [channel for channel in off.nonzero().flatten().tolist() if channel not in dead]
    if odd:
        values = ", ".join(f"{channel}: {mean[channel]:.2f} and {std[channel]:.2f}" for channel in odd[:4])
        report.warnings.append(
            f"{len(odd)} of {len(mean)} latent channels are far from mean 0 and standard deviation 1 ({values}"
            f"{', ...' if len(odd) > 4 else ''}): do the tokenizer's statistics belong to it?"
        )


def _describe(value: Tensor) -> str:
    return f"{tuple(value.shape)} {shown_dtype(value.dtype)}"
