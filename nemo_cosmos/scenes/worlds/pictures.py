"""What surfaces of a clip are covered with: photographs and procedural textures, in colours drawn for each clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nemo_cosmos.scenes import textures
from nemo_cosmos.scenes.photographs import Photograph, read_photograph
from nemo_cosmos.scenes.textures import COLOURS, Texture
from nemo_cosmos.scenes.words import with_article

TEXTURES: dict[str, Texture] = {
    "brick": textures.bricks,
    "striped": textures.wallpaper,
    "plaster": textures.plaster,
    "wooden": textures.planks,
    "tiled": textures.tiles,
    "carpet": textures.carpet,
    "crate": textures.crate,
    "book": textures.books,
    "picture": textures.picture,
    "facade": textures.facade,
    "asphalt": textures.asphalt,
    "pavement": textures.pavement,
    "leaves": textures.leaves,
    "bark": textures.bark,
    "clouds": textures.clouds,
    "plain": textures.plain,
}
"""By the words that captions use."""
VARIANTS = 4
"""Forms of each texture; drawing one takes longer than a clip."""


class Picture:
    """Pixels at halving sizes, for looking up without flicker. Its height is 2, the middle (0, 0).

    Args:
        pixels: (H, W, 3) uint8.
        name: of the photograph or texture.
        shows: what captions call it.
        tiles: it repeats outside without a seam; otherwise mirrored.
    """

    def __init__(self, pixels: np.ndarray, name: str, shows: str, *, tiles: bool = False) -> None:
        self.name, self.shows, self.tiles = name, shows, tiles
        self.height, self.width = pixels.shape[:2]
        level = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        self.grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
        self.levels = [level]
        while min(level.shape[2:]) >= 8:
            level = F.interpolate(level, size=(level.shape[2] // 2, level.shape[3] // 2), mode="area")
            self.levels.append(level)
        self.mean = float(level.mean())
        if tiles:
            self.levels = [F.pad(level, (1, 1, 1, 1), mode="circular") for level in self.levels]

    @property
    def aspect(self) -> float:
        return self.width / self.height

    def at(self, points: Tensor, level: int) -> Tensor:
        """(T, H, W, 2) points (x, y) -> (3, T, H, W) colours of one size."""
        frames, height, width, _ = points.shape
        grid = points.reshape(1, frames * height, width, 2) / torch.tensor([self.aspect, 1.0])
        pixels = self.levels[level]
        if self.tiles:
            grid = (grid + 1).remainder_(2) - 1
            grid = grid * torch.tensor([1 - 2 / pixels.shape[3], 1 - 2 / pixels.shape[2]])
        found = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
        return found.view(3, frames, height, width)

    def level(self, pixel: float) -> float:
        """The size, 0 the largest, at which a pixel of the frame covers a pixel of the picture.

        Args:
            pixel: what a pixel of the frame covers, in units of the picture.
        """
        return math.log2(max(pixel * self.height / 2, 1e-6))


@dataclass(frozen=True)
class Look:
    """Colours c become ``matrix`` @ c + ``offset``, clipped; (3, 3) and (3,)."""

    matrix: Tensor
    offset: Tensor

    def __call__(self, colours: Tensor) -> Tensor:
        mixed = torch.einsum("ij,j...->i...", self.matrix, colours)
        return (mixed + self.offset.view(3, *[1] * (colours.dim() - 1))).clamp_(0, 1)


@dataclass(frozen=True)
class Material:
    """A picture with a look, turned round where ``flip`` is -1."""

    picture: Picture
    look: Look
    flip: float = 1.0

    def at(self, points: Tensor, pixel: float) -> Tensor:
        """(T, H, W, 2) points -> (3, T, H, W) colours, where a pixel of the frame covers about ``pixel`` units."""
        level = int(min(max(round(self.picture.level(pixel) - 0.2), 0), len(self.picture.levels) - 1))
        return self.look(self.picture.at(self._turned(points), level))

    def at_some(self, points: Tensor, pixel: float) -> Tensor:
        """As :meth:`at`, for (N, 2) points -> (3, N)."""
        return self.at(points[None, None], pixel)[:, 0, 0]

    def at_sizes(self, points: Tensor, pixels: Tensor) -> Tensor:
        """As :meth:`at`, for (T, H, W) sizes of pixels that differ over the frame: linear between sizes."""
        largest = len(self.picture.levels) - 1
        levels = torch.log2((pixels * (self.picture.height / 2)).clamp_min(1e-6)).clamp_(0, largest)
        points = self._turned(points)
        first, last = int(levels.min()), min(int(levels.max()) + 1, largest)
        found = torch.zeros(3, *points.shape[:3])
        for level in range(first, last + 1):
            share = (1 - (levels - level).abs()).clamp_min(0)
            found += self.picture.at(points, level) * share
        return self.look(found)

    def _turned(self, points: Tensor) -> Tensor:
        return points if self.flip > 0 else points * torch.tensor([-1.0, 1.0])


def draw_look(random: np.random.Generator, *, grey: bool = False, strength: float = 1.0) -> Look:
    """Other hue, saturation, contrast and brightness; a grey picture gets two tones."""
    if grey and random.uniform() < 0.7:
        dark, light = random.uniform(0, 0.25, 3), random.uniform(0.55, 1.0, 3)
        matrix, offset = np.tile((light - dark)[:, None] / 3, (1, 3)), dark
    else:
        turn = random.normal(0, 0.12) if random.uniform() < 0.85 else random.uniform(-math.pi, math.pi)
        matrix = _hue(turn * strength) @ _saturation(1 + strength * random.uniform(-0.4, 0.35))
        contrast, middle = 1 + strength * random.uniform(-0.2, 0.2), 0.5 + strength * random.uniform(-0.08, 0.08)
        matrix, offset = matrix * contrast, np.full(3, middle - 0.5 * contrast)
    return Look(_tensor(matrix), _tensor(offset))


def tinted(picture: Picture, colour: Sequence[float], share: float = 1.0, contrast: float = 1.0) -> Look:
    """A picture in one colour, which is that of its mean brightness.

    Args:
        colour: RGB in 0..1.
        share: below 1 leaves some of the picture's own colours.
        contrast: of the brightness, about the mean.
    """
    tone = np.array(colour)[:, None] * contrast / max(picture.mean, 0.1) * np.array([[0.3, 0.59, 0.11]])
    offset = np.array(colour) * (1 - contrast)
    return Look(_tensor(share * tone + (1 - share) * np.eye(3)), _tensor(share * offset))


def _hue(angle: float) -> np.ndarray:
    """(3, 3) turn about the grey axis."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return cos * np.eye(3) + sin * cross + (1 - cos) / 3


