"""Folders of eight files per sample, as the camera-control preparation of Cosmos on NeMo writes them.

``N.video_latent.pth``, ``N.conditioning_latent.pth`` (16, T, h, w), ``N.plucker_embeddings.pth`` (frames, 6, h, w),
``N.padding_mask.pth`` (1, h, w), ``N.image_size.pth`` (1, 4), ``N.t5_text_embeddings.pth`` (512, width),
``N.t5_text_mask.pth`` (512) and ``N.info.json``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.camera.latent_frames import DEFAULT_MAPPING, to_latent_frames
from nemo_cosmos.camera.stored import temporal_compression
from nemo_cosmos.choices import TemporalMapping
from nemo_cosmos.data.embeddings import file_digest
from nemo_cosmos.data.positions import Bucket, LatentShape
from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.errors import InputError
from nemo_cosmos.tensor_files import load_restricted
from nemo_cosmos.typed import read_object

logger = logging.getLogger(__name__)
LATENT, GIVEN_LATENT = "video_latent.pth", "conditioning_latent.pth"
RAYS, MASK, SIZE = "plucker_embeddings.pth", "padding_mask.pth", "image_size.pth"
TEXT, TEXT_MASK, INFO = "t5_text_embeddings.pth", "t5_text_mask.pth", "info.json"
PARTS = (LATENT, TEXT_MASK, TEXT, RAYS, MASK, INFO, SIZE, GIVEN_LATENT)
SETTINGS_NAME = "prepare.json"
"""What this package records about a folder that it wrote."""
SHOWN = 5
_NAME = re.compile(r"(\d{1,15})\.(" + "|".join(map(re.escape, PARTS)) + ")")


@dataclass(frozen=True)
class _Info:
    """What is read of ``N.info.json``."""

    fps: float
    num_frames: int
    caption: str
    source: str


def is_sample_folder(path: Path) -> bool:
    """Whether a folder holds samples of eight files."""
    return path.is_dir() and any(path.glob(f"*.{LATENT}"))


def part_file(folder: Path, number: int, part: str) -> Path:
    """The file of a part of a sample."""
    return folder / f"{number}.{part}"


def numbers_in(folder: Path) -> dict[int, set[str]]:
    """The parts that are there of each sample, by its number, sorted."""
    found: dict[int, set[str]] = {}
    for entry in os.scandir(folder):
        if (match := _NAME.fullmatch(entry.name)) and str(int(match[1])) == match[1]:
            found.setdefault(int(match[1]), set()).add(match[2])
    return dict(sorted(found.items()))


class EightFileDataset(torch.utils.data.Dataset[LatentSample]):
    """Random access to the samples of a folder, in the order of their numbers; files are read when they are asked for.

    Args:
        path: the folder.
        mapping: which pixel frames' rays a latent frame is given; None: samples have no rays.
        repair_poses: a sample of one ray map too few, as the original tool writes for a chunk at the end of a scene,
            is read with its first map doubled: its maps are those of the frames that follow the first.
        check: look into all samples now, and refuse the folder where one is broken.

    Attributes:
        keys: the numbers as text.
        buckets: the samples by the shape of their latents.
        tokenizer: that made them, None where that is not recorded.
        text_encoder: name of what embedded the captions, empty where it is not recorded.
        text_width: of their text embeddings.
        fps: distinct frame rates.

    Raises:
        InputError: there is no sample, or some are broken: an incomplete set, a wrong shape, another number of ray
            maps than frames. The message lists them.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mapping: TemporalMapping | None = DEFAULT_MAPPING,
        repair_poses: bool = False,
        check: bool = True,
    ) -> None:
        self.path, self.mapping, self.repair_poses = Path(path), mapping, repair_poses
        self.parts = numbers_in(self.path) if self.path.is_dir() else {}
        if not self.parts:
            raise InputError(f"{path} holds no samples: expected N.{LATENT} and seven more files of each")
        self.numbers = list(self.parts)
        self.keys = [str(number) for number in self.numbers]
        recorded = read_object(self.path / SETTINGS_NAME) if (self.path / SETTINGS_NAME).is_file() else {}
        tokenizer = recorded.get("tokenizer")
        self.tokenizer = TokenizerIdentity.from_json(tokenizer) if isinstance(tokenizer, dict) else None
        self.text_encoder = str(recorded.get("text_encoder", ""))
        self.settings = recorded
        self.buckets: list[Bucket] = []
        self.text_width, self.fps = 0, [0.0]
        if check:
            self._look_into_all()

    def _look_into_all(self) -> None:
        shapes: dict[LatentShape, list[int]] = {}
        rates: set[float] = set()
        widths: set[int] = set()
        problems: dict[str, str] = {}
        one_sided = 0
        for index, key in enumerate(self.keys):
            tensors, info, found = self._look_into(index)
            if tensors is None or info is None or found:
                problems[key] = found[0]
                continue
            channels, frames, height, width = tensors[LATENT].shape
            shapes.setdefault((channels, frames, height, width), []).append(index)
            widths.add(tensors[TEXT].shape[1])
            rates.add(info.fps)
            one_sided += is_one_sided(tensors[MASK], tensors[SIZE])
        if problems:
            listed = "; ".join(f"{key}: {problem}" for key, problem in list(problems.items())[:SHOWN])
            more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise InputError(
                f"{self.path}: {len(problems)} of {len(self)} samples are broken ({listed}{more}): prepare them "
                f"again, or move their files away; `nemo-cosmos validate {self.path}` lists all"
            )
        if len(widths) > 1:
            raise InputError(f"{self.path}: text embeddings of {sorted(widths)} columns: expected one width")
        if one_sided:
            logger.warning(
                "%s: the padding mask of %d samples covers one side of a picture that is padded on both, a fault of "
                "the tool that made them: prepare again, or the network sees padding as picture",
                *(self.path, one_sided),
            )
        self.text_width, self.fps = widths.pop(), sorted(rates)
        self.buckets = [Bucket(shape, np.asarray(rows)) for shape, rows in sorted(shapes.items())]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> LatentSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        tensors, info, found = self._look_into(index)
        if tensors is None or info is None or found:
            raise InputError(f"{self.path}: sample {self.keys[index]}: {found[0]}")
        latent, mask = tensors[LATENT], tensors[MASK].round().to(torch.uint8)
        size = [round(value) for value in tensors[SIZE].float().flatten().tolist()]
        return LatentSample(
            key=self.keys[index],
            latent=latent.clone(),
            text=true_tokens(tensors[TEXT]),
            caption=info.caption,
            fps=info.fps,
            num_frames=info.num_frames,
            image_size=(size[0], size[1], size[2], size[3]),
            source=info.source,
            padding_mask=mask if bool(mask.any()) else None,
            plucker=None if self.mapping is None else self._rays(tensors[RAYS], info, latent.shape[1]),
        )

    @property
    def digest(self) -> str:
        """SHA-256 that changes with any sample, over the checksums that ``torch.save`` keeps in its files."""
        digest = hashlib.sha256()
        for number in self.numbers:
            parts = (_content_digest(part_file(self.path, number, part)) for part in PARTS)
            digest.update(f"{number} {' '.join(parts)}\n".encode())
        return digest.hexdigest()

    def problems(self, index: int) -> list[str]:
        """What is wrong with a sample, in words; reads no more than the beginnings of its files."""
        return self._look_into(index)[2]

    def is_one_sided(self, index: int) -> bool:
        """Whether the padding mask of a sample without problems covers one of two sides."""
        tensors = self._tensors(self.numbers[index])
        return is_one_sided(tensors[MASK], tensors[SIZE])

    def _look_into(self, index: int) -> tuple[dict[str, Tensor] | None, _Info | None, list[str]]:
        """The tensors of a sample, not read yet, what its record says, and what is wrong."""
        number = self.numbers[index]
        if missing := [part for part in PARTS if part not in self.parts[number]]:
            return None, None, [f"{', '.join(f'{number}.{part}' for part in missing)} missing"]
        try:
            tensors, info = self._tensors(number), self._info(number)
        except InputError as error:
            return None, None, [str(error)]
        return tensors, info, _shape_problems(tensors, info, repair=self.repair_poses)

    def _rays(self, rays: Tensor, info: _Info, latent_frames: int) -> Tensor:
        assert self.mapping is not None
        if len(rays) == info.num_frames - 1:
            rays = torch.cat([rays[:1], rays])
        compression = temporal_compression(info.num_frames, latent_frames)
        return to_latent_frames(rays, self.mapping, compression, frames_first=True).float()

    def _tensors(self, number: int) -> dict[str, Tensor]:
        found = {}
        for part in PARTS:
            if part != INFO:
                file = part_file(self.path, number, part)
                value = load_restricted(file)
                if not isinstance(value, Tensor) or not value.is_floating_point():
                    raise InputError(f"{file}: expected a tensor of real numbers")
                found[part] = value
        return found

    def _info(self, number: int) -> _Info:
        file = part_file(self.path, number, INFO)
        values = read_object(file)
        fps, frames = values.get("fps"), values.get("num_frames")
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e6:
            raise InputError(f"{file}: fps is {fps!r}, expected a positive number")
        if type(frames) is not int or frames < 1:
            raise InputError(f"{file}: num_frames is {frames!r}, expected a positive whole number")
        caption, video = values.get("caption", ""), values.get("video_path", "")
        if not isinstance(caption, str) or not isinstance(video, str):
            raise InputError(f"{file}: expected texts as caption and video_path")
        start = values.get("start_frame")
        return _Info(float(fps), frames, caption, f"{video} from frame {start}" if start is not None else video)


