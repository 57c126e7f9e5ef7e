"""Photographs that Python packages ship, free to use: which ones, under which licence, and where they are.

The packages are looked for and never imported: their picture files alone are enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nemo_cosmos.errors import InputError

LARGEST_SIDE = 720
"""Pixels; larger photographs are made smaller when they are read."""
CC0 = "CC0 1.0"
PUBLIC_DOMAIN = "public domain"


@dataclass(frozen=True)
class Photograph:
    """One picture file of a package.

    Attributes:
        package: name of the distribution.
        folder: importable name of its package, and the folder in it that holds its pictures.
        file: name of the file in there.
        shows: what captions call it.
        weight: how often it is drawn beside the others.
        licence: what its package says of it, and who made it where that must be said.
        sha256: of the file.
    """

    package: str
    folder: str
    file: str
    shows: str
    weight: float
    licence: str
    sha256: str

    @property
    def name(self) -> str:
        return self.file.partition(".")[0]


def _of_skimage(*about: Any) -> Photograph:
    return Photograph("scikit-image", "skimage/data", *about)


def _of_sklearn(*about: Any) -> Photograph:
    return Photograph("scikit-learn", "sklearn/datasets/images", *about)


PHOTOGRAPHS = (
    _of_skimage(
        "astronaut.png", "a woman", 2.0, f"{PUBLIC_DOMAIN}, NASA",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    _of_skimage(
        "brick.png", "a tiled wall", 0.6, CC0,
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    ),
    _of_skimage(
        "camera.png", "a man and a camera", 1.5, f"{CC0}, Lav Varshney",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    ),
    _of_skimage(
        "cell.png", "a cell", 0.2, CC0,
        "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
    ),
    _of_skimage(
        "chelsea.png", "a cat", 2.0, f"{CC0}, Stefan van der Walt",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    _of_sklearn(
        "china.jpg", "a house", 2.5, "CC BY 2.0, danielbuechele (flickr.com/photos/danielbuechele/6061409035)",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    ),
    _of_skimage(
        "coffee.png", "a cup on a table", 2.5, f"{CC0}, Rachel Michetti, courtesy of Pikolo Espresso Bar",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    _of_skimage(
        "coins.png", "coins", 0.7, "no known copyright restrictions, Brooklyn Museum Collection",
        "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    ),
    _of_sklearn(
        "flower.jpg", "a flower", 2.0, "CC BY 2.0, vultilion (flickr.com/photos/vultilion/6056698931)",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
    ),
    _of_skimage(
        "grass.png", "grass", 0.5, CC0,
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    ),
    _of_skimage(
        "gravel.png", "gravel", 0.5, CC0,
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    ),
    _of_skimage(
        "hubble_deep_field.jpg", "stars", 0.5, f"{PUBLIC_DOMAIN}, NASA",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    _of_skimage(
        "ihc.png", "tissue", 0.4, "no known copyright restrictions, Center for Microscopy And Molecular Imaging",
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    ),
    _of_skimage(
        "retina.jpg", "an eye", 0.3, CC0,
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    ),
    _of_skimage(
        "rocket.jpg", "a rocket", 2.0, f"{PUBLIC_DOMAIN}, SpaceX",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    _of_skimage(
        "text.png", "text", 0.4, PUBLIC_DOMAIN,
        "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
    ),
)  # fmt: skip
"""All that clips are made of; another choice, or another file of the same name, would give other clips."""


def photograph_path(photograph: Photograph) -> Path:
    """Where a photograph is, unread.

    Raises:
        InputError: its package, or the file in it, is not there.
    """
    name, _, folder = photograph.folder.partition("/")
    spec = find_spec(name)
    places = [Path(place) / folder for place in (spec.submodule_search_locations or ())] if spec else []
    for place in places:
        if (place / photograph.file).is_file():
            return place / photograph.file
    where = f"{places[0]} has no {photograph.file}" if places else f"the package {photograph.package} is not installed"
    raise InputError(
        f'the photograph {photograph.file} is missing: {where}; pip install "nemo_cosmos[tiny]", or pass '
        "--without-photos"
    )


def read_photograph(photograph: Photograph) -> np.ndarray:
    """(H, W, 3) uint8 pixels, at most :data:`LARGEST_SIDE` on a side.

    Raises:
        InputError: it is missing, or is another file than the listed one.
    """
    path = photograph_path(photograph)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != photograph.sha256:
        raise InputError(
            f"{path} has the sha256 {digest}, not {photograph.sha256}: clips would be others than those of the list; "
            'pip install "nemo_cosmos[tiny]" for the file that is meant, or pass --without-photos'
        )
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def require_photographs(photographs: Iterable[Photograph] = PHOTOGRAPHS) -> None:
    """InputError unless all are there and are the listed files."""
    for photograph in photographs:
        read_photograph(photograph)
