"""From a clip to a training record: which frames are decoded, and how they are encoded.

``prepare`` and training on raw videos both go through here, so that they feed the network the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nemo_cosmos.data.clips import Clip, View
from nemo_cosmos.data.embeddings import caption_digest, read_embedding
from nemo_cosmos.data.images import read_image
from nemo_cosmos.data.resize import FITS, Fit, padding_mask, resize
from nemo_cosmos.data.sample import LatentSample, Origin, TokenizerIdentity
from nemo_cosmos.data.video import VideoInfo, iter_windows, probe, read_frames
from nemo_cosmos.data.views import uneven_views
from nemo_cosmos.errors import InputError
from nemo_cosmos.pixels import from_levels

Size = tuple[int, int]
"""(height, width) in pixels."""
PATCH = 2
"""The networks cut latents into patches of 2 x 2 cells."""
IMAGE_FPS = 16.0
"""Frame rate recorded for an image, which has none: what the released image datasets say."""
FRAME_REPEAT_UNIT = 10
"""Networks are told repetition counts in tens."""
TEXT_DTYPE = torch.float16
"""Type in which text embeddings are stored, as in ``t5_xxl`` pickles."""


class Tokenizer(Protocol):
    """What is needed of a ``VideoTokenizer``."""

    @property
    def identity(self) -> TokenizerIdentity: ...
    def latent_frames(self, num_frames: int) -> int: ...
    def encode(self, video: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class WindowPlan:
    """Which frames of a clip become a sample.

    Attributes:
        frames: pixel frames of a sample.
        size: (height, width) to scale to.
        fit: how a source of another shape fills ``size`` (see ``data.resize``).
        step: distance between the frames taken.
        stride: distance between the first frames of the windows of a clip; 0 takes the first window alone.
        fps: constant rate to resample to; None keeps each clip's own rate.
        keep_damaged: take what decodes after lost packets, and combed frames.
        other_sizes: further sizes; a source takes the one whose shape is nearest to its own.
    """

    frames: int
    size: Size
    fit: Fit = "crop"
    step: int = 1
    stride: int = 0
    fps: float | None = None
    keep_damaged: bool = False
    # Not in the text of a plan: digests of clips that were taken at a single size, which it is part of, stay.
    other_sizes: tuple[Size, ...] = field(default=(), repr=False)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """All sizes."""
        return (self.size, *self.other_sizes)

    def for_source(self, source: Size) -> WindowPlan:
        """The plan with the one size for a source of (height, width) pixels: that of the nearest ratio of the two, by
        its logarithm; among equal ratios that of the nearest area."""

        def distance(size: Size) -> tuple[float, float]:
            height, width = (math.log(side / given) for side, given in zip(size, source, strict=True))
            return round(abs(height - width), 9), abs(height + width)

        return replace(self, size=min(self.sizes, key=distance), other_sizes=()) if self.other_sizes else self

    def settings(self) -> dict[str, Any]:
        """The plan as JSON; several sizes are a list of lists."""
        values = asdict(self)
        del values["other_sizes"]
        return {**values, "size": [list(size) for size in self.sizes] if self.other_sizes else list(self.size)}

    def key(self, clip: Clip, start: int) -> str:
        """Sample key of a window."""
        return clip.key if self.stride == 0 else f"{clip.key}-f{start:06d}"


@dataclass
class ViewText:
    """A camera of a window: its caption, empty where it has none, and its (tokens, width) embedding where it is
    ready."""

    view: View
    caption: str
    embedding: Tensor | None


@dataclass
class Window:
    """Decoded frames with all that the sample records about them.

    Attributes:
        key: sample key.
        name: clip and first frame, for people.
        frames: (3, T, H, W) uint8; of several cameras those of one after those of another.
        fps: frame rate of ``frames``.
        source_size: (height, width) of the file as displayed; of several cameras of the front one.
        padding_mask: (1, H / compression, W / compression) uint8 or None; (V, ...) where V cameras differ.
        caption: text of the clip.
        embedding: (tokens, width) when the source has it ready.
        origin: what the window is made from, where that is to be recorded.
        views: the cameras of a rig with their texts; empty for a single camera.
    """

    key: str
    name: str
    frames: Tensor
    fps: float
    source_size: tuple[int, int]
    padding_mask: Tensor | None
    caption: str
    embedding: Tensor | None
    origin: Origin | None = None
    views: list[ViewText] = field(default_factory=list)


class ClipDataset:
    """The first window of each clip, decoded when it is asked for.

    Args:
        clips: the dataset, as ``find_clips`` lists it.
        plan: which frames; ``stride`` must be 0.
        compression: pixels per latent cell, for padding masks.
        rates: distinct frame rates of the windows, where they are known.
    """

    def __init__(self, clips: list[Clip], plan: WindowPlan, compression: int, rates: Sequence[float] = ()) -> None:
        assert plan.stride == 0, "one window per clip"
        self.clips, self.plan, self.compression = clips, plan, compression
        self.rates = list(rates)

    @property
    def digest(self) -> str:
        """SHA-256 over names, file sizes and captions of the clips, and over what is taken of each."""
        lines = [str(self.plan)]
        lines += [
            f"{clip.key} {clip.video.stat().st_size} {caption_digest(clip.read_caption())}" for clip in self.clips
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Window:
        """InputError naming the file when the clip does not decode or is too short."""
        return next(windows_of(self.clips[index], self.plan, self.compression))


def windows_of(clip: Clip, plan: WindowPlan, compression: int, done: frozenset[str] = frozenset()) -> Iterator[Window]:
    """Decode the windows of a clip, those named in ``done`` left out.

    Raises:
        InputError: the clip does not decode or is too short, its cameras differ in length or rate, or a caption or
            embedding is unreadable.
    """
    caption = clip.read_caption() if clip.has_caption else ""
    embedding = None if clip.embedding_file is None else read_embedding(clip.embedding_file)
    if clip.still:
        if plan.key(clip, 0) not in done:
            yield _image_window(clip, plan, compression, caption, embedding)
        return
    infos = [probe(video, keep_damaged=plan.keep_damaged) for video in clip.videos]
    if clip.views and (problem := uneven_views([view.camera for view in clip.views], infos)):
        raise InputError(f"{clip.name}: {problem}")
    shown = infos[clip.videos.index(clip.video)]
    plan = plan.for_source((shown.height, shown.width))
    fps = plan.fps or (shown.fps if any(info.variable_rate for info in infos) else None)
    mask = _masks(infos, plan, compression)
    views = [ViewText(view, view.read_caption(), _embedding(view)) for view in clip.views]
    readers = [_read(video, plan, fps) for video in clip.videos]
    for parts in zip(*readers, strict=False):  # A camera's last frame may fall out of a resampled rate.
        start = parts[0][0]
        if plan.key(clip, start) not in done:
            yield Window(
                key=plan.key(clip, start),
                name=clip.name if start == 0 else f"{clip.name} from frame {start}",
                frames=parts[0][1] if len(parts) == 1 else torch.cat([frames for _, frames in parts], dim=1),
                fps=(fps or shown.fps) / plan.step,
                source_size=(shown.height, shown.width),
                padding_mask=mask,
                caption=caption,
                embedding=embedding,
                views=views,
            )


def _read(video: Path, plan: WindowPlan, fps: float | None) -> Iterator[tuple[int, Tensor]]:
    """First frame and frames of each window of one file."""
    options: dict[str, Any] = {"fit": plan.fit, "step": plan.step, "fps": fps, "keep_damaged": plan.keep_damaged}
    if plan.stride == 0:
        return iter([(0, read_frames(video, 0, plan.frames, plan.size, **options))])
    return iter_windows(video, plan.frames, stride=plan.stride, size=plan.size, **options)


def _embedding(view: View) -> Tensor | None:
    return None if view.embedding_file is None else read_embedding(view.embedding_file)


def _masks(infos: Sequence[VideoInfo], plan: WindowPlan, compression: int) -> Tensor | None:
    """(1, h, w) uint8 padding that all views have, (V, h, w) where they differ, None where none has any."""
    found = [padding_mask((info.height, info.width), plan.size, plan.fit, compression) for info in infos]
    some = next((mask for mask in found if mask is not None), None)
    if some is None:
        return None
    masks = [torch.zeros_like(some) if mask is None else mask for mask in found]
    return some if all(torch.equal(mask, some) for mask in masks) else torch.cat(masks)


def _image_window(clip: Clip, plan: WindowPlan, compression: int, caption: str, embedding: Tensor | None) -> Window:
    assert plan.frames == 1 and plan.stride == 0, "an image is one frame"
    image = read_image(clip.video)
    height, width = image.shape[1:]
    return Window(
        key=plan.key(clip, 0),
        name=clip.name,
        frames=resize(image, plan.size, plan.fit)[:, None],
        fps=IMAGE_FPS,
        source_size=(height, width),
        padding_mask=padding_mask((height, width), plan.size, plan.fit, compression),
        caption=caption,
        embedding=embedding,
    )


def check_plan(plan: WindowPlan, tokenizer: Tokenizer) -> None:
    """InputError when the frames or the size of a plan do not fit the tokenizer; names the nearest that do."""
    tokenizer.latent_frames(plan.frames)
    if plan.fit not in FITS:
        raise InputError(f"fit={plan.fit!r}: expected one of {', '.join(FITS)}")
    if plan.step < 1 or plan.stride < 0 or (plan.fps is not None and not 0 < plan.fps < math.inf):
        raise InputError(
            f"step={plan.step}, stride={plan.stride}, fps={plan.fps}: expected step >= 1, stride >= 0, fps > 0"
        )
    multiple = tokenizer.identity.spatial_compression * PATCH
    for size in plan.sizes:
        if any(side < multiple or side % multiple for side in size):
            near = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in size)
            raise InputError(
                f"size {size[0]}x{size[1]}: height and width must be multiples of {multiple} (tokenizer "
                f"{tokenizer.identity.name} and patches of {PATCH}); nearest: {near}"
            )


def encode_window(
    window: Window, tokenizer: Tokenizer, embed: Callable[[str], Tensor], device: torch.device | str
) -> LatentSample:
    """The record of one window, on the CPU; alone in its batch, so that its bytes do not depend on neighbours.

    Args:
        window: decoded frames.
        tokenizer: makes the latent.
        embed: caption to (tokens, width); called when the window brings no embedding.
        device: where the tokenizer runs.
    """
    parts = window.frames.chunk(max(len(window.views), 1), dim=1)
    # Each view alone: every one has a first frame of its own.
    latents = [tokenizer.encode(normalise(part, device))[0].cpu() for part in parts]
    views = [text.view for text in window.views]
    repeats = [view.frame_repeat / FRAME_REPEAT_UNIT for view in views if view.frame_repeat is not None]
    height, width = window.frames.shape[2:]
    return LatentSample(
        key=window.key,
        latent=latents[0] if len(latents) == 1 else torch.cat(latents, dim=1),
        text=_text(window, embed).to(TEXT_DTYPE),
        caption=window.caption,
        fps=window.fps,
        num_frames=parts[0].shape[1],
        image_size=(height, width, *window.source_size),
        padding_mask=window.padding_mask,
        source=window.name,
        origin=window.origin,
        view_ids=torch.tensor([view.view_id for view in views]) if views else None,
        frame_repeat=torch.tensor(repeats) if repeats else None,
        cameras=[view.name or view.camera for view in views],
        captions=[text.caption for text in window.views],
    )


def _text(window: Window, embed: Callable[[str], Tensor]) -> Tensor:
    """(tokens, width), of V views (V, tokens of the longest, width) with zeros for a view that has no text."""
    if not window.views:
        return embed(window.caption) if window.embedding is None else window.embedding
    given = {
        number: embed(text.caption) if text.embedding is None else text.embedding
        for number, text in enumerate(window.views)
        if text.view.has_text
    }
    widths = {text.shape[1] for text in given.values()}
    if len(widths) != 1:
        raise InputError(f"{window.name}: text embeddings of its cameras have {sorted(widths)} features, expected one")
    longest = max(len(text) for text in given.values())
    stacked = torch.zeros(len(window.views), longest, widths.pop())
    for number, text in given.items():
        stacked[number, : len(text)] = text
    return stacked


def check_finite(sample: LatentSample) -> None:
    """InputError naming the clip when its latent or text embedding has numbers that are not finite."""
    for name, value in (("latent", sample.latent), ("text embedding", sample.text)):
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{sample.source}: its {name} has numbers that are not finite")


def normalise(frames: Tensor, device: torch.device | str) -> Tensor:
    """uint8 (3, T, H, W) -> float32 (1, 3, T, H, W) in [-1, 1]."""
    return from_levels(frames.to(device).unsqueeze(0))
