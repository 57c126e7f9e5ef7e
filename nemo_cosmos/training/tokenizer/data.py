"""Video clips for tokenizer training: files, windows, augmentation, and an order that a run can resume exactly.

Everything random about a clip is drawn from a generator keyed by (seed, position of the clip in the run), so the data
does not depend on the number of processes or workers, nor on where a run was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nemo_cosmos.config import conf_folder
from nemo_cosmos.data.file_pool import map_files
from nemo_cosmos.data.listing import expand_pattern, find_videos
from nemo_cosmos.data.record import DataRecord
from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.data.workers import reader_options
from nemo_cosmos.errors import InputError
from nemo_cosmos.pixels import from_levels
from nemo_cosmos.training.tokenizer.config import TokenizerDataConfig
from nemo_cosmos.training.tokenizer.distributed import Workers
from nemo_cosmos.training.tokenizer.frame_counts import Count, FrameCounts, mark_of
from nemo_cosmos.typed import read_yaml

# (width, height) that a clip covers after resizing, by aspect ratio width:height.
RESOLUTIONS: dict[int, dict[str, tuple[int, int]]] = {
    1080: {"4:3": (1440, 1072), "3:4": (1072, 1440), "16:9": (1920, 1072), "9:16": (1072, 1920)},
    720: {"1:1": (720, 720), "4:3": (960, 720), "3:4": (720, 960), "16:9": (1280, 720), "9:16": (720, 1280)},
    512: {"1:1": (512, 512), "4:3": (672, 512), "3:4": (512, 672), "16:9": (896, 512), "9:16": (512, 896)},
    480: {"1:1": (480, 480), "4:3": (640, 480), "3:4": (480, 640), "16:9": (854, 480), "9:16": (480, 854)},
    360: {"1:1": (320, 320), "4:3": (416, 320), "3:4": (320, 416), "16:9": (544, 320), "9:16": (320, 544)},
    256: {"1:1": (256, 256), "4:3": (320, 256), "3:4": (256, 320), "16:9": (320, 192), "9:16": (192, 320)},
}


@dataclass(frozen=True)
class ClipSource:
    """Files of a dataset and the resolution class they are resized to."""

    files: tuple[Path, ...]
    resolution: int | None


def resolve_source(value: str, config: TokenizerDataConfig) -> ClipSource:
    """Files of a glob or of a registered name with an optional resolution suffix (``hdvila_video720``).

    Raises:
        InputError: unknown name or resolution, or a glob that matches nothing.
    """
    resolution = config.resolution
    pattern = value
    if not any(mark in value for mark in "/*?[.") and not Path(value).exists():
        registry = read_registry(config.registry)
        match = re.fullmatch(r"(.*?)(\d+)?", value)
        assert match is not None
        name, digits = match[1], match[2]
        if value in registry:
            name, digits = value, None
        if name not in registry:
            raise InputError(
                f"unknown video dataset {value!r}: registered are {', '.join(sorted(registry))}; or give a glob"
            )
        pattern = registry[name]
        resolution = int(digits) if digits else resolution
    if resolution is not None and resolution not in RESOLUTIONS:
        raise InputError(f"data.resolution={resolution}: expected one of {', '.join(map(str, sorted(RESOLUTIONS)))}")
    files = tuple(find_videos(Path(pattern)) if Path(pattern).is_dir() else expand_pattern(pattern))
    if not files:
        raise InputError(f"no video matches {pattern!r} (relative to {Path.cwd()})")
    return ClipSource(files, resolution)


def read_registry(path: str | None) -> dict[str, str]:
    """Dataset names and their globs from a YAML file."""
    file = Path(path) if path else conf_folder() / "tokenizer" / "datasets.yaml"
    try:
        content = read_yaml(file)
    except InputError as error:
        raise InputError(f"data.registry={error}") from error
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise InputError(f"{file}: expected lines 'name: glob'")
    return {str(key): value for key, value in content.items()}


def cover_size(height: int, width: int, resolution: int | None) -> tuple[int, int]:
    """(height, width) after scaling so that the frame covers its resolution class, aspect ratio kept."""
    if resolution is None:
        return height, width
    table = RESOLUTIONS[resolution]
    ratio = width / height
    key = min(table, key=lambda k: abs(ratio - int(k.split(":")[0]) / int(k.split(":")[1])))
    target_w, target_h = table[key]
    scale = max(target_w / width, target_h / height)
    return int(scale * height + 0.5), int(scale * width + 0.5)


def resize(video: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, T, H, W) to the (height, width) ``size``: bicubic with antialiasing, values stay in [0, 255], fp32."""
    video = video.float()
    if tuple(video.shape[2:]) == size:
        return video
    frames = F.interpolate(video.transpose(0, 1), size=size, mode="bicubic", antialias=True, align_corners=False)
    return frames.transpose(0, 1).clamp(0.0, 255.0)


