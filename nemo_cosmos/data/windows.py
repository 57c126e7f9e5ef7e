"""From a clip to a training record: which frames are decoded, and how they are encoded.

``prepare`` and training on raw videos both go through here, so that they feed the network the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.embeddings import caption_digest, read_embedding
from nemo_cosmos.data.images import read_image
from nemo_cosmos.data.resize import FITS, Fit, padding_mask, resize
from nemo_cosmos.data.sample import LatentSample, Origin, TokenizerIdentity
from nemo_cosmos.data.video import iter_windows, probe, read_frames
from nemo_cosmos.errors import InputError
from nemo_cosmos.pixels import from_levels

Size = tuple[int, int]
"""(height, width) in pixels."""
PATCH = 2
"""The networks cut latents into patches of 2 x 2 cells."""
IMAGE_FPS = 16.0
"""Frame rate recorded for an image, which has none: what the released image datasets say."""
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
class Window:
    """Decoded frames with all that the sample records about them.

    Attributes:
        key: sample key.
        name: clip and first frame, for people.
        frames: (3, T, H, W) uint8.
        fps: frame rate of ``frames``.
        source_size: (height, width) of the file as displayed.
        padding_mask: (1, H / compression, W / compression) uint8 or None.
        caption: text of the clip.
        embedding: (tokens, width) when the source has it ready.
        origin: what the window is made from, where that is to be recorded.
        tensors: further tensors of the sample, by their names there.
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
    tensors: dict[str, Tensor] = field(default_factory=dict)


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
        InputError: the clip does not decode or is too short, or its caption or embedding is unreadable.
    """
    caption = clip.read_caption()
    embedding = None if clip.embedding_file is None else read_embedding(clip.embedding_file)
    if clip.still:
        if plan.key(clip, 0) not in done:
            yield _image_window(clip, plan, compression, caption, embedding)
        return
    info = probe(clip.video, keep_damaged=plan.keep_damaged)
    plan = plan.for_source((info.height, info.width))
    fps = plan.fps or info.even_rate
    mask = padding_mask((info.height, info.width), plan.size, plan.fit, compression)
    if plan.stride == 0:
        frames = read_frames(
            clip.video,
            0,
            plan.frames,
            plan.size,
            fit=plan.fit,
            step=plan.step,
            fps=fps,
            keep_damaged=plan.keep_damaged,
        )
        windows = iter([(0, frames)])
    else:
        windows = iter_windows(
            clip.video,
            plan.frames,
            stride=plan.stride,
            size=plan.size,
            fit=plan.fit,
            step=plan.step,
            fps=fps,
            keep_damaged=plan.keep_damaged,
        )
    for start, frames in windows:
        if plan.key(clip, start) not in done:
            yield Window(
                key=plan.key(clip, start),
                name=clip.name if start == 0 else f"{clip.name} from frame {start}",
                frames=frames,
                fps=(fps or info.fps) / plan.step,
                source_size=(info.height, info.width),
                padding_mask=mask,
                caption=caption,
                embedding=embedding,
            )


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
    latent = tokenizer.encode(normalise(window.frames, device))[0].cpu()
    text = embed(window.caption) if window.embedding is None else window.embedding
    frames, (height, width) = window.frames.shape[1], window.frames.shape[2:]
    tensors: dict[str, Any] = dict(window.tensors)
    return LatentSample(
        key=window.key,
        latent=latent,
        text=text.to(TEXT_DTYPE),
        caption=window.caption,
        fps=window.fps,
        num_frames=frames,
        image_size=(height, width, *window.source_size),
        padding_mask=window.padding_mask,
        source=window.name,
        origin=window.origin,
        **tensors,
    )


def check_finite(sample: LatentSample) -> None:
    """InputError naming the clip when its latent or text embedding has numbers that are not finite."""
    for name, value in (("latent", sample.latent), ("text embedding", sample.text)):
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{sample.source}: its {name} has numbers that are not finite")


def normalise(frames: Tensor, device: torch.device | str) -> Tensor:
    """uint8 (3, T, H, W) -> float32 (1, 3, T, H, W) in [-1, 1]."""
    return from_levels(frames.to(device).unsqueeze(0))
