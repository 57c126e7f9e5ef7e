"""Given frames of several cameras: a file for each of them, or one that holds all views."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.data.images import IMAGE_SUFFIXES, is_image, read_image
from nemo_cosmos.data.listing import is_video_name
from nemo_cosmos.data.manifest import one_rate
from nemo_cosmos.data.rig import Rig
from nemo_cosmos.data.video import VideoInfo, frames_of, padding_mask, probe, read_frames, resize
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.inputs import GivenFrames, InputFrames
from nemo_cosmos.inference.requests import CAMERA, GenerationRequest

logger = logging.getLogger(__name__)
Inputs = dict[str, "Path | GivenFrames"]
"""By folder of the camera."""


def find_inputs(request: GenerationRequest, rig: Rig) -> Inputs:
    """The input of each camera; empty where there is none, or where one file holds all views.

    Cameras are told by the names of files and folders alone: ``CAMERA.mp4`` or ``CAMERA/CLIP.mp4`` in the folder that
    the request names, or in ``videos`` there; ``{camera}`` in a path stands for each of them.

    Raises:
        InputError: cameras that lack their input or have several, or names of unknown ones.
    """
    given, path = request.visual_inputs, request.visual_input
    if isinstance(given, Mapping):
        return _require_all(dict(given), rig, f"{request.name}: inputs", [])
    if given is not None:
        if len(given) != len(rig.cameras):
            raise InputError(f"{request.name}: {len(given)} inputs for {len(rig.cameras)} cameras: {rig}")
        return dict(zip(rig.folders, given, strict=True))
    if path is None:
        return {}
    if CAMERA in str(path):
        files = {folder: Path(str(path).replace(CAMERA, folder)) for folder in rig.folders}
        return _require_all({c: f for c, f in files.items() if f.is_file()}, rig, str(path), [])
    if path.is_dir():
        return _in_folder(path, rig)
    require_file(path, f"{request.name}: input ")
    return {}


def _require_all(found: Inputs, rig: Rig, where: str, others: list[str]) -> Inputs:
    """The inputs, or InputError with the cameras that lack theirs and the names that are no camera's."""
    unknown = [*others, *(str(name)[:80] for name in found if name not in rig.folders)]
    missing = [folder for folder in rig.folders if folder not in found]
    if missing or len(unknown) > len(others):
        parts = [f"no input for {', '.join(missing)}"] if missing else []
        parts += [f"unknown cameras: {', '.join(unknown)}"] if unknown else []
        raise InputError(f"{where}: {'; '.join(parts)}; the cameras are {rig}")
    for given in found.values():
        if isinstance(given, Path):
            require_file(given, f"{where}: ")
    return {folder: found[folder] for folder in rig.folders}


