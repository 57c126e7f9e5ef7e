"""What a source is: a kind of raw dataset that gives clips, from which samples are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nemo_cosmos.choices import Fit
from nemo_cosmos.data.clips import Clip


@dataclass(frozen=True)
class SceneOptions:
    """What is asked of a source of scenes; what differs from the defaults is asked of others in vain.

    Attributes:
        captions: file with the dictionary of captions.
        chunks: samples of each scene.
        seed: of the chunks' places, and of the scenes where not all are taken.
        count: scenes taken, -1 for all.
        max_unpacked_gb: most GiB that the pictures of a zip file may have; None: see ``data.archives``.
        videos: folder for a video of each scene, None for no videos.
        apart: folders that are not searched for scenes.
    """

    captions: Path | None = None
    chunks: int = 1
    seed: int = 1234
    count: int = -1
    max_unpacked_gb: float | None = None
    videos: Path | None = None
    apart: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SourceDefaults:
    """What a sample is where the user does not say: pixel frames, how a clip fills the size, and frame rate (None for
    that of each clip)."""

    frames: int = 121
    fit: Fit = "crop"
    fps: float | None = None


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a source.

    Attributes:
        use_embeddings: every clip needs a text embedding of its own, made from the caption that it has now.
        default_caption: caption of clips that have none.
        captions_needed: a clip without a caption is an error; otherwise such clips are given as they are.
        scenes: for sources of scenes alone.
    """

    use_embeddings: bool = False
    default_caption: str | None = None
    captions_needed: bool = True
    scenes: SceneOptions = SceneOptions()


class Source(Protocol):
    """One kind of raw dataset."""

    @property
    def kind(self) -> str:
        """Its name, as ``prepare --source`` takes it."""

    @property
    def frames(self) -> int | None:
        """Pixel frames of every sample where the kind says so, None where the user does."""

    @property
    def defaults(self) -> SourceDefaults:
        """What a sample is where the user does not say."""

    def reads(self, path: Path) -> bool:
        """Whether what lies at ``path`` looks like its own; reads no video or image."""

    def open(self, path: Path, options: SourceOptions) -> Sequence[Clip]:
        """The clips, sorted by key: files, captions, embeddings, and what else the kind has of views and poses.

        Raises:
            InputError: no clips, a clip without what ``options`` ask for, the same clip twice, or a malformed list.
        """

    def not_read(self, path: Path) -> str:
        """What lies among the clips and is not read, counted by suffix; empty when nothing is."""


@dataclass(frozen=True)
class OpenedSource:
    """A dataset with the source that read it.

    Attributes:
        kind: name of the source.
        clips: sorted by key.
        frames: pixel frames of every sample, None where the user says.
        not_read: what lies among the clips and is not read, counted by suffix.
        note: what else a person should know about the choice of the source; empty for nothing.
        defaults: what a sample is where the user does not say.
    """

    kind: str
    clips: list[Clip]
    frames: int | None
    not_read: str
    note: str = ""
    defaults: SourceDefaults = SourceDefaults()