def _shape_problems(tensors: dict[str, Tensor], info: _Info, *, repair: bool) -> list[str]:
    latent = tensors[LATENT]
    if latent.ndim != 4:
        return [f"{LATENT} has shape {tuple(latent.shape)}, expected (channels, frames, height, width)"]
    _, frames, height, width = latent.shape
    rays = len(tensors[RAYS]) if tensors[RAYS].ndim else 0
    shifted = rays == info.num_frames - 1
    count = rays if shifted else info.num_frames
    expected: dict[str, Sequence[int | str]] = {
        GIVEN_LATENT: tuple(latent.shape),
        MASK: (1, height, width),
        SIZE: (1, 4),
        TEXT: ("tokens", "width"),
        TEXT_MASK: (tensors[TEXT].shape[0] if tensors[TEXT].ndim else 0,),
    }
    problems = []
    for part, shape in {RAYS: (count, 6, height, width), **expected}.items():
        found = tuple(tensors[part].shape)
        if len(found) != len(shape) or any(
            isinstance(size, int) and size != side for size, side in zip(shape, found, strict=True)
        ):
            problems.append(f"{part} has shape {found}, expected ({', '.join(map(str, shape))})")
    if shifted and not repair:
        problems.append(
            f"{rays} ray maps for {info.num_frames} frames: the original tool takes the poses of the frames after "
            "those of the video; prepare again, or set data.repair_poses=true to double the first"
        )
    try:
        temporal_compression(info.num_frames, frames)
    except InputError:
        problems.append(f"{LATENT} of {frames} latent frames does not fit {info.num_frames} frames")
    return problems


