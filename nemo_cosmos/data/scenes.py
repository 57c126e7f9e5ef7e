"""Scenes: pictures of one place with the pose of each, as a zip file or a folder.

Read are the zips of DL3DV (``HASH/images/*.png`` and ``HASH/transforms.json``, or both without the folder) and what
its downloader unpacks, folders of nerfstudio (``transforms.json`` and ``images``), and of COLMAP (``sparse/0`` and
``images``). Lower resolutions lie in ``images_2``, ``images_4``, ...; of several the smallest is read that is no
smaller than what is made of it. Nothing of a zip file is unpacked to the disk.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from torch import Tensor

from nemo_cosmos.camera.track import natural_order
from nemo_cosmos.data.archives import LARGEST_MEMBER, OpenArchive, look_into
from nemo_cosmos.data.images import IMAGE_SUFFIXES, image_of, image_sizes
from nemo_cosmos.data.listing import walk_files
from nemo_cosmos.errors import InputError, require_file

TRANSFORMS = "transforms.json"
SPARSE = ("sparse/0", "colmap/sparse/0", "sparse")
"""Where the model of COLMAP lies in a scene, by itself and in nerfstudio's folders."""
SHOWN = 5
_IMAGES = re.compile(r"images(_\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Scene:
    """A scene that has been found, not yet looked into.

    Attributes:
        name: of the zip file or folder; captions are found by it.
        path: the zip file or folder.
        max_unpacked: as in ``archives.look_into``.
        colmap: its poses are a model of COLMAP.
    """

    name: str
    path: Path
    max_unpacked: int | None = None
    colmap: bool = False

    @property
    def packed(self) -> bool:
        return self.path.suffix.lower() == ".zip"


class Files(Protocol):
    """The files of a scene by their names below its root, with ``/`` between folders."""

    @property
    def names(self) -> Sequence[str]: ...
    def read(self, name: str) -> bytes: ...
    def stream(self, name: str) -> Any:
        """For reading the beginning."""

    def where(self, name: str) -> str:
        """For people."""


class _Unpacked:
    """Files of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = [path.relative_to(root).as_posix() for path in walk_files(root)]

    def read(self, name: str) -> bytes:
        require_file(self.root / name)
        if (self.root / name).stat().st_size > LARGEST_MEMBER:
            raise InputError(f"{self.root / name} is larger than any picture")
        return (self.root / name).read_bytes()

    def stream(self, name: str) -> Any:
        require_file(self.root / name)
        return (self.root / name).open("rb")

    def where(self, name: str) -> str:
        return str(self.root / name)


class _Packed:
    """Wanted members of a zip file, those of one folder where all lie in one."""

    def __init__(self, archive: OpenArchive) -> None:
        self.archive = archive
        members = list(archive.archive.members)
        poses = [name for name in members if PurePosixPath(name).name == TRANSFORMS]
        if not poses:
            raise InputError(f"{archive.archive.path} holds no {TRANSFORMS}: there are no poses")
        top = str(PurePosixPath(min(poses, key=lambda name: (name.count("/"), name))).parent)
        self.prefix = "" if top == "." else f"{top}/"
        self.names = [name.removeprefix(self.prefix) for name in members if name.startswith(self.prefix)]

    def read(self, name: str) -> bytes:
        return self.archive.read(self.prefix + name)

    def stream(self, name: str) -> Any:
        return self.archive.stream(self.prefix + name)

    def where(self, name: str) -> str:
        return f"{self.archive.archive.path}: {self.prefix}{name}"


@contextmanager
def open_files(scene: Scene) -> Iterator[Files]:
    """The files of a scene; InputError where there is no readable zip file, or one that is not read."""
    if not scene.packed:
        yield _Unpacked(scene.path)
        return
    with look_into(scene.path, scene.max_unpacked).open() as archive:
        yield _Packed(archive)


def find_scenes(
    root: Path, *, colmap: bool, zips: bool, max_unpacked: int | None = None, apart: Sequence[Path] = ()
) -> list[Scene]:
    """The scenes below a folder, sorted by name; the folder may be one itself, or a zip file.

    Args:
        root: where to look; a folder that is a scene is not searched any further.
        colmap: folders with a model of COLMAP are scenes, otherwise those with a ``transforms.json``.
        zips: zip files are scenes, too.
        max_unpacked: as in ``archives.look_into``.
        apart: folders that are not searched.

    Raises:
        InputError: nothing is there, or two scenes have one name. A zip file beside its unpacked folder is one scene.
    """
    if root.is_file() and root.suffix.lower() == ".zip" and zips:
        return [Scene(root.stem, root, max_unpacked)]
    if not root.is_dir():
        raise InputError(f"{root} is neither a folder nor a file of scenes")
    paths = _search(root, is_colmap_scene if colmap else is_transforms_scene, zips, apart)
    found = [Scene(_name(path), path, max_unpacked, colmap and path.is_dir()) for path in paths]
    packed = {scene.path.with_suffix("") for scene in found if scene.packed}
    scenes = sorted((s for s in found if s.packed or s.path not in packed), key=lambda scene: scene.name)
    counts = Counter(scene.name for scene in scenes)
    if twice := [str(scene.path) for scene in scenes if counts[scene.name] > 1]:
        raise InputError(f"{len(twice)} scenes share a name: {', '.join(twice[:SHOWN])}; every scene needs its own")
    return scenes


def _name(path: Path) -> str:
    path = path if path.name else path.resolve()
    return path.stem if path.suffix.lower() == ".zip" else path.name


def _search(root: Path, is_scene: Callable[[Path], bool], zips: bool, apart: Sequence[Path]) -> Iterator[Path]:
    apart_from = {path.resolve() for path in apart}
    for parent, folders, files in os.walk(root):
        folder = Path(parent)
        if folder.resolve() in apart_from:
            folders.clear()
        elif is_scene(folder):
            folders.clear()
            yield folder
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if zips:
                yield from (folder / n for n in sorted(files) if n.lower().endswith(".zip") and not n.startswith("."))


def is_transforms_scene(folder: Path) -> bool:
    """A folder with a ``transforms.json``."""
    return (folder / TRANSFORMS).is_file()


def is_colmap_scene(folder: Path) -> bool:
    """A folder with a model of COLMAP."""
    return sparse_folder(folder) is not None


def sparse_folder(folder: Path) -> Path | None:
    """Where a folder has a model of COLMAP, text or binary; None where it has none."""
    places = (folder / place for place in SPARSE)
    return next((p for p in places if (p / "cameras.bin").is_file() or (p / "cameras.txt").is_file()), None)


def choose_images(
    names: Sequence[str],
    posed: Sequence[str],
    where: str,
    least: tuple[int, int],
    size_of: Callable[[str], tuple[int, int]],
) -> list[str]:
    """The pictures of a scene, of the folder that has most of the posed ones, in the order of their names.

    Args:
        names: files of the scene.
        posed: names of pictures as the poses have them; their folders may be others.
        where: the scene, for errors.
        least: (height, width) that a picture should have.
        size_of: (height, width) of a picture.

    Raises:
        InputError: a name occurs twice, but for its suffix, or no picture has a pose.
    """
    stems = set(map(_stem, posed))
    folders: dict[str, list[str]] = {}
    for name in names:
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    matching = {folder: sum(_stem(name) in stems for name in files) for folder, files in folders.items()}
    most = max(matching.values(), default=0)
    if not most:
        raise InputError(
            f"{where}: none of {len(posed)} posed pictures is there, such as {posed[0][:100]!r}: expected them in "
            "images/"
        )
    # A folder of few pictures beside a full one, such as thumbnails, is not the scene's.
    full = [folder for folder, count in matching.items() if count == most]
    theirs = {str(PurePosixPath(name).parent) for name in posed}
    named = [folder for folder in full if folder in theirs or _IMAGES.fullmatch(PurePosixPath(folder).name)] or full
    first = {folder: next(name for name in folders[folder] if _stem(name) in stems) for folder in named}
    chosen = _smallest_that_fits(named, {folder: size_of(name) for folder, name in first.items()}, least)
    files = sorted(folders[chosen], key=natural_order)
    if twice := [stem for stem, count in Counter(map(_stem, files)).items() if count > 1]:
        raise InputError(
            f"{where}: {len(twice)} frames are there twice in {chosen}, such as {twice[0][:100]!r}: every picture "
            "needs its own name"
        )
    return files


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).stem


def _smallest_that_fits(folders: Sequence[str], sizes: dict[str, tuple[int, int]], least: tuple[int, int]) -> str:
    """The folder with the smallest pictures that are not smaller than ``least``; the largest where all are."""
    large = [
        folder for folder in folders if all(side >= need for side, need in zip(sizes[folder], least, strict=True))
    ]
    if large:
        return min(large, key=lambda folder: (sizes[folder], folder))
    return min(folders, key=lambda folder: (-sizes[folder][0], folder))


@dataclass(frozen=True)
class Pictures:
    """The pictures of a scene in the order of their names, all of one size.

    Attributes:
        files: where they are read from.
        names: of the files.
        size: (height, width) as they are given.
        upright: they are turned as their camera was held.
    """

    files: Files
    names: list[str]
    size: tuple[int, int]
    upright: bool = True

    def __getitem__(self, index: int) -> Tensor:
        """(3, H, W) uint8; InputError where the picture does not decode or has another size."""
        name = self.names[index]
        image = image_of(self.files.read(name), self.files.where(name), upright=self.upright)
        if tuple(image.shape[1:]) != self.size:
            raise InputError(f"{self.files.where(name)} has another size than its first bytes said")
        return image


def sizes_of(files: Files, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of a picture as stored, and upright."""
    with files.stream(name) as stream:
        return image_sizes(stream, files.where(name))


def open_pictures(files: Files, names: list[str], described: tuple[int, int] | None, where: str) -> Pictures:
    """The pictures of files, whose poses were made of pictures of ``described`` (height, width).

    Raises:
        InputError: they differ in size, or are turned against what the poses say.
    """
    sizes = [sizes_of(files, name) for name in names]
    counts = Counter(upright for _, upright in sizes)
    if len(counts) > 1:
        (size, _), *_, (other, _) = counts.most_common()
        odd = names[[upright for _, upright in sizes].index(other)]
        raise InputError(
            f"{where}: {odd} has {_shown(other)} pixels, others have {_shown(size)}: the poses describe one size"
        )
    stored, upright = sizes[0]
    if described is None or alike(upright, described):
        return Pictures(files, names, upright)
    if alike(stored, described):
        return Pictures(files, names, stored, upright=False)
    if alike(upright, described[::-1]) and not alike(described, described[::-1]):
        raise InputError(
            f"{where}: the poses were made of pictures of {_shown(described)} pixels, these have {_shown(upright)}: "
            "they are turned"
        )
    return Pictures(files, names, upright)


def alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether pictures have one shape but for the rounding of their sides."""
    expected = size[1] * other[0] / other[1]
    return abs(size[0] - expected) <= 1 + 0.01 * size[0]


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
