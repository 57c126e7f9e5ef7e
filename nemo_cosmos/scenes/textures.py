"""Procedural textures that repeat without a seam, with structure at several scales, and their look-up.

All are (SIDE, SIDE, 3) float in 0..1; row 0 is the lower edge. What they draw from is one generator, so that the
same seed gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

SIDE = 256
"""Pixels of a texture in both directions."""
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.18, 0.15),
    "orange": (0.90, 0.52, 0.16),
    "yellow": (0.88, 0.76, 0.26),
    "green": (0.26, 0.58, 0.28),
    "blue": (0.20, 0.36, 0.74),
    "purple": (0.50, 0.28, 0.62),
    "brown": (0.47, 0.31, 0.19),
    "grey": (0.56, 0.56, 0.57),
    "white": (0.90, 0.89, 0.86),
    "black": (0.12, 0.12, 0.14),
}
"""Names that captions use."""

Texture = Callable[[np.random.Generator, tuple[float, float, float]], np.ndarray]


class Atlas:
    """Textures by name, each at all sizes from :data:`SIDE` down to one pixel, for look-up without flicker.

    Args:
        textures: (SIDE, SIDE, 3) float in 0..1 each.
    """

    def __init__(self, textures: dict[str, np.ndarray]) -> None:
        self.ids = {name: number for number, name in enumerate(textures)}
        # Whole levels of brightness: the last bit of a sine, which differs between machines, does not matter then.
        level: np.ndarray = np.stack([texture.astype(np.float32) for texture in textures.values()])
        level = np.rint(np.clip(level, 0, 1) * np.float32(255))
        self._levels = [level]
        while level.shape[1] > 1:
            rows = level[:, 0::2] + level[:, 1::2]
            level = (rows[:, :, 0::2] + rows[:, :, 1::2]) / np.float32(4)
            self._levels.append(level)

    @cached_property
    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        """All levels' pixels in one list, and where each level begins."""
        starts = np.cumsum([0, *(level.size // 3 for level in self._levels[:-1])])
        return np.concatenate([level.reshape(-1, 3) for level in self._levels]), starts

    def look_up(self, texture: np.ndarray, place: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """Colours, linear between pixels and between sizes.

        Args:
            texture: (N,) numbers of textures.
            place: (N, 2) repetitions along columns and rows; the fraction counts.
            covered: (N,) what one pixel of the picture covers, in repetitions.

        Returns:
            (N, 3) float32 in 0..255.
        """
        level = np.clip(np.log2(np.maximum(covered * SIDE, 1e-6)), 0, len(self._levels) - 1)
        lower = np.minimum(level.astype(np.int64), len(self._levels) - 2)
        share = (level - lower).astype(np.float32)[:, None]
        place = place - np.floor(place)
        return self._at(texture, place, lower) * (1 - share) + self._at(texture, place, lower + 1) * share

    def _at(self, texture: np.ndarray, place: np.ndarray, level: np.ndarray) -> np.ndarray:
        pixels, starts = self._flat
        side = SIDE >> level
        x, y = place[:, 0] * side - 0.5, place[:, 1] * side - 0.5
        left, low = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - left).astype(np.float32)[:, None], (y - low).astype(np.float32)[:, None]
        mask = side - 1
        columns = left & mask, (left + 1) & mask
        start = starts[level] + texture * side * side
        rows = start + (low & mask) * side, start + ((low + 1) & mask) * side
        (a, b), (c, d) = ([pixels.take(row + column, 0) for column in columns] for row in rows)
        below, above = a + (b - a) * fx, c + (d - c) * fx
        return below + (above - below) * fy


def noise(random: np.random.Generator, cells: int) -> np.ndarray:
    """(SIDE, SIDE) smooth noise of mean 0 in about -1..1 with ``cells`` bumps along each side."""
    grid = random.uniform(-1, 1, (cells, cells))
    place = (np.arange(SIDE) + 0.5) * cells / SIDE
    first = np.floor(place).astype(int)
    share = place - first
    share = share * share * (3 - 2 * share)
    rows = grid[first % cells] * (1 - share)[:, None] + grid[(first + 1) % cells] * share[:, None]
    return rows[:, first % cells] * (1 - share) + rows[:, (first + 1) % cells] * share


def fractal(random: np.random.Generator, cells: int = 4, octaves: int = 5) -> np.ndarray:
    """(SIDE, SIDE) noise at ``octaves`` scales, the largest first, each half as strong as the one before."""
    return sum((noise(random, min(cells << k, SIDE)) * 0.5**k for k in range(octaves)), np.zeros((SIDE, SIDE)))


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """(SIDE, 1) rows and (1, SIDE) columns in 0..1, pixel centres."""
    centres = (np.arange(SIDE) + 0.5) / SIDE
    return centres[:, None], centres[None]


def _tinted(colour: tuple[float, float, float], brightness: np.ndarray) -> np.ndarray:
    return np.array(colour) * brightness[..., None]


def _lines(value: np.ndarray, count: int, width: float) -> np.ndarray:
    """True in the joints of ``count`` equal parts; ``width`` as a share of a part."""
    part = value * count
    return part - np.floor(part) < width


def plaster(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """A wall with stains and grain."""
    return _tinted(colour, 0.95 + 0.16 * fractal(random, 3, 6))


def wallpaper(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Stripes of two tones with rows of diamonds."""
    rows, columns = _grid()
    stripe = _lines(columns + 0 * rows, 4, 0.5)
    u, v = columns * 8 - np.floor(columns * 8) - 0.5, rows * 8 - np.floor(rows * 8) - 0.5
    diamond = np.abs(u) + np.abs(v) < 0.28
    return _tinted(colour, 0.78 + 0.2 * stripe - 0.28 * diamond + 0.06 * fractal(random, 8, 4))


def bricks(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Eight courses of four bricks with pale joints."""
    rows, columns = _grid()
    course = np.floor(rows * 8).astype(int)
    shifted = columns + (course % 2) / 8
    joint = _lines(rows + 0 * columns, 8, 0.12) | _lines(shifted, 4, 0.06)
    tone = random.uniform(0.72, 1.12, (8, 4))[course, np.floor(shifted * 4).astype(int) % 4]
    brick = _tinted(colour, tone + 0.1 * fractal(random, 16, 4))
    return np.where(joint[..., None], 0.7 + 0.05 * noise(random, 64)[..., None], brick)


def planks(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Six boards with grain along them and joints at differing places."""
    rows, columns = _grid()
    board = np.floor(rows * 6).astype(int)
    ends = random.uniform(0, 1, 6)[board]
    grain = np.repeat(random.uniform(-1, 1, (SIDE, 8)), SIDE // 8, 1) * 0.05
    joint = _lines(rows + 0 * columns, 6, 0.06) | (np.abs(columns - ends) < 0.006)
    tone = random.uniform(0.7, 1.15, 6)[board] + grain + 0.1 * fractal(random, 4, 4)
    return _tinted(colour, np.where(joint, 0.35, tone))


def tiles(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Four by four tiles, light and dark in turns, with joints."""
    rows, columns = _grid()
    row, column = np.floor(rows * 4).astype(int), np.floor(columns * 4).astype(int)
    joint = _lines(rows + 0 * columns, 4, 0.05) | _lines(columns + 0 * rows, 4, 0.05)
    tone = np.where((row + column) % 2 == 0, 1.0, 0.55) + random.uniform(-0.06, 0.06, (4, 4))[row, column]
    return _tinted(colour, np.where(joint, 0.3, tone + 0.07 * fractal(random, 8, 5)))


def carpet(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Rings of two tones, and pile."""
    rows, columns = _grid()
    away = np.maximum(np.abs(columns - 0.5), np.abs(rows - 0.5))
    ring = _lines(away, 12, 0.5)
    return _tinted(colour, 0.75 + 0.3 * ring + 0.12 * fractal(random, 32, 3))


def ceiling(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Panels with holes."""
    rows, columns = _grid()
    joint = _lines(rows + 0 * columns, 2, 0.03) | _lines(columns + 0 * rows, 2, 0.03)
    return _tinted(colour, np.where(joint, 0.6, 0.92 + 0.05 * fractal(random, 32, 3)))


def painted(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """A cabinet: panels with a frame and a knob each."""
    rows, columns = _grid()
    u, v = columns * 2 - np.floor(columns * 2), rows * 2 - np.floor(rows * 2)
    frame = (np.minimum(u, 1 - u) < 0.05) | (np.minimum(v, 1 - v) < 0.05)
    knob = np.hypot(u - 0.85, v - 0.5) < 0.06
    tone = 0.9 + 0.12 * fractal(random, 4, 4) - 0.35 * frame + 0.5 * knob
    return _tinted(colour, tone)


def crate(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Boards within a frame, with a brace across."""
    rows, columns = _grid()
    edge = np.minimum(np.minimum(columns, 1 - columns), np.minimum(rows, 1 - rows))
    brace = np.abs(columns - rows) < 0.08
    joint = _lines(rows + 0 * columns, 5, 0.08)
    tone = 0.8 - 0.4 * joint + 0.1 * fractal(random, 8, 4)
    return _tinted(colour, np.where((edge < 0.1) | brace, 1.08 + 0.1 * noise(random, 32), tone))


def books(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Four shelves full of books."""
    palette = np.array(list(COLOURS.values()))
    picture = np.ones((SIDE, SIDE, 3)) * np.array(colour) * 0.5
    depth = SIDE // 4
    for shelf in range(4):
        column = 4
        while column < SIDE - 12:
            width, height = int(random.integers(5, 15)), int(random.integers(depth * 5 // 8, depth - 10))
            back = picture[shelf * depth + 5 : shelf * depth + 5 + height, column : min(column + width, SIDE - 4)]
            back[:] = palette[random.integers(len(palette))] * random.uniform(0.7, 1.1)
            back[height * 3 // 4 : height * 3 // 4 + 4] *= 1.4
            back[:, :1] *= 0.5
            column += width
    return picture


def picture(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """A painting in a frame: discs and bars of strong colours, another one each time."""
    rows, columns = _grid()
    palette = np.array(list(COLOURS.values()))
    found = np.ones((SIDE, SIDE, 3)) * palette[random.integers(len(palette))]
    for _ in range(7):
        shade = palette[random.integers(len(palette))] * random.uniform(0.8, 1.2)
        x, y, size = random.uniform(0.15, 0.85, 3)
        if random.uniform() < 0.5:
            inside = np.hypot(columns - x, rows - y) < size / 4
        else:
            inside = (np.abs(columns - x) < size / 3) & (np.abs(rows - y) < 0.08)
        found = np.where(inside[..., None], shade, found)
    edge = np.minimum(np.minimum(columns, 1 - columns), np.minimum(rows, 1 - rows))
    found = found * (0.95 + 0.08 * fractal(random, 8, 4)[..., None])
    return np.where(edge[..., None] < 0.06, np.array(colour), found)


def window(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """A window with four panes, hills and sky behind."""
    rows, columns = _grid()
    hills = 0.35 + 0.1 * noise(random, 4)[:1] + 0.03 * noise(random, 16)[:1]
    sky = np.stack([0.62 + 0.2 * rows + 0 * columns, 0.78 + 0.1 * rows + 0 * columns, 0.95 + 0 * rows * columns], -1)
    land = np.array((0.25, 0.48, 0.24)) * (0.9 + 0.25 * fractal(random, 16, 3)[..., None])
    found = np.where((rows < hills)[..., None], land, sky)
    edge = np.minimum(np.minimum(columns, 1 - columns), np.minimum(rows, 1 - rows))
    bar = (edge < 0.05) | (np.abs(columns - 0.5) < 0.02) | (np.abs(rows - 0.6) < 0.02)
    return np.where(bar[..., None], np.array(colour), found)


def door(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Two panels and a handle."""
    rows, columns = _grid()
    inner = (np.abs(columns - 0.5) < 0.32) & ((np.abs(rows - 0.27) < 0.19) | (np.abs(rows - 0.72) < 0.2))
    handle = (np.abs(columns - 0.9) < 0.04) & (np.abs(rows - 0.48) < 0.012)
    edge = np.minimum(columns, 1 - columns) < 0.04
    tone = 0.95 - 0.25 * inner + 0.08 * fractal(random, 4, 5) + 0.7 * handle
    return _tinted(colour, np.where(edge, 0.45, tone))


def facade(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Four storeys of four windows, some lit, some with blinds; bands between the storeys."""
    rows, columns = _grid()
    storey, bay = np.floor(rows * 4).astype(int), np.floor(columns * 4).astype(int)
    u, v = columns * 4 - bay, rows * 4 - storey
    wide, high = random.uniform(0.24, 0.36), random.uniform(0.26, 0.36)
    pane = (np.abs(u - 0.5) < wide) & (np.abs(v - 0.52) < high)
    frame = (np.abs(u - 0.5) < wide + 0.05) & (np.abs(v - 0.52) < high + 0.05)
    bars = (np.abs(u - 0.5) < 0.025) | (np.abs(v - 0.52 - high / 3) < 0.02)
    blind = v > 0.52 + high * random.uniform(-1, 1.6, (4, 4))[storey, bay]
    glass = random.uniform(0.12, 0.42, (4, 4))[storey, bay] + 0.15 * (v - 0.3)
    panes = np.stack([glass * 0.8, glass * 0.95, glass * 1.15], -1)
    panes = np.where(blind[..., None], (0.78, 0.76, 0.70), panes)
    lit = (random.uniform(size=(4, 4)) < 0.15)[storey, bay]
    panes = np.where((lit & ~blind)[..., None], (0.95, 0.82, 0.5), panes)
    wall = _tinted(colour, 0.95 + 0.1 * fractal(random, 4, 6) - 0.2 * (v < 0.06) - 0.06 * _lines(v, 8, 0.1))
    found = np.where(frame[..., None], np.array(colour) * 0.5 + 0.42, wall)
    return np.where((pane & ~bars)[..., None], panes, found)


def asphalt(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """A road across its whole width, rows along it: broken middle line, edge lines, patches and cracks."""
    rows, columns = _grid()
    tone = 0.9 + 0.12 * fractal(random, 4, 6) + 0.06 * random.uniform(-1, 1, (SIDE, SIDE))
    patch = (np.abs(columns - random.uniform(0.15, 0.85)) < 0.1) & (np.abs(rows - random.uniform(0.3, 0.7)) < 0.15)
    tone = tone - 0.16 * patch - 0.1 * (np.abs(fractal(random, 3, 4)) < 0.03)
    middle = (np.abs(columns - 0.5) < 0.009) & (rows < 0.5)
    edges = np.minimum(columns, 1 - columns)
    marked = middle | (np.abs(edges - 0.02) < 0.007)
    return np.where(marked[..., None], 0.86 + 0.05 * noise(random, 64)[..., None], _tinted(colour, tone))


def pavement(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Slabs of differing tone with joints."""
    rows, columns = _grid()
    row, column = np.floor(rows * 4).astype(int), np.floor(columns * 4).astype(int)
    joint = _lines(rows + 0 * columns, 4, 0.05) | _lines(columns + 0 * rows, 4, 0.05)
    tone = random.uniform(0.82, 1.08, (4, 4))[row, column] + 0.1 * fractal(random, 16, 4)
    return _tinted(colour, np.where(joint, 0.6, tone))


def leaves(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Foliage or grass."""
    return _tinted(colour, 0.85 + 0.38 * fractal(random, 8, 5))


def bark(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Upright furrows."""
    return _tinted(colour, 0.85 + 0.25 * noise(random, 64)[:1] + 0.2 * fractal(random, 8, 4))


def bodywork(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """The side of a car's lower half: wheels, doors, handles, a bright edge."""
    rows, columns = _grid()
    found = _tinted(colour, 0.85 + 0.25 * rows + 0.04 * fractal(random, 8, 3))
    gap = np.minimum(np.abs(columns - 0.5), np.minimum(np.abs(columns - 0.28), np.abs(columns - 0.72))) < 0.006
    found = np.where(gap[..., None] & (rows > 0.2)[..., None], found * 0.5, found)
    for x in (0.18, 0.82):
        away = np.hypot((columns - x) * 4.3, (rows - 0.22) * 1.0)
        found = np.where((away < 0.42)[..., None], 0.06, found)
        found = np.where((away < 0.22)[..., None], 0.62, found)
    return found


def glazing(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """The upper half of a car: windows between posts."""
    rows, columns = _grid()
    u = columns * 2 - np.floor(columns * 2)
    pane = (np.abs(u - 0.5) < 0.42) & (np.abs(rows - 0.48) < 0.36)
    glass = np.array((0.16, 0.2, 0.25)) + 0.3 * ((rows + columns * 0.5)[..., None] % 0.5 > 0.42)
    return np.where(pane[..., None], glass, _tinted(colour, 0.95 + 0.05 * fractal(random, 8, 3)))


def lights(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """The front or back of a car: lamps, a grille and a number plate."""
    rows, columns = _grid()
    found = _tinted(colour, 0.8 + 0.25 * rows + 0.04 * fractal(random, 8, 3))
    lamp = (np.abs(np.abs(columns - 0.5) - 0.38) < 0.08) & (np.abs(rows - 0.68) < 0.12)
    grille = (np.abs(columns - 0.5) < 0.24) & (np.abs(rows - 0.62) < 0.12)
    plate = (np.abs(columns - 0.5) < 0.16) & (np.abs(rows - 0.28) < 0.08)
    found = np.where(grille[..., None], 0.1 + 0.15 * _lines(rows + 0 * columns, 24, 0.4)[..., None], found)
    found = np.where(lamp[..., None], (0.98, 0.9, 0.72), found)
    return np.where(plate[..., None], 0.92, found)


def clouds(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """A sky with clouds."""
    share = np.clip(0.35 + 0.9 * fractal(random, 3, 6), 0, 1)[..., None]
    return np.array(colour) * (1 - share) + 0.97 * share


def plain(random: np.random.Generator, colour: tuple[float, float, float]) -> np.ndarray:
    """Paint or dark ground with a little grain."""
    return _tinted(colour, 0.95 + 0.08 * fractal(random, 8, 5))
