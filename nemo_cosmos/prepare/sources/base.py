"""What a source is: a kind of raw dataset that gives clips, from which samples are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nemo_cosmos.choices import Captions, Fit
from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.rig import Rig
from nemo_cosmos.data.views import Problem


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a source.

    Attributes:
        use_embeddings: every clip needs a text embedding of its own, made from the caption that it has now.
        default_caption: caption of clips that have none.
        captions_needed: a clip without a caption is an error; otherwise such clips are given as they are.
        rig: rig file or name of one, for sources of several cameras.
        captions: which cameras have captions, for the same; None: as the rig says.
        list_problems: clips that cannot be used are left out and listed instead of refused, by sources of several
            cameras.
    """

    use_embeddings: bool = False
    default_caption: str | None = None
    captions_needed: bool = True
    rig: str | Path | None = None
    captions: Captions | None = None
    list_problems: bool = False


@dataclass(frozen=True)
class Sampling:
    """What is taken of a clip where the user does not say."""

    frames: int = 121
    size: tuple[int, int] = (704, 1280)
    fit: Fit = "crop"
    fps: float | None = None


@dataclass(frozen=True)
class Found:
    """What a source found.

    Attributes:
        clips: sorted by key: files, captions, embeddings, and what else the kind has of views and poses.
        sampling: what is taken of each where the user does not say.
        rig: their cameras; None: one each.
        problems: of clips that are left out.
        note: what else a person should know; empty for nothing.
    """

    clips: list[Clip]
    sampling: Sampling = field(default_factory=Sampling)
    rig: Rig | None = None
    problems: list[Problem] = field(default_factory=list)
    note: str = ""


class Source(Protocol):
    """One kind of raw dataset."""

    @property
    def kind(self) -> str:
        """Its name, as ``prepare --layout`` takes it."""

    @property
    def frames(self) -> int | None:
        """Pixel frames of every sample where the kind says so, None where the user does."""

    @property
    def has_rig(self) -> bool:
        """Whether clips have several cameras, and options about them an effect."""

    def reads(self, path: Path) -> bool:
        """Whether what lies at ``path`` looks like its own; reads no video or image."""

    def open(self, path: Path, options: SourceOptions) -> Found:
        """The clips.

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
        sampling: what is taken of each clip where the user does not say.
        rig: the cameras of the clips, None for one each.
        problems: clips that are left out, and why.
    """

    kind: str
    clips: list[Clip]
    frames: int | None
    not_read: str
    note: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    rig: Rig | None = None
    problems: list[Problem] = field(default_factory=list)

    def settings(self) -> dict[str, Any]:
        """What of the source shapes samples, by the names of the command's options."""
        if self.rig is None:
            return {}
        front = f"{self.rig.captions}, front {self.rig.front}"
        return {"rig": self.rig.described(), "captions": front}
