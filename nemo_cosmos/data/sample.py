"""The training record: one clip as latents, text embeddings and what the network is told about it.

The same typed record travels from ``prepare`` through the shards to the network's input; nothing is renamed on the
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.data.network_inputs import RULES, STORED, Conditions, NetworkInputs, StoredCameras
from nemo_cosmos.errors import InputError
from nemo_cosmos.tokenizer_identity import TokenizerIdentity as TokenizerIdentity

TEXT_LENGTH = 512
"""Text tokens the released networks were trained with: shorter captions are followed by zero rows up to this
length."""


@dataclass(frozen=True)
class Origin:
    """What a sample was made from, so that a change of it is noticed.

    Attributes:
        clip: key of the clip.
        name: the clip's path relative to the dataset, for people.
        bytes: size of the video file; of several cameras, of all their files, as what follows.
        sha256: digest of the video file's content.
        caption_sha256: digest of the caption.
        embedding_sha256: digest of the file that the text embedding was read from, None where it was computed.
        options: everything else that shapes the sample, by name.
        mtime_ns, ctime_ns: times of the video file's last changes; in the index alone, so that the bytes of a sample
            do not depend on them.
    """

    clip: str
    name: str
    bytes: int
    sha256: str
    caption_sha256: str
    embedding_sha256: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    mtime_ns: int | None = None
    ctime_ns: int | None = None

    def to_record(self) -> dict[str, Any]:
        """The sample's own part: all but the times."""
        return {name: value for name, value in vars(self).items() if not name.endswith("time_ns")}

    def to_index(self) -> dict[str, Any]:
        """The index's part: all but the options, which every sample of a folder shares."""
        return {name: value for name, value in vars(self).items() if name != "options"}


@dataclass
class LatentSample(Conditions, StoredCameras):
    """One clip, ready for training.

    Attributes:
        key: unique name in its dataset, made of letters, digits, ``-`` and ``_``.
        latent: (C, T, h, w) latent, normalised by the tokenizer's mean and standard deviation, NOT multiplied by
            sigma_data. Of V views T = V x latent frames of a view, one view after another.
        text: (n, width) text embedding, true tokens only (no padding). Of V views (V, n, width), n of the longest,
            with zero rows after the tokens of the others; a view without a caption is all zeros.
        caption: the text that was embedded; of several views that of the front camera.
        fps: frame rate of the pixel frames.
        num_frames: pixel frames that the latent stands for; of several views, those of one.
        image_size: height and width in pixels as encoded, then height and width of the source.
        source: where the clip came from, for people: file name and first frame.
        origin: what the sample was made from; None in shards of before this was recorded.
        cameras: name of each view, for people; empty for a single camera.
        captions: text of each view, empty for one that has none; empty for a single camera.
    """

    key: str
    latent: Tensor
    text: Tensor
    caption: str
    fps: float
    num_frames: int
    image_size: tuple[int, int, int, int]
    source: str = ""
    origin: Origin | None = None
    cameras: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    @property
    def num_views(self) -> int:
        """Views that the latent holds, one after another."""
        return 1 if self.view_ids is None else max(self.view_ids.numel(), 1)


@dataclass(kw_only=True)
class LatentBatch(NetworkInputs):
    """Samples of one micro batch: what the network is told, and the latents that it is told it about.

    Attributes:
        position: (B,) int64 position of each sample in the run; all random numbers of a sample are keyed by it.
        latent: (B, C, T, h, w) float32, or as stored on the way to a device.
        keys: the samples' keys.
    """

    position: Tensor
    latent: Tensor
    keys: list[str]

    @staticmethod
    def _is_real(name: str) -> bool:
        return name == "latent" or (name in RULES and RULES[name].real)

    @property
    def num_views(self) -> int:
        """Views of every sample."""
        return 1 if self.view_ids is None else self.view_ids.shape[1]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class PackedBatch:
    """Samples of any shapes that are one sequence for the network, each a batch of one."""

    samples: list[LatentBatch]

    def to(self, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None) -> PackedBatch:
        """Copy on a device; ``dtype`` converts what takes the network's precision."""
        return PackedBatch([sample.to(device, dtype) for sample in self.samples])

    def __len__(self) -> int:
        return len(self.samples)


