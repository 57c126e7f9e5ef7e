"""What a user chooses about generation, and the defaults that a training run brings along."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from nemo_cosmos.camera.csv_poses import DEFAULT_FOV
from nemo_cosmos.camera.latent_frames import DEFAULT_MAPPING
from nemo_cosmos.checkpoint.files import JOINT
from nemo_cosmos.choices import Fit, InputFrom, Sampler, Stacking, TemporalMapping
from nemo_cosmos.data.eight_files import EightFileDataset, is_sample_folder
from nemo_cosmos.data.images import IMAGE_FORMATS
from nemo_cosmos.data.manifest import Manifest, one_rate
from nemo_cosmos.data.record import recorded_rates
from nemo_cosmos.data.rig import MOST_CAMERAS, Rig, described_rig
from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.data.video import FITS
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.typed import check_fields, read_yaml

SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
DEFAULT_FPS = 24.0
"""Frame rate told to the network when neither the user nor the input names one."""
LARGEST_SIDE, MOST_FRAMES, MOST_STEPS, MOST_FPS = 2**14, 10**6, 10_000, 1000
RELEASED_SIZE = (704, 1280)
RELEASED_TEXT_LENGTH = 512
TINY_NETWORKS = (
    "predict1-tiny-video2world", "predict1-tiny-text2world", "predict2-tiny-video2world", "predict2-tiny-text2image",
)  # fmt: skip
"""Presets of the networks of nemo-cosmos-tiny."""
TINY_SIZE, TINY_FRAMES, TINY_TEXT_LENGTH = (96, 128), 17, 64
"""What they were trained with."""
RELEASED_GUIDANCE, TINY_GUIDANCE = 7.0, 1.0
"""Of videos where none is named: with that of the large networks, the small ones leave the range of colours."""


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of a generation; None takes the default of the weights in use.

    Attributes:
        height, width: pixels of the video.
        num_frames: pixel frames of the video, the given ones included.
        chunk_frames: pixel frames generated in one go, as many as the network was trained on by default. A longer
            video is continued chunk by chunk.
        overlap_frames: pixel frames at the end of a chunk that the next one is given, 1 + k * temporal compression.
        fps: frame rate of the file, also told to the network. None: that of an input video, else the one of the
            training data, else 24.
        num_input_frames: pixel frames taken from an input video, 1 + k * temporal compression.
        input_from: whether those are the first ("start") or the last ("end") of the input video.
        fit: how an input of another shape fills the frame: "crop", "pad" or "stretch"; None: as in training, or crop.
        sampler: "edm-euler" (default for Predict1) or "res-2ab" (default for Predict2).
        num_steps: sampler steps.
        guidance: g in cond + g * (cond - uncond).
        batched_guidance: evaluate both branches of guidance as one batch of two: faster where one does not fill the
            device, with twice the activation memory.
        negative_prompt: text of the unconditional branch; None or empty takes zero embeddings, the text that training
            drops to.
        seed: of the noise; the same seed gives the same noise on every machine. Chunk i uses seed + i.
        crf: constant rate factor of the H.264 file, 0 (lossless) to 51.
        image_format: of an image file, "jpg", "jpeg" or "png"; its suffix.
        image_quality: of a JPEG file, 1 to 100; None: 85.
        rig: cameras of a video of several views; None: those that the network was trained on.
        num_views: how many cameras, where no rig names them.
        rope_fps: frame rate that a network of several views is told; None: that of the file.
        input_stacking: how one input video holds all views.
        trajectory: of the camera of every request that names none: a pose file or folder, or a move.
        fov: degrees from left to right that a camera shows whose trajectory does not tell.
        resample_trajectory: spread all poses of a file over the frames of the video, between two poses where needed,
            instead of taking one pose a frame.
        output_stacking: how the video that is written does; None: "vertical" for Predict2, "time" for Predict1.
    """

    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    chunk_frames: int | None = None
    overlap_frames: int = 9
    fps: float | None = None
    num_input_frames: int = 1
    input_from: InputFrom = "end"
    fit: Fit | None = None
    sampler: Sampler | None = None
    num_steps: int = 35
    guidance: float = RELEASED_GUIDANCE
    batched_guidance: bool = False
    negative_prompt: str | None = None
    seed: int = 1
    crf: int = 18
    image_format: str = "jpg"
    image_quality: int | None = None
    rig: Rig | None = None
    num_views: int | None = None
    rope_fps: float | None = None
    input_stacking: Stacking = "time"
    output_stacking: Stacking | None = None
    trajectory: str | None = None
    fov: float = DEFAULT_FOV
    resample_trajectory: bool = False

    def __post_init__(self) -> None:
        check_fields(self, {}, "")

        def require(name: str, condition: bool, expected: str) -> None:
            if not condition:
                raise InputError(f"{name}={getattr(self, name)!r}: expected {expected}")

        for name in ("height", "width", "num_frames", "chunk_frames", "overlap_frames", "num_input_frames"):
            value, most = getattr(self, name), LARGEST_SIDE if name in ("height", "width") else MOST_FRAMES
            require(name, value is None or 1 <= value <= most, f"at least 1 and at most {most}")
        require("num_steps", 2 <= self.num_steps <= MOST_STEPS, f"at least 2 and at most {MOST_STEPS}")
        require("guidance", math.isfinite(self.guidance) and abs(self.guidance) <= 1000, "a number from -1000 to 1000")
        for name in ("fps", "rope_fps"):
            rate = getattr(self, name)
            require(name, rate is None or 0 < rate <= MOST_FPS, f"a positive frame rate of at most {MOST_FPS}")
        views = self.num_views
        require("num_views", views is None or 1 <= views <= MOST_CAMERAS, f"at least 1 and at most {MOST_CAMERAS}")
        require("fov", 1 <= self.fov <= 175, "1 to 175 degrees")
        require("seed", 0 <= self.seed < 2**32, "0 up to 2^32 - 1")
        require("crf", 0 <= self.crf <= 51, "0 up to 51")
        require("image_format", self.image_format.lower() in IMAGE_FORMATS, " or ".join(IMAGE_FORMATS))
        require("image_quality", self.image_quality is None or 1 <= self.image_quality <= 100, "1 up to 100")
        require(
            "image_quality", self.image_quality is None or self.image_format.lower() != "png", "none: PNG is lossless"
        )
        require("input_from", self.input_from in ("start", "end"), "start or end")
        require("fit", self.fit is None or self.fit in FITS, " or ".join(FITS))
        require("sampler", self.sampler is None or self.sampler in SAMPLERS, " or ".join(SAMPLERS))


