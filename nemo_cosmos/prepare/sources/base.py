"""What a source is: a kind of raw dataset that gives clips, from which samples are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nemo_cosmos.data.clips import Clip


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a source.

    Attributes:
        use_embeddings: every clip needs a text embedding of its own, made from the caption that it has now.
        default_caption: caption of clips that have none.
        captions_needed: a clip without a caption is an error; otherwise such clips are given as they are.
    """

    use_embeddings: bool = False
    default_caption: str | None = None
    captions_needed: bool = True


class Source(Protocol):
    """One kind of raw dataset."""

    @property
    def kind(self) -> str:
        """Its name, as ``prepare --source`` takes it."""

    @property
    def frames(self) -> int | None:
        """Pixel frames of every sample where the kind says so, None where the user does."""

    def reads(self, path: Path) -> bool:
        """Whether what lies at ``path`` looks like its own; reads no video or image."""

    def open(self, path: Path, options: SourceOptions) -> list[Clip]:
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
    """

    kind: str
    clips: list[Clip]
    frames: int | None
    not_read: str
    note: str = ""
