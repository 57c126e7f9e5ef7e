"""Text2Image: one latent frame from a prompt, written as an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from nemo_cosmos.data.images import IMAGE_FORMATS, IMAGE_SUFFIXES, write_image
from nemo_cosmos.data.listing import is_video_name
from nemo_cosmos.diffusion.samplers import Progress
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.pipelines.base import OF_SEVERAL_CAMERAS, Conditions, GenerationPipeline, plan_size
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.sampling import SamplingInputs
from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.video_tokenizer import VideoTokenizer
from nemo_cosmos.pixels import to_uint8

ASPECT_RATIOS = {
    "16:9": (768, 1360),
    "9:16": (1360, 768),
    "4:3": (880, 1168),
    "3:4": (1168, 880),
    "1:1": (1024, 1024),
}
"""(height, width) in pixels of the released networks, by width:height."""


@dataclass(frozen=True)
class ImagePlan:
    """Size of one image in pixels, checked."""

    height: int
    width: int

    def latent_shape(self, tokenizer: VideoTokenizer) -> tuple[int, int, int, int]:
        """(C, 1, h, w)."""
        cell = tokenizer.spatial_compression
        return tokenizer.latent_channels, tokenizer.latent_frames(1), self.height // cell, self.width // cell


class Text2ImagePipeline(GenerationPipeline[ImagePlan]):
    """An image from a prompt alone: no input, no frame rate, one frame."""

    makes = "image"
    text_network = "Text2Image"
    upsamples = False
    released_size = ASPECT_RATIOS["16:9"]
    aspect_ratios = ASPECT_RATIOS
    own_defaults = {"num_frames": 1, "guidance": 4.0}
    without_effect = (
        *("num_frames", "chunk_frames", "overlap_frames", "fps", "num_input_frames", "input_from", "fit"),
        "crf",
        *OF_SEVERAL_CAMERAS,
    )

    @classmethod
    def takes(cls, dit: DiTConfig) -> bool:
        return dit.makes_images

    @classmethod
    def suffix(cls, config: GenerationConfig) -> str:
        return f".{config.image_format}"

    @classmethod
    def place(cls, output: Path) -> tuple[Path, dict[str, Any]]:
        suffix = output.suffix.lower()
        if output.is_dir() or not (suffix in IMAGE_SUFFIXES or is_video_name(output)):
            return output, {}
        if suffix[1:] not in IMAGE_FORMATS:
            raise InputError(
                f"{output}: images are written as {', '.join(IMAGE_FORMATS)}; name such a file, or a folder"
            )
        return output.parent, {"name": output.stem, "image_format": output.suffix[1:]}

    def plan(self, tokenizer: VideoTokenizer, *, has_input: bool) -> ImagePlan:
        return ImagePlan(*plan_size(self.config, self.defaults, tokenizer, self.models.dit))

    def render(
        self,
        request: GenerationRequest,
        conditions: Conditions[ImagePlan],
        inputs: SamplingInputs,
        progress: Progress | None,
    ) -> Tensor | None:
        latent = self.sample(request, inputs, progress)
        frames = self.ranks.from_first(partial(self._decode, latent))
        return frames if self.ranks.is_first else None

    def _decode(self, latent: Tensor) -> Tensor:
        with self.models.tokenizer.use() as tokenizer:
            return to_uint8(tokenizer.decode(latent).clamp(-1, 1).cpu()[0])

    def write(self, path: Path, frames: Tensor, fps: float) -> None:
        write_image(path, frames[:, 0], self.config.image_quality)