@dataclass(frozen=True)
class WeightDefaults:
    """What the weights were trained with, so that generation does the same unless told otherwise.

    Attributes:
        size: (height, width) in pixels.
        num_frames: pixel frames of a training clip; None: what the tokenizer encodes in one go.
        text_length: rows of the text embedding. Text is not masked, so its zero rows count.
        sigma_data: factor between normalised and diffused latents; None: that of the family.
        tokenizer: identity of the tokenizer that made the training latents, None when unknown.
        text_encoder: name of the encoder that made the training embeddings, None when unknown.
        fit: how source frames were brought to ``size``.
        input_fps: constant rate that source videos were resampled to, None for their own.
        input_step: distance between the frames taken from a source video.
        fps: frame rate of all training samples, None where they differ or it is unknown.
        rig: cameras of the training samples, None where they had one or it is unknown.
        camera_frames: which pixel frames' rays a latent frame was given.
        of_run: the weights are of a run.
    """

    size: tuple[int, int] = RELEASED_SIZE
    num_frames: int | None = None
    text_length: int = RELEASED_TEXT_LENGTH
    sigma_data: float | None = None
    tokenizer: TokenizerIdentity | None = None
    text_encoder: str | None = None
    fit: Fit = "crop"
    input_fps: float | None = None
    input_step: int = 1
    fps: float | None = None
    rig: Rig | None = None
    camera_frames: TemporalMapping = DEFAULT_MAPPING
    of_run: bool = False


