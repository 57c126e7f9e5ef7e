"""Training on raw videos: clips are encoded when a step needs them, on the training device, and forgotten.

For small tests. Each epoch encodes every clip again; ``nemo-cosmos prepare`` does it once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nemo_cosmos.config import DataConfig
from nemo_cosmos.data.clips import Clip, find_clips, not_read
from nemo_cosmos.data.embeddings import read_embedding
from nemo_cosmos.data.rig import find_rig
from nemo_cosmos.data.sample import LatentBatch, PackedBatch
from nemo_cosmos.data.shards import RATE_DIGITS
from nemo_cosmos.data.video import probe
from nemo_cosmos.data.windows import ClipDataset, Window, WindowPlan, check_finite, check_plan, encode_window
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import TextEncoder, load_text_encoder
from nemo_cosmos.models.video_tokenizer import VideoTokenizer, open_tokenizer

logger = logging.getLogger(__name__)
Batch = TypeVar("Batch", LatentBatch, PackedBatch)
SHOWN = 5
"""Unusable clips that an error lists."""


class OnlineEncoder:
    """Latents and text embeddings as ``prepare`` makes them, without storing them.

    Clips are encoded one by one with the same kernels on every rank, so all ranks that share a sample get the same
    numbers without exchanging any.

    Attributes:
        seconds: time spent in ``encode``; who reads it sets it back.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer,
        text_encoder: TextEncoder | None,
        *,
        device: torch.device,
    ) -> None:
        self.tokenizer, self.text_encoder, self.device = tokenizer, text_encoder, device
        self.seconds = 0.0

    def __str__(self) -> str:
        text = "embeddings from t5_xxl" if self.text_encoder is None else f"text encoder {self.text_encoder.name}"
        return f"tokenizer {self.tokenizer.identity} ({self.tokenizer.origin}), {text}, on {self.device}"

    def encode(self, windows: Sequence[tuple[int, Window]], gather: Callable[[Any], Batch]) -> Batch:
        """One micro batch, on the CPU, of (position in the run, decoded clip); ``gather`` makes it of samples."""
        start = time.perf_counter()
        samples = []
        for position, window in windows:
            sample = encode_window(window, self.tokenizer, self._embed, self.device)
            check_finite(sample)
            samples.append((position, sample))
        batch = gather(samples)
        self.seconds += time.perf_counter() - start
        return batch

    def latent_shape(self, plan: WindowPlan) -> tuple[int, int, int, int]:
        """(channels, frames, height, width) of the latent of a window."""
        cell = self.tokenizer.spatial_compression
        return (
            self.tokenizer.latent_channels,
            self.tokenizer.latent_frames(plan.frames),
            plan.size[0] // cell,
            plan.size[1] // cell,
        )

    def text_width(self, clips: ClipDataset) -> int:
        """Features per text token."""
        if self.text_encoder is not None:
            return self.text_encoder.width
        file = clips.clips[0].embedding_file
        assert file is not None, "without a text encoder every clip brings its embedding"
        return int(read_embedding(file).shape[1])

    def _embed(self, caption: str) -> Tensor:
        assert self.text_encoder is not None, "without a text encoder every clip brings its embedding"
        return self.text_encoder.encode_trimmed([caption])[0]


def open_clips(data: DataConfig) -> tuple[ClipDataset, OnlineEncoder]:
    """The clips of ``data.path``, and what encodes them on this rank's device.

    Raises:
        InputError: no clips, one that is unreadable, too short or without caption, or no such tokenizer or encoder.
    """
    assert data.tokenizer_path is not None and data.num_frames is not None and data.size is not None
    if len(data.size) != 2:
        raise InputError(f"data.size={data.size}: expected [height,width] in pixels, for example [704,1280]")
    if find_rig(Path(data.path)) is not None:
        raise InputError(
            f"data.path={data.path} holds clips of several cameras, which data.mode=online does not read: run "
            "`nemo-cosmos prepare` and train on its shards"
        )
    clips = find_clips(data.path, use_embeddings=data.text_encoder is None)
    plan = WindowPlan(data.num_frames, (data.size[0], data.size[1]))
    device = training_device()
    # As prepare computes by default.
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokenizer = open_tokenizer(data.tokenizer_path, device=device, dtype=dtype)
    check_plan(plan, tokenizer)
    rates = refuse_unusable(clips, plan)
    text_encoder = None
    if data.text_encoder is not None:
        text_encoder = load_text_encoder(data.text_encoder, max_length=data.text_length, device=device)
    encoder = OnlineEncoder(tokenizer, text_encoder, device=device)
    if others := not_read(data.path):
        logger.warning("%s: not read, for their suffixes: %s", data.path, others)
    return ClipDataset(clips, plan, tokenizer.spatial_compression, rates), encoder


def training_device() -> torch.device:
    """This rank's GPU, or the CPU of a machine without one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def refuse_unusable(clips: Sequence[Clip], plan: WindowPlan) -> list[float]:
    """The distinct frame rates of the clips' samples, sorted.

    Raises:
        InputError: clips that are no videos, too short, or have an unreadable caption; they are listed.
    """
    bad, rates = [], set()
    for clip in clips:
        try:
            info = probe(clip.video)
            clip.read_caption()
        except InputError as error:
            bad.append(str(error))
            continue
        frames = info.frames_at(plan.fps or info.even_rate)
        rates.add(round((plan.fps or info.even_rate or info.fps) / plan.step, RATE_DIGITS))
        if frames < (plan.frames - 1) * plan.step + 1:
            bad.append(info.damage or f"{clip.name} has {frames} frames")
    if bad:
        names = "; ".join(bad[:SHOWN]) + ("; ..." if len(bad) > SHOWN else "")
        raise InputError(
            f"{len(bad)} of {len(clips)} clips cannot be used with data.num_frames={plan.frames}: {names}. Remove "
            "them, or use `nemo-cosmos prepare`, which leaves such clips out"
        )
    return sorted(rates)
