"""A few short clips with captions, and a small tokenizer and text encoder for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder, text_encoder_name
from nemo_cosmos.models.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from nemo_cosmos.prepare.encode import prepare

NUM_FRAMES, SIZE = 9, (32, 48)


@dataclass(frozen=True)
class RawData:
    """Folders of a raw dataset and of what encodes it."""

    clips: Path
    tokenizer: Path
    text_encoder: Path

    def online(self) -> list[str]:
        """Overrides for training on the clips themselves."""
        return [
            "data.mode=online", f"data.path={self.clips}", f"data.tokenizer_path={self.tokenizer}",
            f"data.text_encoder={self.text_encoder}", f"data.num_frames={NUM_FRAMES}",
            f"data.size=[{SIZE[0]},{SIZE[1]}]",
        ]  # fmt: skip

    def shards(self, path: Path) -> Path:
        """The same clips prepared, without rounding of latents."""
        prepare(
            find_clips(self.clips),
            path,
            tokenizer=load_tokenizer(self.tokenizer),
            plan=WindowPlan(NUM_FRAMES, SIZE),
            text_encoder=lambda: load_text_encoder(self.text_encoder),
            text_encoder_name=text_encoder_name(self.text_encoder),
            latent_dtype="float32",
        )
        return path


def write_raw_data(path: Path, *, count: int = 6, text_width: int = 16) -> RawData:
    """``count`` clips, a little larger and longer than what is trained on."""
    for number in range(count):
        add_clip(path / "clips", f"clip{number}", seed=number)
    torch.manual_seed(0)
    module = build_tokenizer("CV4x8x8-360p", channels=8, num_res_blocks=1, chunk_frames=NUM_FRAMES)
    frames = module.config.chunk_latent_frames
    save_tokenizer(
        path / "tokenizer", module, name="small", mean=torch.full((16, frames), 0.1), std=torch.full((16, frames), 0.5)
    )
    save_tiny_text_encoder(path / "text_encoder", width=text_width)
    return RawData(path / "clips", path / "tokenizer", path / "text_encoder")


def add_clip(path: Path, name: str, *, seed: int = 0, frames: int = NUM_FRAMES + 2) -> None:
    """``videos/NAME.mp4`` and ``metas/NAME.txt`` of coarse noise."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (3, frames, 10, 14), generator=generator).float()
    video = F.interpolate(video, size=(40, 56)).to(torch.uint8)
    write_mp4(path / "videos" / f"{name}.mp4", video, 12.0)
    (path / "metas").mkdir(exist_ok=True)
    (path / "metas" / f"{name}.txt").write_text(f"a red disc moves left, take {seed}", encoding="utf-8")