def is_tiny(dit: DiTConfig) -> bool:
    """Whether a network is one of nemo-cosmos-tiny, wherever its weights lie."""
    return any(dit == DiTConfig.preset(name) for name in TINY_NETWORKS)


def released_defaults(dit: DiTConfig | None, size: tuple[int, int] = RELEASED_SIZE) -> WeightDefaults:
    """What weights that are not of a run were trained with; ``size`` is that of the large networks."""
    if dit is not None and is_tiny(dit):
        return WeightDefaults(size=TINY_SIZE, num_frames=TINY_FRAMES, text_length=TINY_TEXT_LENGTH)
    return WeightDefaults(size=size)


def trained_text_length(path: str | Path, dit: DiTConfig | None = None) -> int:
    """Rows of the text embedding that the weights were trained with; needs no shards.

    Args:
        path: what the weights are loaded from.
        dit: their network, for those of no run.
    """
    folder = run_folder_of(Path(path))
    if folder is None:
        return released_defaults(dit).text_length
    values = read_yaml(folder / "config.yaml")
    return int(_number(folder, values, "data.text_length", int, RELEASED_TEXT_LENGTH))


def run_folder_of(path: Path) -> Path | None:
    """The run that weights lie in: the folder with its settings, None for weights of no run."""
    above = 3 if path.parent.name == JOINT else 2
    return next((f for f in (path, *path.parents[:above]) if (f / "config.yaml").is_file()), None)


def weight_defaults(
    path: str | Path,
    config: GenerationConfig,
    released_size: tuple[int, int] = RELEASED_SIZE,
    dit: DiTConfig | None = None,
) -> WeightDefaults:
    """Reads the defaults of a run folder, for it or for what lies in it; other files have those of released models.

    Args:
        path: what the weights are loaded from.
        config: the user's settings; the shards of the run are only needed for what these leave open.
        released_size: (height, width) in pixels of the large released networks.
        dit: the network of the weights, for those of no run.

    Raises:
        InputError: the run's shards are gone and size or frame count were not given.
    """
    folder = run_folder_of(Path(path))
    if folder is None:
        return released_defaults(dit, released_size)
    try:
        values = read_yaml(folder / "config.yaml")
        defaults = _run_defaults(folder, values, config)
        mapping = _select(values, "data.camera_frames", DEFAULT_MAPPING)
        if mapping not in get_args(TemporalMapping):
            raise InputError(
                f"{folder / 'config.yaml'}: data.camera_frames={str(mapping)[:80]}: expected "
                f"{' or '.join(get_args(TemporalMapping))}"
            )
        return replace(defaults, camera_frames=mapping, of_run=True)
    except (TypeError, LookupError) as error:
        raise InputError(f"{folder / 'config.yaml'}: not the settings of a run ({error})") from error