def _in_folder(folder: Path, rig: Rig) -> Inputs:
    inner = folder / "videos"
    base = inner if inner.is_dir() and inner.name not in rig.folders else folder
    found: dict[str, list[Path]] = {}
    for entry in sorted(base.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and (files := [file for file in sorted(entry.iterdir()) if _is_media(file)]):
            found.setdefault(entry.name, []).extend(files)
        elif _is_media(entry):
            found.setdefault(entry.stem, []).append(entry)
    others = [name for name in found if name not in rig.folders]
    known = {name: files for name, files in found.items() if name in rig.folders}
    inputs = _require_all({name: files[0] for name, files in known.items()}, rig, str(base), others)
    if several := [f"{name} ({len(files)})" for name, files in known.items() if len(files) > 1]:
        raise InputError(
            f"{base}: several inputs for {', '.join(several)}; name those of one clip, such as "
            f"{base}/{CAMERA}/CLIP.mp4"
        )
    clips = {file.name for (file,) in known.values() if file.parent != base}
    if len(clips) > 1:
        shown = ", ".join(str(file) for (file,) in known.values())
        raise InputError(f"{base}: the cameras have clips of different names: {shown}; they have to be of one clip")
    if others:
        logger.warning("%s: not read, no cameras of the rig: %s", base, ", ".join(others))
    return inputs


def _is_media(file: Path) -> bool:
    named = is_video_name(file) or file.suffix.lower() in IMAGE_SUFFIXES
    return named and not file.name.startswith(".") and file.is_file()


@dataclass(frozen=True)
class _Found:
    """What one camera's input is: frames and rate of a video, 1 and None of an image."""

    frames: int
    fps: float | None


def check_alike(inputs: Inputs, config: GenerationConfig, defaults: WeightDefaults, where: str) -> None:
    """InputError with the list where cameras differ in length or rate, or some are images and others videos."""
    found = {folder: _look(given, defaults) for folder, given in inputs.items()}
    kinds = {folder: "an image" if one.fps is None and one.frames == 1 else "a video" for folder, one in found.items()}
    for what, values, differ in (
        ("kind", kinds, len(set(kinds.values())) > 1),
        (
            "length",
            {f: f"{one.frames} frames" for f, one in found.items()},
            len({o.frames for o in found.values()}) > 1,
        ),
        ("frame rate", {f: f"{one.fps or 0:g} fps" for f, one in found.items()}, _rates_differ(found)),
    ):
        if differ:
            shown = ", ".join(f"{folder}: {value}" for folder, value in values.items())
            raise InputError(f"{where}: the inputs of the cameras differ in {what} ({shown}); cut them alike")


def _rates_differ(found: dict[str, _Found]) -> bool:
    rates = [one.fps for one in found.values() if one.fps is not None]
    return len(rates) > 1 and one_rate(rates) is None


def _look(given: Path | GivenFrames, defaults: WeightDefaults) -> _Found:
    if isinstance(given, GivenFrames):
        return _Found(given.frames.shape[1], None)
    if is_image(given):
        return _Found(1, None)
    info = probe(given)
    rate = _rate(info, defaults)
    return _Found(info.frames_at(rate), rate or info.fps)


def check_stacked(path: Path, count: int, config: GenerationConfig, defaults: WeightDefaults) -> None:
    """InputError where one file cannot hold ``count`` views, or has too few frames of each; reads no frames."""
    if is_image(path):
        if config.input_stacking != "vertical" and count > 1:
            raise InputError(f"{path} is an image, which cannot hold {count} views in time: input_stacking=vertical")
        if config.num_input_frames != 1:
            raise InputError(f"{path} is an image: it gives 1 frame, not num_input_frames={config.num_input_frames}")
        return _require_rows(path, read_image(path).shape[1], count)
    info = probe(path)
    if info.damage:
        raise InputError(info.damage)
    if config.input_stacking == "vertical":
        _require_rows(path, info.height, count)
        _numbers(path, info.frames_at(_rate(info, defaults)), config, defaults)
        return
    if info.frames % count:
        raise InputError(
            f"{path} has {info.frames} frames, which do not divide into {count} views of one length; a video with the "
            "views one below the other is read with input_stacking=vertical"
        )
    if config.num_input_frames > 1 and defaults.input_fps and one_rate([defaults.input_fps, info.fps]) is None:
        raise InputError(
            f"{path} has {info.fps:g} frames per second and the network was trained at {defaults.input_fps:g}: give "
            "each camera's video on its own, which is then read at that rate"
        )
    _numbers(path, info.frames // count, config, defaults)


def read_stacked(
    path: Path, count: int, size: tuple[int, int], config: GenerationConfig, defaults: WeightDefaults, cell: int
) -> list[InputFrames]:
    """The given frames of ``count`` views out of one file that holds all of them, as ``config.input_stacking`` says.

    Args:
        path: video, or image with the views one below the other; one that :func:`check_stacked` lets pass.
        count: views.
        size: (height, width) in pixels that each view is brought to.
        config: of which frames are taken, and how.
        defaults: of which rate and step.
        cell: pixels per latent cell.
    """
    views, fps = _views_of(path, count, config, defaults)
    fit = config.fit or defaults.fit
    out = []
    for frames in views:
        source = (frames.shape[2], frames.shape[3])
        small = torch.stack([resize(frame, size, fit) for frame in frames.unbind(1)], dim=1)
        out.append(InputFrames(small, fps, padding_mask(source, size, fit, cell)))
    return out


def _views_of(
    path: Path, count: int, config: GenerationConfig, defaults: WeightDefaults
) -> tuple[tuple[Tensor, ...], float | None]:
    """(3, n, H, W) of each view, and the rate of these frames."""
    if is_image(path):
        return read_image(path)[:, None].chunk(count, dim=2), None
    info, step = probe(path), defaults.input_step
    if config.input_stacking == "vertical":
        rate = _rate(info, defaults)
        numbers = _numbers(path, info.frames_at(rate), config, defaults)
        frames = read_frames(path, numbers[0], len(numbers), step=step, fps=rate)
        return frames.chunk(count, dim=2), (rate or info.fps) / step
    length = info.frames // count
    numbers = _numbers(path, length, config, defaults)
    frames = frames_of(path, [view * length + number for view in range(count) for number in numbers])
    return frames.chunk(count, dim=1), info.fps / step


def _rate(info: VideoInfo, defaults: WeightDefaults) -> float | None:
    """Constant rate that frames are read at, None for those of the file."""
    return defaults.input_fps or info.even_rate


def _require_rows(path: Path, rows: int, count: int) -> None:
    if rows % count:
        raise InputError(f"{path} has {rows} rows, which do not divide into {count} views of one height")


def _numbers(path: Path, available: int, config: GenerationConfig, defaults: WeightDefaults) -> list[int]:
    """Which of the frames of a view are given."""
    count, step = config.num_input_frames, defaults.input_step
    start = 0 if config.input_from == "start" else available - 1 - (count - 1) * step
    if start < 0 or start + (count - 1) * step >= available:
        raise InputError(f"{path} has {available} frames of each view, too few for num_input_frames={count}")
    return [start + number * step for number in range(count)]