def pad_to(video: Tensor, crop: tuple[int, int]) -> Tensor:
    """Pad (3, T, H, W) right and below to at least ``crop`` by reflection, by the edge where that is too far."""
    bottom, right = max(crop[0] - video.shape[2], 0), max(crop[1] - video.shape[3], 0)
    if bottom == 0 and right == 0:
        return video
    mode = "reflect" if bottom < video.shape[2] and right < video.shape[3] else "replicate"
    return F.pad(video.transpose(0, 1), (0, right, 0, bottom), mode=mode).transpose(0, 1)


def augment(video: Tensor, generator: torch.Generator, config: TokenizerDataConfig, resolution: int | None) -> Tensor:
    """A training clip of exactly ``config.crop``, in [−1, 1], from (3, T, H, W) uint8 frames at native size.

    In order: native-scale or resized random crop, time reversal, padding, mirroring.
    """
    crop = (config.crop[0], config.crop[1])
    draws = torch.rand(5, generator=generator).tolist()
    large = video.shape[2] >= crop[0] and video.shape[3] >= crop[1]
    if not (large and draws[0] <= config.native_crop_probability):
        video = resize(video, cover_size(video.shape[2], video.shape[3], resolution))
    top = int(draws[1] * (max(video.shape[2] - crop[0], 0) + 1))
    left = int(draws[2] * (max(video.shape[3] - crop[1], 0) + 1))
    video = video[:, :, top : top + crop[0], left : left + crop[1]]
    if draws[3] < config.reverse_probability:
        video = video.flip(1)
    video = pad_to(video.float(), crop)
    if draws[4] < config.flip_probability:
        video = video.flip(3)
    return from_levels(video.contiguous())


def center_clip(video: Tensor, crop: tuple[int, int], resolution: int | None) -> Tensor:
    """The validation counterpart of :func:`augment`: resize, centre crop, pad; in [−1, 1]."""
    video = resize(video, cover_size(video.shape[2], video.shape[3], resolution))
    top, left = max(video.shape[2] - crop[0], 0) // 2, max(video.shape[3] - crop[1], 0) // 2
    video = pad_to(video[:, :, top : top + crop[0], left : left + crop[1]], crop)
    return from_levels(video.contiguous())


COUNTS = FrameCounts()
"""What this process knows of videos."""


def count_frames(files: Sequence[Path], *, progress: bool = False) -> list[int]:
    """Evenly spaced frames of every video, of damaged ones those before the damage; files that stay as they are get
    read once in a process, many of them by several processes.

    Raises:
        InputError: a file is no readable video; the first such.
    """
    from tqdm import tqdm

    marks = {path: mark_of(path) for path in files}
    new = [path for path, mark in marks.items() if COUNTS.find(path, mark) is None]
    silent = not progress or len(new) < 50
    with (
        contextlib.closing(map_files(probe, new)) as found,
        contextlib.closing(tqdm(found, desc="probing videos", total=len(new), disable=silent)) as bar,
    ):
        for path, info in zip(new, bar, strict=True):
            if isinstance(info, Exception):
                raise info
            COUNTS.add(path, marks[path], Count(info.frames_at(info.even_rate), info.damage))
    known = {path: COUNTS.find(path, mark) for path, mark in marks.items()}
    return [count.frames for path in files if (count := known[path]) is not None]


def share_counts(files: Sequence[Path], workers: Workers) -> None:
    """Every process counts the frames of its share of the files and tells the others; collective."""
    if workers.world == 1:
        return
    mine = files[workers.rank :: workers.world]
    with contextlib.suppress(InputError):  # All say the same of the first one, when they count the frames of all.
        count_frames(mine, progress=workers.is_main)
    for told in workers.gather([json.dumps(COUNTS.pack(mine))]):
        COUNTS.offer(json.loads(told))


def _read_evenly(path: Path, start: int, count: int) -> Tensor:
    """Frames as ``count_frames`` counts them."""
    rate = probe(path).even_rate
    return read_frames(path, start, count) if rate is None else read_frames(path, start, count, fps=rate)


