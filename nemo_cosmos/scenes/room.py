"""A furnished room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nemo_cosmos.scenes import textures
from nemo_cosmos.scenes.geometry import Light, Scene, Surface, box
from nemo_cosmos.scenes.textures import COLOURS, Atlas, Texture
from nemo_cosmos.scenes.words import enumerated, with_article

WALLS: dict[str, tuple[Texture, str, float]] = {
    "brick": (textures.bricks, "brick", 1.1),
    "papered": (textures.wallpaper, "striped", 1.6),
    "plaster": (textures.plaster, "plastered", 3.0),
    "planks": (textures.planks, "panelled", 1.8),
}
"""Texture, the word for it, and metres that it covers."""
FLOORS: dict[str, tuple[Texture, str, float]] = {
    "planks": (textures.planks, "wooden", 1.4),
    "tiles": (textures.tiles, "tiled", 1.6),
    "carpet": (textures.carpet, "carpeted", 3.0),
}
FURNITURE: dict[str, tuple[Texture, tuple[float, float, float]]] = {
    "bookshelf": (textures.books, (1.5, 0.4, 1.9)),
    "cabinet": (textures.painted, (1.1, 0.5, 1.1)),
    "crate": (textures.crate, (0.7, 0.7, 0.7)),
    "wardrobe": (textures.painted, (1.3, 0.6, 2.0)),
    "chest": (textures.crate, (0.9, 0.5, 0.5)),
}
"""Texture of the sides, and length, width and height in metres."""
SHADES = tuple(name for name in COLOURS if name not in ("black", "grey"))


@dataclass(frozen=True)
class Room:
    """A room with its corner at the origin, x along its length, z up.

    Attributes:
        scene: walls, floor, ceiling and furniture.
        size: length, width and height in metres.
        furniture: (F, 2, 3) lowest and highest corner of what a camera may not pass through.
        caption: one sentence, true of the room.
    """

    scene: Scene
    size: tuple[float, float, float]
    furniture: np.ndarray
    caption: str

    def clearance(self, points: np.ndarray) -> float:
        """Least distance in metres from (N, 3) points to a wall or furniture; negative where one is inside."""
        extent = np.array(self.size)
        walls = np.minimum(points, extent - points).min()
        beyond = np.maximum(self.furniture[:, 0] - points[:, None], points[:, None] - self.furniture[:, 1])
        outside = np.sqrt((np.maximum(beyond, 0) ** 2).sum(-1))
        return float(min(walls, np.where(outside > 0, outside, beyond.max(-1)).min()))


def draw_room(random: np.random.Generator) -> Room:
    """A room with four walls of two or more kinds, pictures, a window, a door, and furniture along the walls."""
    size = float(random.uniform(5.5, 7.5)), float(random.uniform(5.0, 6.5)), float(random.uniform(2.7, 3.1))
    made: dict[str, np.ndarray] = {}
    floor_kind, floor_colour = str(random.choice(list(FLOORS))), str(random.choice(("brown", "grey", "green", "blue")))
    texture, floor_word, floor_tile = FLOORS[floor_kind]
    made["floor"] = texture(random, COLOURS[floor_colour])
    made["ceiling"] = textures.ceiling(random, (0.9, 0.9, 0.88))
    length, width, height = size
    surfaces = [
        Surface((0, 0, 0), (length, 0, 0), (0, width, 0), "floor", (floor_tile, floor_tile)),
        Surface((0, width, height), (length, 0, 0), (0, -width, 0), "ceiling", (1.2, 1.2)),
    ]
    kinds = [str(name) for name in random.permutation(list(WALLS))]
    kinds[3] = kinds[int(random.integers(2))]
    colours = [str(name) for name in random.permutation(SHADES)][:4]
    walls = _walls(size)
    for number, ((corner, along, up), kind, colour) in enumerate(zip(walls, kinds, colours, strict=True)):
        texture, _, tile = WALLS[kind]
        made[f"wall {number}"] = texture(random, _mixed(colour, 0.75))
        surfaces.append(Surface(_as(corner), _as(along), _as(up), f"wall {number}", (tile, tile)))
        surfaces += _hangings(random, made, number, corner, along, height)
    pieces, words, boxes = _furnish(random, made, size)
    named = [f"{floor_colour} {floor_word} floor"]
    named += [f"{colours[number]} {WALLS[kinds[number]][1]} wall" for number in (0, 1)]
    caption = f"A room with {enumerated([with_article(name) for name in [*named, *words]])}."
    light = Light(0.62, lamp=(length / 2, width / 2, height - 0.3), reach=4.0)
    scene = Scene([*surfaces, *pieces], Atlas(made), light)
    return Room(scene, size, np.array(boxes), caption)


def _walls(size: tuple[float, float, float]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Corner, side along and side up of the four walls, seen from inside."""
    length, width, height = size
    up = np.array([0, 0, height])
    corners = np.array([[0, width, 0], [length, width, 0], [length, 0, 0], [0, 0, 0]], np.float64)
    return [(corners[k], corners[(k + 1) % 4] - corners[k], up) for k in range(4)]