def true_tokens(text: Tensor) -> Tensor:
    """(n, width) embedding without the zero rows at its end, at least one row."""
    told = text.abs().amax(dim=1).nonzero().flatten()
    return text[: int(told[-1]) + 1 if len(told) else 1].clone()


def is_one_sided(mask: Tensor, size: Tensor) -> bool:
    """Whether a mask marks fewer cells than the picture's size leaves: bars on both sides, of which one is marked."""
    height, width, rows, columns = (round(value) for value in size.float().flatten().tolist())
    if min(height, width, rows, columns) < 1 or (rows >= height and columns >= width):
        return False
    marked = mask[0].float()
    cells = marked.shape[0] / height, marked.shape[1] / width
    # The first pixel of a cell decides: the bar at the far side has to be at least a cell wide.
    bars = ((height - rows) // 2 * cells[0], (width - columns) // 2 * cells[1])
    return bool(bars[0] >= 1 and not marked[-1].all()) or bool(bars[1] >= 1 and not marked[:, -1].all())


def _content_digest(file: Path) -> str:
    """What changes with a file's content: the checksums in its directory, of other files a digest."""
    if file.suffix == ".pth" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return ",".join(f"{info.CRC:08x}-{info.file_size}" for info in archive.infolist())
    return file_digest(file)
