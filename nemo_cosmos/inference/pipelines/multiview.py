"""Multiview: a video of each camera of a rig, all of the same moments."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.choices import Stacking
from nemo_cosmos.data.rig import Rig
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, weight_defaults
from nemo_cosmos.inference.inputs import InputFrames, read_input
from nemo_cosmos.inference.mosaic import camera_file, grid_file, write_cameras, write_grid, write_stacked
from nemo_cosmos.inference.pipelines.base import OF_A_TRAJECTORY, Conditions
from nemo_cosmos.inference.pipelines.texts import PreparedText, TextPreparation
from nemo_cosmos.inference.pipelines.world import VideoPlan, WorldPipeline, plan_video
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.sampling import SamplingInputs
from nemo_cosmos.inference.view_captions import read_view_embeddings
from nemo_cosmos.inference.view_inputs import read_stacked
from nemo_cosmos.inference.views import rig_for, rig_record, with_views
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.video_tokenizer import VideoTokenizer
from nemo_cosmos.pixels import to_uint8

logger = logging.getLogger(__name__)
REPEAT_UNIT = 10
"""Networks are told repetition counts divided by this."""


@dataclass(frozen=True)
class ViewsPlan(VideoPlan):
    """Sizes of one view, and how many there are."""

    num_views: int

    def latent_shape(self, tokenizer: VideoTokenizer) -> tuple[int, int, int, int]:
        """(C, V * T, h, w), one view after another."""
        channels, frames, height, width = super().latent_shape(tokenizer)
        return channels, self.num_views * frames, height, width


class MultiviewPipeline(WorldPipeline):
    """Views in the order of their ids are one latent for the network; users see them in the order of their rig.

    So neither the order of files nor that of lines in a rig changes what a camera shows, and the same noise, drawn for
    all views at once, belongs to the same ids.
    """

    makes = "multiview video"
    text_network = "Text2World multiview"
    upsamples = False
    without_effect = ("image_format", "image_quality", "chunk_frames", "overlap_frames", *OF_A_TRAJECTORY)
    usual_fps = 10.0
    released_rig: ClassVar[str] = "av7"
    """Cameras of weights that say none."""
    released_frames: ClassVar[int] = 29
    """Frames of each view for weights that say none."""
    stacking: ClassVar[Stacking] = "vertical"
    """How the video that is written holds the views, by default."""
    grid: ClassVar[dict[tuple[str, ...], list[list[int]]]] = {}
    """Layout of the grid, by the folders of a rig; others are about square."""

    @classmethod
    def takes(cls, dit: DiTConfig) -> bool:
        return dit.multiview and not dit.frame_repeat

    @classmethod
    def complete(
        cls, dit: DiTConfig, requests: list[GenerationRequest], config: GenerationConfig, weights: Path
    ) -> tuple[list[GenerationRequest], GenerationConfig]:
        """Requests with their views, and settings with the rig; see the base.

        Raises:
            InputError: cameras that the network does not know, captions or inputs that do not fit them, or results
                that would share a file.
        """
        defaults = weight_defaults(weights, config, cls.released_size, dit)
        rig = rig_for(dit, config, defaults, cls.released_rig)
        config = replace(config, rig=rig, num_views=None)
        requests = [with_views(request, rig, config, defaults) for request in requests]
        files = Counter(
            file for request in requests for file in cls.files(Path(f"{request.name}{cls.suffix(config)}"), config)
        )
        if twice := next((file for file, count in files.items() if count > 1), None):
            raise InputError(f"two requests would write {twice}: name them otherwise")
        for request in requests:
            told = [view.camera.folder for view in request.views if view.prompt is not None]
            logger.info("%s: captions of %s", request.name, request.embedding or ", ".join(told))
        return requests, config

    @classmethod
    def settings_record(cls, config: GenerationConfig) -> dict[str, Any]:
        assert config.rig is not None, "the cameras are not known yet"
        stacking = config.output_stacking or cls.stacking
        record = super().settings_record(config)
        del record["num_views"]
        return {**record, "rig": rig_record(config.rig), "output_stacking": stacking}

    @classmethod
    def files(cls, path: Path, config: GenerationConfig) -> list[Path]:
        assert config.rig is not None, "the cameras are not known yet"
        return [*(camera_file(path, folder) for folder in config.rig.folders), grid_file(path), path]

    @property
    def rig(self) -> Rig:
        """The cameras, in the order in which users see them."""
        assert self.config.rig is not None, "the cameras are not known yet"
        return self.config.rig

    def plan(self, tokenizer: VideoTokenizer, *, has_input: bool) -> ViewsPlan:
        frames = self.config.num_frames or self.defaults.num_frames or self.released_frames
        config = replace(self.config, num_frames=frames, chunk_frames=frames)
        one = plan_video(config, self.defaults, tokenizer, self.models.dit, has_input=has_input)
        return ViewsPlan(**asdict(one), num_views=len(self.rig.cameras))

    def prepare_texts(self, requests: list[GenerationRequest]) -> list[PreparedText]:
        texts = TextPreparation(self.models, self.config, self.defaults, self.upsampler_word_limit)
        return self.ranks.from_first(lambda: self._prepare(texts, requests))

    def _prepare(self, texts: TextPreparation, requests: list[GenerationRequest]) -> list[PreparedText]:
        """Every caption is embedded on its own, as one of a single video is."""
        single = [
            GenerationRequest(f"{request.name}, {view.camera.folder}", view.prompt, has_prompt=True)
            for request in requests
            for view in request.views
            if view.prompt is not None
        ]
        prepared = iter(texts.prepare(single) if single else [])
        negative = texts.negative()
        front = [camera.folder for camera in self._by_id()].index(self.rig.front)
        negatives = torch.zeros(len(self.rig.cameras), *negative.shape)
        negatives[front] = negative
        return [self._joined(request, prepared, negatives) for request in requests]

    def _joined(self, request: GenerationRequest, prepared: Any, negatives: Tensor) -> PreparedText:
        """One text of all views, which takes those of its captions from ``prepared``."""
        if request.embedding is not None:
            if self.models.guardrail is not None:
                logger.warning("%s: the guardrail cannot check embeddings", request.name)
            width = self.models.dit.text_width
            rows = read_view_embeddings(request.embedding, self.rig, self.defaults.text_length, width)
            order = [self.rig.folders.index(camera.folder) for camera in self._by_id()]
            return PreparedText(f"embeddings of {request.embedding}", rows[order], negatives)
        found = {view.camera.folder: next(prepared) for view in request.views if view.prompt is not None}
        shown = {folder: text.prompt for folder, text in found.items()}
        prompt = next(iter(shown.values())) if len(shown) == 1 else "\n".join(f"{f}: {t}" for f, t in shown.items())
        if any(text.text is None for text in found.values()):
            return PreparedText(prompt, None, negatives)
        longest = max(len(text.text) for text in found.values())
        rows = torch.zeros(len(request.views), longest, self.models.dit.text_width)
        for row, view in zip(rows, request.views, strict=True):
            if view.camera.folder in found:
                text = found[view.camera.folder].text
                row.copy_(F.pad(text, (0, 0, 0, longest - len(text))))
        return PreparedText(prompt, rows, negatives)

    def told(self, request: GenerationRequest) -> dict[str, Tensor]:
        cameras = self._by_id()
        told = {"view_ids": torch.tensor([[camera.view_id for camera in cameras]])}
        if self.config.rope_fps is not None:
            told["fps"] = torch.tensor([self.config.rope_fps], dtype=torch.float32)
        if self.models.dit.frame_repeat:
            told["frame_repeat"] = torch.tensor([[(camera.frame_repeat or 0.0) / REPEAT_UNIT for camera in cameras]])
        return told

    def read_given(self, request: GenerationRequest, size: tuple[int, int], cell: int) -> list[InputFrames]:
        if request.visual_input is not None:
            views = read_stacked(request.visual_input, len(self.rig.cameras), size, self.config, self.defaults, cell)
            return [views[self.rig.folders.index(camera.folder)] for camera in self._by_id()]
        given = [view.given for view in request.views if view.given is not None]
        return [read_input(one, size, self.config, self.defaults, cell) for one in given]

    def render(
        self,
        request: GenerationRequest,
        conditions: Conditions[VideoPlan],
        inputs: SamplingInputs,
        progress: Progress | None,
    ) -> Tensor | None:
        latent = self.sample(request, inputs, progress)
        views: dict[str, Tensor] = {}
        self.ranks.from_first(partial(self._decode_views, latent, views))
        return torch.stack([views[folder] for folder in self.rig.folders]) if self.ranks.is_first else None

    def write(self, path: Path, frames: Tensor, fps: float) -> None:
        crf, rig = self.config.crf, self.rig
        write_cameras(path, frames, rig.folders, fps, crf)
        write_grid(grid_file(path), frames, rig.names, fps, crf, self.grid.get(rig.folders))
        write_stacked(path, frames, self.config.output_stacking or self.stacking, fps, crf)

    def _by_id(self) -> list[Any]:
        """The cameras in the order of the latent."""
        return sorted(self.rig.cameras, key=lambda camera: camera.view_id)

    def _decode_views(self, latent: Tensor, views: dict[str, Tensor]) -> None:
        """Adds (3, T, H, W) uint8 of each camera by its folder; one after another, for their memory."""
        cameras = self._by_id()
        with self.models.tokenizer.use() as tokenizer:
            for camera, part in zip(cameras, latent.chunk(len(cameras), dim=2), strict=True):
                views[camera.folder] = to_uint8(tokenizer.decode(part).clamp(-1, 1).cpu()[0])

    def _filter(self, frames: Tensor) -> Tensor | None:
        views = [super(MultiviewPipeline, self)._filter(view) for view in frames]
        kept = [view for view in views if view is not None]
        return torch.stack(kept) if len(kept) == len(views) else None


class SixViewPipeline(MultiviewPipeline):
    """Predict1's multiview networks, which are told a repetition count of each view: six cameras around a car."""

    released_size = (480, 848)
    released_rig = "av6"
    released_frames = 57
    usual_fps = 24.0
    stacking = "time"
    grid = {("front", "left", "right", "back", "back_left", "back_right"): [[1, 0, 2], [4, 3, 5]]}

    @classmethod
    def takes(cls, dit: DiTConfig) -> bool:
        return dit.multiview and dit.frame_repeat