def collate_packed(
    samples: Sequence[tuple[int, LatentSample]], text_length: int = TEXT_LENGTH, *, as_stored: bool = False
) -> PackedBatch:
    """As :func:`collate`, for a batch in which shapes may differ."""
    return PackedBatch([collate([sample], text_length, as_stored=as_stored) for sample in samples])


def collate(
    samples: Sequence[tuple[int, LatentSample]], text_length: int = TEXT_LENGTH, *, as_stored: bool = False
) -> LatentBatch:
    """Stack samples into a batch.

    Args:
        samples: pairs of (position in the run, sample), at least one.
        text_length: rows that every text embedding is zero-padded to.
        as_stored: latents and texts keep the type that they are stored in, for whoever moves the batch before
            ``batch.to(dtype=torch.float32)``: half of the bytes.

    Raises:
        InputError: shapes differ within the batch, some samples lack an optional tensor that others have, or a text
            has more than ``text_length`` tokens. The message names the samples' keys.
    """
    assert samples, "an empty batch cannot be collated"
    records = [sample for _, sample in samples]
    latent = _stack(records, "latent")
    return LatentBatch(
        position=torch.tensor([position for position, _ in samples], dtype=torch.int64),
        latent=latent if as_stored else latent.float(),
        text=_stack_text(records, text_length, as_stored=as_stored),
        fps=torch.tensor([s.fps for s in records], dtype=torch.float32),
        keys=[s.key for s in records],
        **{name: _stack_optional(records, name) for name in STORED},
    )


def pad_text(text: Tensor, text_length: int = TEXT_LENGTH, *, name: str = "text") -> Tensor:
    """(n, width) embedding -> (text_length, width) float32 with zero rows after the n true tokens.

    That of V views, (V, n, width), becomes (V x text_length, width): each view's own, one after another.
    """
    if text.ndim not in (2, 3) or text.shape[-2] > text_length:
        raise InputError(
            f"text embedding of {name!r} has shape {tuple(text.shape)}; expected (tokens, width), with several views "
            f"(views, tokens, width), with at most {text_length} tokens: prepare it again with a shorter --text-length"
        )
    missing = text_length - text.shape[-2]
    return F.pad(text.float(), (0, 0, 0, missing)).flatten(0, -2)


def _stack_text(records: list[LatentSample], text_length: int, *, as_stored: bool) -> Tensor:
    """What :func:`pad_text` makes of each, of one view written where it belongs without a copy for each sample."""
    texts = [sample.text for sample in records]
    dtypes = {text.dtype for text in texts}
    dtype = dtypes.pop() if as_stored and len(dtypes) == 1 else torch.float32
    if any(text.ndim != 2 or len(text) > text_length or text.shape[1] != texts[0].shape[1] for text in texts):
        return torch.stack([pad_text(sample.text, text_length, name=sample.key) for sample in records])
    stacked = torch.zeros(len(texts), text_length, texts[0].shape[1], dtype=dtype)
    for row, text in zip(stacked, texts, strict=True):
        row[: len(text)] = text
    return stacked


def _stack(records: list[LatentSample], name: str) -> Tensor:
    tensors = [getattr(s, name) for s in records]
    if any(t.shape != tensors[0].shape for t in tensors):
        shapes = ", ".join(f"{s.key}: {tuple(t.shape)}" for s, t in zip(records, tensors, strict=True))
        raise InputError(
            f"samples of one batch differ in the shape of {name!r} ({shapes}); prepare all clips with the same "
            "--frames and --size, or use data.packing=true"
        )
    return torch.stack(tensors)


def _stack_optional(records: list[LatentSample], name: str) -> Tensor | None:
    rule = RULES[name]
    if rule.zeros_if_missing:
        if all(getattr(s, name) is None for s in records):
            zeros = rule.zeros(records[0].latent)  # Latents of one batch have one shape.
            return torch.zeros(len(records), *zeros.shape)
        tensors = [rule.zeros(s.latent) if (value := getattr(s, name)) is None else value for s in records]
        return torch.stack(rule.alike(tensors)).float()
    missing = [s.key for s in records if getattr(s, name) is None]
    if len(missing) == len(records):
        return None
    if missing:
        raise InputError(
            f"samples {missing[:5]} have no {name!r} while others of the same batch do; prepare all alike"
        )
    stacked = _stack(records, name)
    return stacked.float() if rule.real else stacked