def _hangings(
    random: np.random.Generator,
    made: dict[str, np.ndarray],
    number: int,
    corner: np.ndarray,
    along: np.ndarray,
    height: float,
) -> list[Surface]:
    """A centimetre in front of a wall: pictures, and a window or a door on two of the walls."""
    length = float(np.sqrt((along * along).sum()))
    ahead = along / length
    inward = np.array([ahead[1], -ahead[0], 0.0])
    what = {0: textures.window, 2: textures.door}.get(number, textures.picture)
    found: list[Surface] = []
    for place, kind in ((random.uniform(0.25, 0.35), what), (random.uniform(0.65, 0.75), textures.picture)):
        wide, tall, low = {
            textures.window: (1.5, 1.2, 1.0),
            textures.door: (0.95, 2.05, 0.0),
        }.get(
            kind, (float(random.uniform(0.6, 1.1)), float(random.uniform(0.5, 0.9)), float(random.uniform(1.2, 1.5)))
        )
        name = f"hanging {number} {len(found)}"
        made[name] = kind(random, COLOURS[str(random.choice(("brown", "white", "black")))])
        start = corner + ahead * (place * length - wide / 2) + inward * 0.01 + np.array([0, 0, low])
        tall = min(tall, height - low - 0.1)
        found.append(Surface(_as(start), _as(ahead * wide), (0.0, 0.0, tall), name))
    return found


def _furnish(
    random: np.random.Generator, made: dict[str, np.ndarray], size: tuple[float, float, float]
) -> tuple[list[Surface], list[str], list[list[np.ndarray]]]:
    """Furniture along the walls and a low table in the middle: surfaces, words, and corners."""
    surfaces: list[Surface] = []
    words: list[str] = []
    boxes: list[list[np.ndarray]] = []

    def put(name: str, colour: str, texture: Texture, extent: tuple[float, float, float], x: float, y: float) -> None:
        key = f"{colour} {name}"
        if key not in made:
            made[key] = texture(random, COLOURS[colour])
            made[f"{key} top"] = textures.plain(random, _mixed(colour, 0.9))
        surfaces.extend(box((x, y), 0.0, extent, key, f"{key} top", label=key))
        half = np.array([extent[0] / 2, extent[1] / 2, extent[2]])
        boxes.append([np.array([x, y, 0]) - half * (1, 1, 0), np.array([x, y, 0]) + half])
        words.append(key)

    length, width, _ = size
    names = [str(name) for name in random.permutation(list(FURNITURE))][:4]
    colours = [str(name) for name in random.permutation(SHADES)][:5]
    for number, (name, colour) in enumerate(zip(names, colours, strict=False)):
        texture, (long, deep, tall) = FURNITURE[name]
        place = float(random.uniform(0.3, 0.7)) if number % 2 else float(random.choice((0.14, 0.86)))
        margin = long / 2 + 0.05
        if number < 2:
            y = deep / 2 + 0.03 if number == 0 else width - deep / 2 - 0.03
            put(name, colour, texture, (long, deep, tall), float(np.clip(place * length, margin, length - margin)), y)
        else:
            x = deep / 2 + 0.03 if number == 2 else length - deep / 2 - 0.03
            put(name, colour, texture, (deep, long, tall), x, float(np.clip(place * width, margin, width - margin)))
    put("table", colours[4], textures.tiles, (1.1, 0.7, 0.45), length / 2, width / 2)
    return surfaces, words, boxes


def _mixed(colour: str, share: float) -> tuple[float, float, float]:
    """A paler form of a colour."""
    red, green, blue = (share * value + (1 - share) * 0.85 for value in COLOURS[colour])
    return red, green, blue


def _as(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