def _run_defaults(folder: Path, values: Any, config: GenerationConfig) -> WeightDefaults:
    text_length = _number(folder, values, "data.text_length", int, RELEASED_TEXT_LENGTH)
    # The section's name in earlier versions.
    section = "objective" if isinstance(values, dict) and "objective" in values else "diffusion"
    sigma_data = _number(folder, values, f"{section}.sigma_data", float, None)
    if _select(values, "data.mode", "cached") == "online":
        return WeightDefaults(
            size=_size(folder, _select(values, "data.size", RELEASED_SIZE)),
            num_frames=_number(folder, values, "data.num_frames", int, None),
            text_length=text_length,
            sigma_data=sigma_data,
            fps=one_rate(recorded_rates(folder)),
        )
    manifest = Path(str(_select(values, "data.path", ""))) / "manifest.json"
    if not os.path.isfile(manifest) and is_sample_folder(manifest.parent):
        return _folder_defaults(manifest.parent, folder, text_length, sigma_data)
    if not os.path.isfile(manifest):
        open_settings = [n for n in ("height", "width", "num_frames") if getattr(config, n) is None]
        if open_settings:
            raise InputError(
                f"{folder / 'config.yaml'} names data.path={manifest.parent}, which has no manifest.json here: "
                f"give {', '.join('--' + n.replace('_', '-') for n in open_settings)}"
            )
        rate = one_rate(recorded_rates(folder))
        return WeightDefaults(text_length=text_length, sigma_data=sigma_data, fps=rate)
    shards = Manifest.load(manifest.parent)
    several = {tuple(s[:2]) for s in shards.image_sizes if len(s) > 1}
    if (config.height is None or config.width is None) and len(several) > 1:
        sizes = ", ".join(f"{height}x{width}" for height, width in sorted(several))
        raise InputError(f"{manifest}: the run was trained on several sizes ({sizes}): give --height and --width")
    fit, fps, step = (shards.settings.get(name) for name in ("fit", "fps", "step"))
    sizes_are_sizes = all(len(s) >= 2 and 0 < min(s[:2]) <= max(s[:2]) <= LARGEST_SIDE for s in shards.image_sizes)
    if not (
        shards.image_sizes
        and sizes_are_sizes
        and shards.num_frames
        and fit in (None, *FITS)
        and all(value is None or (type(value) in (int, float) and 0 < value < 2**31) for value in (fps, step))
    ):
        raise InputError(f"{manifest}: says no size, or no way of preparing, that there is; prepare the shards again")
    height, width = shards.image_sizes[0][:2]
    return WeightDefaults(
        size=(height, width),
        num_frames=max(shards.num_frames),
        text_length=text_length,
        sigma_data=sigma_data,
        tokenizer=shards.tokenizer,
        text_encoder=shards.text_encoder,
        fit=fit or "crop",
        input_fps=fps,
        input_step=step or 1,
        fps=_training_rate(shards, folder),
        rig=_trained_rig(shards, manifest),
    )


def _folder_defaults(path: Path, folder: Path, text_length: int, sigma_data: float | None) -> WeightDefaults:
    """Of a run on a folder of eight files per sample: those of its first sample."""
    samples = EightFileDataset(path, mapping=None, check=False)
    sample = samples[0]
    return WeightDefaults(
        size=(sample.image_size[0], sample.image_size[1]),
        num_frames=sample.num_frames,
        text_length=text_length,
        sigma_data=sigma_data,
        tokenizer=samples.tokenizer,
        text_encoder=samples.text_encoder or None,
        fit="pad",
        fps=one_rate(recorded_rates(folder)) or sample.fps,
    )


def _trained_rig(shards: Manifest, manifest: Path) -> Rig | None:
    """The cameras of the samples; of shards that were not made from a rig, those that their ids are known by."""
    cameras, told = shards.settings.get("rig"), shards.settings.get("captions")
    if isinstance(cameras, list):
        front = told.partition(", front ")[2] if isinstance(told, str) else ""
        return described_rig(cameras, front or None, str(manifest))
    if len(shards.view_ids) != 1:
        return None
    return described_rig([f"view_{number}={number}" for number in shards.view_ids[0]], None, str(manifest))


def _training_rate(shards: Manifest, folder: Path) -> float | None:
    """The one rate that the run was trained at: as it recorded it, else of its shards as they are now."""
    rates = recorded_rates(folder) or shards.fps
    if not rates and shards.settings.get("fps"):
        rates = [shards.settings["fps"] / (shards.settings.get("step") or 1)]
    return one_rate(rates)


def _number(folder: Path, values: Any, key: str, kind: type, default: Any) -> Any:
    """A positive number of a run's settings."""
    value = _select(values, key, default)
    allowed = (int, float) if kind is float else (int,)
    if value is not None and (type(value) not in allowed or not 0 < value < 2**31):
        raise InputError(f"{folder / 'config.yaml'}: {key}={str(value)[:80]}: expected a positive number")
    return value


def _size(folder: Path, value: Any) -> tuple[int, int]:
    if len(value) != 2 or not all(type(number) is int and 0 < number <= LARGEST_SIDE for number in value):
        raise InputError(f"{folder / 'config.yaml'}: data.size={str(value)[:80]}: expected height and width")
    return value[0], value[1]


def _select(values: Any, key: str, default: Any) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or values.get(part) is None:
            return default
        values = values[part]
    return values
