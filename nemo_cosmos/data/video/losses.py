"""Notice what FFmpeg's H.264 decoder conceals: it goes on after lost pictures, and tells its debug log alone."""

from __future__ import annotations

import av.logging
from typing_extensions import Self

_MESSAGE = "Frame num gap"


class LossWatch:
    """Context in which a decoder with one thread runs, of this thread.

    Attributes:
        packets: numbers of the packets before which pictures are missing that later ones refer to.
    """

    def __init__(self) -> None:
        self.packets: list[int] = []
        self._seen = 0

    def __enter__(self) -> Self:
        self._level = av.logging.get_level()
        av.logging.set_level(av.logging.DEBUG)
        self._capture = av.logging.Capture(local=True)
        self._logs = self._capture.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.__exit__(*error)
        av.logging.set_level(self._level)

    def look(self, packet: int) -> None:
        """After packet number ``packet`` has been decoded."""
        if any(_MESSAGE in message for _, _, message in self._logs[self._seen :]):
            self.packets.append(packet)
        self._seen = len(self._logs)
