"""Videos with captions: the Cosmos folder, a plain folder, or a list; see ``data.clips`` for the layouts."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.data.clips import VIDEOS, Clip, Media, find_clips, list_clips, not_read
from nemo_cosmos.prepare.sources.base import Found, SourceOptions


class ClipSource:
    """Files of one camera each, a video or an image, in the layouts of ``data.clips``."""

    kind = "clips"
    frames: int | None = None
    has_rig = False
    media: Media = VIDEOS

    def reads(self, path: Path) -> bool:
        return True  # What nothing else reads; opening it says what is missing.

    def open(self, path: Path, options: SourceOptions) -> Found:
        return Found(self._clips(path, options))

    def _clips(self, path: Path, options: SourceOptions) -> list[Clip]:
        if not options.captions_needed:
            return list_clips(path, self.media)
        return find_clips(
            path,
            use_embeddings=options.use_embeddings,
            default_caption=options.default_caption,
            media=self.media,
        )

    def not_read(self, path: Path) -> str:
        return not_read(path, self.media)
