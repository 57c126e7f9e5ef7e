"""What every kind of clip is given and gives back: sizes, rates, draws; colours that all of them finish with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.scenes.worlds.pictures import Library, Material, Picture, draw_look, texture, tinted


@dataclass
class Stage:
    """One clip in the making.

    Attributes:
        random: all that is drawn comes from it.
        library: photographs and textures.
        size: (height, width) in pixels.
        frames: how many.
        fps: frames per second.
        used: names of the photographs and textures that have been taken.
    """

    random: np.random.Generator
    library: Library
    size: tuple[int, int]
    frames: int
    fps: float
    used: set[str] = field(default_factory=set)

    def still(self) -> Stage:
        """The same clip with one frame, for what does not move."""
        return Stage(self.random, self.library, self.size, 1, self.fps, self.used)

    @property
    def pixel(self) -> float:
        """Side of a pixel; the frame's height is 2."""
        return 2 / self.size[0]

    @property
    def aspect(self) -> float:
        return self.size[1] / self.size[0]

    @property
    def seconds(self) -> np.ndarray:
        """(T,) of the frames from 0."""
        return np.arange(self.frames) / self.fps

    def draw(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.random.uniform() < share)

    def choose(self, names: Sequence[str]) -> str:
        return names[int(self.random.integers(len(names)))]

    def photograph(self, *shows: str) -> Material:
        """A photograph in colours of its own, or a texture where there are no photographs."""
        if not self.library.photographs:
            return self.texture()
        return self.dressed(self.library.photograph(self.random, shows))

    def texture(self, *kinds: str) -> Material:
        """A procedural texture of one of the kinds, or of any."""
        return self.dressed(texture(self.random, kinds) if kinds else texture(self.random))

    def material(self, photographs: float = 0.7) -> Material:
        """A photograph with this probability, or else a texture."""
        return self.photograph() if self.chance(photographs) else self.texture()

    def dressed(self, picture: Picture) -> Material:
        """A picture in colours of its own; photographs keep nearer to those that they have."""
        self.used.add(picture.name)
        look = draw_look(self.random, grey=picture.grey, strength=1.0 if picture.tiles else 0.8)
        return Material(picture, look, -1.0 if self.chance(0.5) else 1.0)

    def painted(
        self, material: Material, colour: Sequence[float], share: float = 1.0, contrast: float = 1.0
    ) -> Material:
        """The same picture in one colour; see :func:`tinted`."""
        return Material(material.picture, tinted(material.picture, colour, share, contrast), material.flip)

    def points(self, finer: int = 1) -> Tensor:
        """(1, H, W, 2) middles (x, y) of the pixels, ``finer`` times as many in both directions."""
        height, width = self.size[0] * finer, self.size[1] * finer
        y = (torch.arange(height) + 0.5) / height * 2 - 1
        x = ((torch.arange(width) + 0.5) / width * 2 - 1) * self.aspect
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]

    def over_time(self, values: np.ndarray | float) -> Tensor:
        """(T,) or one number -> (T, 1, 1) for the arithmetic of frames."""
        values = np.broadcast_to(np.asarray(values, np.float32), (self.frames,))
        return torch.from_numpy(values.copy()).view(-1, 1, 1)


@dataclass(frozen=True)
class Clip:
    """What a kind of clip gives: (T, H, W, 3) uint8 frames and a caption that is true of them."""

    frames: np.ndarray
    caption: str


Render = Callable[[Stage], Clip]


def as_levels(colours: Tensor) -> np.ndarray:
    """(3, T, H, W) fp32 in 0..1, clipped -> (T, H, W, 3) uint8."""
    levels = (colours.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return levels.permute(1, 2, 3, 0).contiguous().numpy()


def blended(colours: Tensor, share: Tensor, found: Callable[[Tensor], Tensor]) -> Tensor:
    """The frames with something in front, which is looked up only where it is seen.

    Args:
        colours: (3, T, H, W).
        share: (T, H, W) how much of each pixel it covers.
        found: numbers (N,) of pixels of the T frames -> their (3, N) colours.
    """
    where = share.flatten().nonzero()[:, 0]
    result = colours.clone(memory_format=torch.contiguous_format)
    flat = result.view(3, -1)
    flat[:, where] = torch.lerp(flat[:, where], found(where).clamp_(0, 1), share.flatten()[where])
    return result


def graded(stage: Stage, colours: Tensor) -> Tensor:
    """Exposure, white balance, gamma and darker corners, the same for all frames."""
    balance = torch.tensor([stage.draw(0.93, 1.07) for _ in range(3)]).view(3, 1, 1, 1)
    colours = (colours * (balance * stage.draw(0.88, 1.1))).clamp_(0, 1)
    colours = colours ** stage.draw(0.85, 1.2)
    if stage.chance(0.25):
        away = (stage.points() ** 2).sum(-1)
        colours = colours * (1 - stage.draw(0.05, 0.22) * away / (1 + stage.aspect**2))
    return colours


def lit(stage: Stage, colours: Tensor) -> Tensor:
    """On some clips the light changes: the exposure drifts or swings, or a bright place wanders; on some there is
    noise."""
    share = np.linspace(0, 1, stage.frames)
    if stage.chance(0.15):
        colours = colours * stage.over_time(1 + stage.draw(-0.3, 0.3) * (share - 0.5))
    elif stage.chance(0.08):
        swing = np.sin(2 * np.pi * (stage.draw(0.5, 1.5) * share + stage.draw(0, 1)))
        colours = colours * stage.over_time(1 + stage.draw(0.04, 0.15) * swing)
    if stage.chance(0.12):
        x = stage.draw(-1, 1) * stage.aspect + stage.draw(-1.2, 1.2) * share
        y = stage.draw(-1, 1) + stage.draw(-0.8, 0.8) * share
        points = stage.points()
        away = (points[..., 0] - stage.over_time(x)) ** 2 + (points[..., 1] - stage.over_time(y)) ** 2
        colours = colours * (0.85 + stage.draw(0.15, 0.45) * torch.exp(-away / stage.draw(0.2, 0.8)))
    if stage.chance(0.15):
        grain = stage.random.standard_normal(colours.shape, np.float32) * stage.draw(0.003, 0.01)
        colours = colours + torch.from_numpy(grain)
    return colours
