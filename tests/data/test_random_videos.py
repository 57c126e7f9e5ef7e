"""Random files: what becomes a sample is what their maker meant to be seen, frame by frame."""

import gc
import random
from dataclasses import dataclass, fields
from fractions import Fraction

import av
import numpy as np
import pytest

from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.video import cut, probe
from nemo_cosmos.data.windows import WindowPlan, windows_of
from nemo_cosmos.errors import InputError
from tests.data.odd_videos import LOSSLESS, ORIENTATIONS, encode, numbered, numbers, remux, set_matrix, stored_for


@pytest.fixture(scope="module", autouse=True)
def free_decoders():
    """Tests that fork workers come after these: nothing with threads may be left to be freed there."""
    yield
    gc.collect()


SIZE = (64, 96)


@dataclass
class Film:
    """How a file is made, and what of it is to be seen.

    Attributes:
        count: frames encoded.
        rate: frames a second.
        keys: frames between key frames.
        reordered: B-frames in a row.
        hidden: frames that an edit list hides.
        matrix: display matrix.
        aspect: of a stored pixel.
        colours: matrix and range of the samples.
        pix_fmt: of the samples.
        cover: a picture comes as the first stream.
        container: suffix.
    """

    count: int
    rate: Fraction
    keys: int
    reordered: int
    hidden: int
    matrix: tuple[int, int, int, int]
    aspect: Fraction
    colours: tuple[int, bool]
    pix_fmt: str
    cover: bool
    container: str

    @classmethod
    def draw(cls, seed: int) -> "Film":
        draw = random.Random(seed)
        container = draw.choice(["mp4", "mp4", "mov", "mkv", "ts"])
        indexed = container in ("mp4", "mov")
        return cls(
            count=draw.randint(18, 40),
            rate=draw.choice([Fraction(10), Fraction(24), Fraction(30000, 1001), Fraction(25), Fraction(60)]),
            keys=draw.choice([1, 5, 12, 250]),
            reordered=draw.choice([0, 1, 2, 3]),
            hidden=draw.choice([0, 0, 3, 7, 11]) if indexed else 0,
            matrix=ORIENTATIONS[seed % 8] if indexed else ORIENTATIONS[0],
            aspect=draw.choice([Fraction(1), Fraction(1), Fraction(4, 3), Fraction(2, 3)]),
            colours=(draw.choice([1, 2, 6, 9]), draw.random() < 0.3),
            pix_fmt=draw.choice(["yuv420p", "yuv420p", "yuv422p", "yuv444p", "yuv420p10le"]),
            cover=container == "mkv" and draw.random() < 0.5,
            container=container,
        )

    def make(self, folder):
        """Write the file."""
        path, images = folder / f"film.{self.container}", []
        # The stored picture is upright as wide as its pixels are narrow; a turned one has its sides exchanged.
        turned = self.matrix[0] == 0
        for number in range(self.count):
            image = stored_for(numbered(number, SIZE[1], SIZE[0]), self.matrix)
            width = int(image.shape[1] / self.aspect)
            columns = ((np.arange(width) + 0.5) * image.shape[1] / width).astype(int)
            images.append(image[:, columns])
        assert turned == (images[0].shape[0] == SIZE[1])
        options = {**LOSSLESS, "g": str(self.keys), "bf": str(self.reordered)}
        matrix, full_range = self.colours
        arguments = {"rate": self.rate, "options": options, "pix_fmt": self.pix_fmt, "aspect": self.aspect}
        encode(path, images, matrix=matrix, full_range=full_range, **arguments)
        if self.hidden or self.cover:
            cover = None
            if self.cover:
                cover = encode(
                    folder / "cover.mkv",
                    [numbered(99, 48, 32)],
                    codec="mjpeg",
                    pix_fmt="yuvj420p",
                    options={},
                    full_range=True,
                )
            path = remux(path, folder / f"copy.{self.container}", hide=float(self.hidden / self.rate), before=cover)
        if self.matrix != ORIENTATIONS[0]:
            set_matrix(path, *self.matrix)
        return path

    @property
    def shown(self):
        return list(range(self.hidden, self.count))


def sample(path, frames, **plan):
    """(T, H, W, 3) frames and rate that prepare encodes."""
    clip = Clip("clip", path, path.name, caption="")
    window = next(windows_of(clip, WindowPlan(frames, SIZE, **plan), 8))
    return window.frames.permute(1, 2, 3, 0).numpy(), window


def decoded_count(path):
    """Frames that plain PyAV decodes of the larger video stream."""
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda s: s.width * s.height)
        return sum(1 for _ in container.decode(stream))


def close(frames, truth):
    """Edges of bars are blurred where chroma or pixels were resampled, so in the mean."""
    return np.abs(frames.astype(float) - truth).mean() < 4


@pytest.mark.parametrize("seed", range(40))
def test_samples_are_what_is_shown(tmp_path, seed):
    film = Film.draw(seed)
    path = film.make(tmp_path)
    truth = [numbered(number, SIZE[1], SIZE[0]) for number in film.shown]
    info = probe(path)
    assert info.frames == len(truth) == decoded_count(path), film
    assert (info.height, info.width, info.variable_rate, info.damage) == (*SIZE, False, ""), film
    assert info.fps == pytest.approx(float(film.rate), rel=1e-3), film
    frames, window = sample(path, len(truth))
    assert numbers(frames) == film.shown, film
    assert close(frames, truth), film
    assert window.source_size == SIZE and window.fps == pytest.approx(float(film.rate), rel=1e-3)
    for plan in ({}, {"fps": float(film.rate)}):
        with pytest.raises(InputError, match="too short"):
            sample(path, len(truth) + 1, **plan)
    begin, end = len(truth) // 4, len(truth) - 2
    cut(path, tmp_path / "cut.mp4", float(begin / film.rate), float(end / film.rate))
    frames, window = sample(tmp_path / "cut.mp4", end - begin)
    assert numbers(frames) == film.shown[begin:end] and close(frames, truth[begin:end]), film
    assert window.fps == pytest.approx(float(film.rate), rel=1e-3)


def test_the_films_differ():
    """The draws reach every choice."""
    films = [Film.draw(seed) for seed in range(40)]
    for field in fields(Film):
        assert len({str(getattr(film, field.name)) for film in films}) >= 2, field.name
    assert {film.matrix for film in films} == set(ORIENTATIONS)