def _saturation(amount: float) -> np.ndarray:
    return amount * np.eye(3) + (1 - amount) / 3


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32).copy())


class Library:
    """Photographs and textures, read or drawn when first asked for.

    Args:
        photographs: may be none.
    """

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self.photographs = tuple(photographs)
        self._read: dict[str, Picture] = {}
        weights = np.array([photograph.weight for photograph in self.photographs])
        self._weights = weights / weights.sum() if len(weights) else weights

    def photograph(self, random: np.random.Generator, shows: Sequence[str] = ()) -> Picture:
        """One of the photographs, of those that show one of ``shows`` where any does."""
        chosen = [p for p in self.photographs if p.shows in shows]
        if chosen:
            found = chosen[int(random.integers(len(chosen)))]
        else:
            found = self.photographs[int(random.choice(len(self.photographs), p=self._weights))]
        if found.name not in self._read:
            self._read[found.name] = Picture(read_photograph(found), found.name, found.shows)
        return self._read[found.name]


def texture(random: np.random.Generator, kinds: Sequence[str] = tuple(TEXTURES)) -> Picture:
    """A procedural texture of one of ``kinds``."""
    return _texture(str(kinds[int(random.integers(len(kinds)))]), int(random.integers(VARIANTS)))


@cache
def _texture(kind: str, variant: int) -> Picture:
    random = np.random.default_rng((list(TEXTURES).index(kind), variant))
    colour = str(random.choice([name for name in COLOURS if name != "black"]))
    pixels = np.clip(TEXTURES[kind](random, COLOURS[colour]), 0, 1)[::-1]
    return Picture(
        np.rint(pixels * 255).astype(np.uint8), f"{kind} texture {variant}", f"{with_article(kind)} wall", tiles=True
    )