class ClipDataset(Dataset[Tensor]):
    """Clips by position in the run: every window of every video once per epoch, in an order keyed by (seed, epoch).

    Args:
        source: the files.
        config: frames, crop and augmentation.
        seed: keys order and augmentation.
        progress: show a bar while the files are probed.

    Raises:
        InputError: no video has ``num_frames`` frames, or one cannot be read.
    """

    def __init__(self, source: ClipSource, config: TokenizerDataConfig, seed: int, *, progress: bool = False) -> None:
        self.source, self.config, self.seed = source, config, seed
        counts = count_frames(source.files, progress=progress)
        self.ends = torch.tensor([max(count - config.num_frames + 1, 0) for count in counts]).cumsum(0)
        if int(self.ends[-1]) == 0:
            raise InputError(
                f"none of the {len(source.files)} videos has data.num_frames={config.num_frames} frames "
                f"(the first is {source.files[0]})"
            )
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def record(self) -> DataRecord:
        """What the run folder keeps about the videos: their names, sizes and order."""
        lines = [f"{file.name} {file.stat().st_size}" for file in self.source.files]
        digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
        return DataRecord(self.config.train, digest, len(self))

    def window(self, index: int) -> tuple[Path, int]:
        """File and first frame of window ``index``."""
        file = int(torch.searchsorted(self.ends, index, right=True))
        return self.source.files[file], index - (int(self.ends[file - 1]) if file else 0)

    def window_at(self, position: int) -> tuple[Path, int]:
        """File and first frame of the clip at a position in the run."""
        epoch, place = divmod(position, len(self))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order, self._epoch = torch.randperm(len(self), generator=generator), epoch
        return self.window(int(self._order[place]))

    def __getitem__(self, position: int) -> Tensor:
        path, start = self.window_at(position)
        frames = _read_evenly(path, start, self.config.num_frames)
        generator = torch.Generator().manual_seed((self.seed << 32) ^ position)
        return augment(frames, generator, self.config, self.source.resolution)


class PositionSampler(Sampler[int]):
    """Positions of one process from optimizer step ``start_step`` on, without end."""

    def __init__(self, config: TokenizerDataConfig, start_step: int, rank: int, world: int) -> None:
        self.config, self.start_step, self.rank, self.world = config, start_step, rank, world

    def __iter__(self) -> Iterator[int]:
        step = self.start_step
        while True:
            for batch in self.micro_batches(step):
                yield from batch
            step += 1

    def micro_batches(self, step: int) -> list[range]:
        """Positions of this process in one optimizer step, by micro batch."""
        micro, total = self.config.micro_batch, self.config.global_batch
        starts = range(step * total + self.rank * micro, (step + 1) * total, self.world * micro)
        return [range(start, start + micro) for start in starts]


def make_loader(dataset: ClipDataset, start_step: int, rank: int, world: int) -> DataLoader[Tensor]:
    """Endless loader of (micro_batch, 3, T, H, W) clips for one process.

    Raises:
        InputError: global_batch is not a multiple of micro_batch x processes.
    """
    config = dataset.config
    if config.global_batch % (config.micro_batch * world):
        raise InputError(
            f"data.global_batch={config.global_batch} is not a multiple of data.micro_batch={config.micro_batch} "
            f"x {world} processes"
        )
    return DataLoader(
        dataset,
        batch_size=config.micro_batch,
        sampler=PositionSampler(config, start_step, rank, world),
        pin_memory=torch.cuda.is_available(),
        # Forked from this process, a worker can wait for ever for the threads of decoders that probed the videos here.
        **reader_options(config.num_workers),
    )


class CenterClips(Sequence[Tensor]):
    """Up to ``max_clips`` centre clips (3, T, H, W) in [−1, 1], the first window of evenly spread videos.

    A clip is read when it is asked for, so that many of them need no memory.

    Args:
        progress: show a bar while the files are probed.

    Raises:
        InputError: no video has ``config.num_frames`` frames, or one cannot be read.
    """

    def __init__(
        self, source: ClipSource, config: TokenizerDataConfig, max_clips: int, *, progress: bool = False
    ) -> None:
        counts = count_frames(source.files, progress=progress)
        long_enough = [path for path, count in zip(source.files, counts, strict=True) if count >= config.num_frames]
        if not long_enough:
            count, first = len(source.files), source.files[0]
            raise InputError(f"none of {count} videos has {config.num_frames} frames: {first}, …")
        step = max(len(long_enough) / max_clips, 1.0)
        self.files = [long_enough[int(i * step)] for i in range(min(max_clips, len(long_enough)))]
        self._num_frames, self._resolution = config.num_frames, source.resolution
        self._crop = (config.crop[0], config.crop[1])

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return center_clip(_read_evenly(self.files[index], 0, self._num_frames), self._crop, self._resolution)
