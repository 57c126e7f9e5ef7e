"""Interlaced material: frames that are flagged so are deinterlaced, combed ones without a flag are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import av

COMBED_FRAMES = 8
"""Frames of one field order that make a video interlaced, when the others are few."""
OTHER_FRAMES = 0.1
"""Share of frames of the other order, or whole, up to which they are few. Woven video has next to none; small noisy
pictures that are whole look woven in up to two thirds of their frames."""
COMBED_RATIO = 1.08
"""How much better rows must fit between those of the frame before or after than between those of their own frame for
idet to call it combed. Its default, 1.04, condemned a clean clip of fine grain drifting slowly (1 of 1,200 rendered
ones, 96 rows high); real clips woven by hand are found up to 1.5."""
LEAST_ROWS = 72
"""Of frames that are looked at: no interlaced format has fewer than 480, and what is cut out of one shows combs only
where its rows stay as they are. In smaller pictures noise alone looks woven."""
LOOK_AHEAD = 10
"""Frames in which combs of clear motion show."""
OBSERVED = 120
"""Frames that are looked at; film that is progressive so far stays so."""
_PLANAR = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p", "yuv420p10le", "yuv422p10le", "gray")
"""Formats that FFmpeg's idet takes as they are."""
_PARITIES = {2: "tff", 5: "tff", 3: "bff", 4: "bff"}
"""Field shown first, by FFmpeg's field orders (TT, BT, BB, TB)."""


class Deinterlacer:
    """Frame for frame: of one that is flagged as interlaced its first field, the other rows interpolated.

    Nothing of the second field is used: filters that look at both (yadif, bwdif) take still stripes of one row for
    detail, and leave combs where the two instants differ steadily. Other frames pass as they are.

    Args:
        field_order: of the stream's codec context.
    """

    def __init__(self, field_order: int) -> None:
        self._parity = _PARITIES.get(field_order, "auto")
        self._graph: Any = None

    def push(self, frame: Any) -> Iterator[Any]:
        """What is ready after ``frame``."""
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame
                return
            self._graph = filter_graph(frame, "estdif", f"mode=frame:parity={self._parity}:deint=interlaced")
        self._graph.vpush(frame)
        yield from pull(self._graph)

    def flush(self) -> Iterator[Any]:
        """The rest, after the last frame."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from pull(self._graph)


class CombDetector:
    """Whether frames that carry no flag were woven from fields of different times, by FFmpeg's idet filter.

    Motion is needed for that, and about ten frames.

    Attributes:
        orders: how many frames idet called `tff`, `bff`, `progressive` and so on.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._seen = 0
        self.orders: Counter[str] = Counter()

    def is_combed(self, frame: Any) -> bool:
        """Look at the next frame; the verdict on all so far."""
        if self._seen < OBSERVED and _may_be_woven(frame):
            if self._graph is None:
                self._graph = filter_graph(frame, "idet", f"intl_thres={COMBED_RATIO}")
            self._seen += 1
            self._graph.vpush(frame)
            self.orders.update(seen.metadata["lavfi.idet.single.current_frame"] for seen in pull(self._graph))
        return is_woven(self.orders)


def _may_be_woven(frame: Any) -> bool:
    return frame.height >= LEAST_ROWS and frame.format.name in _PLANAR and not frame.interlaced_frame


def is_woven(frames: Counter[str]) -> bool:
    """The verdict on a video, from how many of its frames idet calls ``tff``, ``bff``, ``progressive`` and so on."""
    top, bottom = frames["tff"], frames["bff"]
    combed, told = max(top, bottom), top + bottom + frames["progressive"]
    return combed >= COMBED_FRAMES and told - combed <= OTHER_FRAMES * told


def filter_graph(frame: Any, name: str, options: str | None) -> Any:
    """A graph of one filter for frames like ``frame``."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    chosen, sink = graph.add(name, options), graph.add("buffersink")
    source.link_to(chosen)
    chosen.link_to(sink)
    graph.configure()
    return graph


def pull(graph: Any) -> Iterator[Any]:
    """Frames that a graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
