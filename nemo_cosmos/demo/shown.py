"""The windows that the report shows: the truth, and what each network made of its first frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.demo.clips import Cut
from nemo_cosmos.demo.figures import Figures, feature_distance, mean, measure
from nemo_cosmos.models.video_tokenizer import VideoTokenizer
from nemo_cosmos.pixels import from_levels, to_uint8

VERSIONS = {
    "base": "base",
    "post_trained": "post-trained",
    "lora": "LoRA",
    "reconstruction": "tokenizer",
    "frozen": "frozen first frame",
}
"""What stands beside the truth, in words: three that were generated, the truth coded and decoded, and no motion."""
GENERATED = ("base", "post_trained", "lora")


@dataclass(frozen=True)
class ShownWindow:
    """One window; videos are (3, T, H, W) uint8 of one shape.

    Attributes:
        name: stem of its files.
        caption: what the networks were told besides the first frame.
        truth: the window itself.
        truth_file: its mp4.
        files: mp4 of each version but the frozen one, a key of ``VERSIONS``.
        videos: frames of each version.
        figures: of each version.
    """

    name: str
    caption: str
    truth: Tensor
    truth_file: Path
    files: dict[str, Path]
    videos: dict[str, Tensor]
    figures: dict[str, Figures]


@dataclass(frozen=True)
class Group:
    """Windows of one kind, a key of ``GROUPS``, and the means of their figures by version."""

    kind: str
    windows: list[ShownWindow]

    @property
    def measured(self) -> bool:
        """Whether its figures say something: the windows were not trained on."""
        return self.kind != "training_windows"

    @property
    def figures(self) -> dict[str, Figures]:
        return {key: mean([window.figures[key] for window in self.windows]) for key in VERSIONS}


def read_groups(
    cut: Cut, clips: Path, generated: dict[str, Path], reconstructions: Path, tokenizer: VideoTokenizer
) -> list[Group]:
    """Reads and measures the windows of each group that has some; writes the reconstructions.

    Args:
        cut: which windows there are.
        clips: folder of their videos and captions.
        generated: folder of the videos of each of ``GENERATED``.
        reconstructions: folder to write.
        tokenizer: codes the windows, and gives the features that are compared.

    Raises:
        InputError: a video is missing, damaged or of another shape.
    """
    distance = feature_distance(tokenizer)
    found = {clip.video.stem: clip for clip in find_clips(clips)}
    groups = []
    for kind, names in cut.groups.items():
        windows = []
        for name in names:
            truth = read_frames(found[name].video, keep_damaged=True)
            files = {key: folder / f"{name}.mp4" for key, folder in generated.items()}
            videos = {key: read_frames(file, keep_damaged=True) for key, file in files.items()}
            videos["reconstruction"] = reconstruct(tokenizer, truth)
            videos["frozen"] = truth[:, :1].expand_as(truth)
            files["reconstruction"] = reconstructions / f"{name}.mp4"
            write_mp4(
                files["reconstruction"],
                videos["reconstruction"],
                probe(found[name].video, keep_damaged=True).fps,
                quality=12,
            )
            figures = {key: measure(videos[key], truth, distance) for key in VERSIONS}
            caption = found[name].read_caption()
            windows.append(ShownWindow(name, caption, truth, found[name].video, files, videos, figures))
        if windows:
            groups.append(Group(kind, windows))
    return groups


def reconstruct(tokenizer: VideoTokenizer, video: Tensor) -> Tensor:
    """A (3, T, H, W) uint8 video coded and decoded."""
    with torch.no_grad():
        decoded = tokenizer.decode(tokenizer.encode(from_levels(video[None]).to(tokenizer.device)))
    return to_uint8(decoded[0].cpu())
