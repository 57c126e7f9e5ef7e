"""Images with captions, each a clip of one frame: ``images/*.jpg``, ``metas/*.txt``, perhaps ``t5_xxl/*.pickle``."""

from __future__ import annotations

from pathlib import Path, PurePath

from nemo_cosmos.data.clips import IMAGES
from nemo_cosmos.data.listing import is_video_name, numbered_lines, walk_files
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sources.clips import ClipSource
from nemo_cosmos.typed import parse_json


class ImageSource(ClipSource):
    """The layouts of clips with images in the place of videos."""

    kind = "images"
    frames = 1
    media = IMAGES

    def reads(self, path: Path) -> bool:
        """A list that names images, or a folder of images without any video."""
        if path.is_file():
            return _names_images(path)
        if not path.is_dir() or (path / "videos").is_dir():
            return False
        if lists := sorted(path.glob("*.jsonl")):
            return _names_images(lists[0])
        files = walk_files(path)
        return any(map(_is_image_name, files)) and not any(map(is_video_name, files))


def _names_images(file: Path) -> bool:
    """Whether the first line of a list names an image."""
    try:
        _, line = next(numbered_lines(file))
        values = parse_json(line)
    except (InputError, ValueError, StopIteration):
        return False  # Reading it as a list of clips says what is wrong.
    if not isinstance(values, dict) or "video" in values:
        return False
    name = values.get("file_name")
    return "image" in values or (isinstance(name, str) and _is_image_name(PurePath(name)))


def _is_image_name(path: PurePath) -> bool:
    return path.suffix.lower() in IMAGES.suffixes
