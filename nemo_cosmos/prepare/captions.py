"""Captions for datasets that come without: one prompt for all videos or images, or a table of prompts."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath

from nemo_cosmos.atomic import write_text
from nemo_cosmos.data.clips import SHOWN, read_caption_file
from nemo_cosmos.data.images import IMAGE_SUFFIXES
from nemo_cosmos.data.listing import count_suffixes, find_videos, walk_files
from nemo_cosmos.data.rig import Rig
from nemo_cosmos.data.views import CAPTIONS_FOLDER, list_views
from nemo_cosmos.errors import InputError, require_file, require_text
from nemo_cosmos.prepare.sources import refuse_clips

logger = logging.getLogger(__name__)


def give_captions(dataset: str | Path, prompt: str, *, is_image: bool = False) -> list[Path]:
    """Write ``metas/NAME.txt`` with the prompt for every ``videos/NAME.mp4`` or ``images/NAME.jpg`` that has none.

    A caption that is there stays; the log says how many differ from the prompt.

    Args:
        dataset: folder with ``videos`` or ``images``, subfolders included.
        prompt: the caption.
        is_image: caption the images.

    Returns:
        The caption file of each, sorted.

    Raises:
        InputError: no videos or images, or a prompt that is no text.
    """
    require_text(prompt, "--prompt")
    root = Path(dataset)
    folder = root / ("images" if is_image else "videos")
    files = _find_media(folder, is_image)
    return _fill_captions(_caption_files(root, [path.relative_to(folder) for path in files]), prompt)


def give_view_captions(dataset: str | Path, rig: Rig, prompt: str, *, allow_others: bool = False) -> list[Path]:
    """Write ``metas/CAMERA/NAME.txt`` with the prompt for every ``videos/CAMERA/NAME.mp4`` of a rig that has none.

    Args:
        dataset: folder with ``videos``.
        rig: the cameras.
        prompt: the caption.
        allow_others: folders of other cameras may be there.

    Returns:
        The caption file of each, sorted.

    Raises:
        InputError: no videos, cameras that are missing or not of the rig, or a prompt that is no text.
    """
    require_text(prompt, "--prompt")
    root = Path(dataset)
    found = list_views(root, rig, allow_others=allow_others)
    refuse_clips(root, found.problems, len(found.names))
    metas = [root / CAPTIONS_FOLDER / camera for camera in rig.folders]
    names = [clip.relative.with_name(f"{clip.relative.name}.txt") for clip in found.clips]
    return _fill_captions([folder / name for folder in metas for name in names], prompt)


def prefixes(rig: Rig) -> dict[str, str]:
    """What is said of each camera's place, by the name of its file in ``cache``."""
    said = "Filmed by a camera on a moving car: the {} camera."
    return {
        f"prefix_t5_embeddings_{camera.folder}": camera.prefix or said.format(camera.name) for camera in rig.cameras
    }


def _fill_captions(files: Iterable[Path], prompt: str) -> list[Path]:
    """Write the prompt where there is no caption yet; gives all files, sorted."""
    captions = sorted(set(files))
    kept = []
    for path in captions:
        if path.is_file():
            kept.append(path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, prompt)
    different = [path for path in kept if read_caption_file(path) != prompt.strip()]
    if different:
        names = ", ".join(str(path) for path in different[:SHOWN]) + (", ..." if len(different) > SHOWN else "")
        logger.warning("%d captions differ from the prompt and stay; delete them to use it: %s", len(different), names)
    return captions


def _find_media(folder: Path, is_image: bool) -> list[Path]:
    if not folder.is_dir():
        other = folder.with_name("videos" if is_image else "images")
        advice = ("leave --is_image out" if is_image else "give --is_image") + f" for those in {other}"
        raise InputError(f"{folder} is missing{'; ' + advice if other.is_dir() else ''}")
    return find_images(folder) if is_image else find_videos(folder)


def find_images(folder: Path) -> list[Path]:
    """The images below a folder by their suffixes, sorted; InputError when there are none, counting what else is
    there."""
    files = walk_files(folder)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        others = f"; found {count_suffixes(files)}" if files else ""
        raise InputError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}){others}")
    return images


def _caption_files(root: Path, media: list[Path]) -> list[Path]:
    """``metas/DAY/NAME.txt`` for ``DAY/NAME.jpg``, or ``metas/NAME.txt`` where that is there and no other has the
    name."""
    stems = Counter(path.stem for path in media)
    found = []
    for path in media:
        own, flat = root / "metas" / path.with_name(f"{path.stem}.txt"), root / "metas" / f"{path.stem}.txt"
        found.append(flat if not own.is_file() and flat.is_file() and stems[path.stem] == 1 else own)
    return found


def captions_from_table(dataset: str | Path, table: str | Path, prefix: str = "") -> list[Path]:
    """Write ``metas/NAME.txt`` for each line ``FILE,PROMPT`` of a table, the prefix before the prompt.

    The first line is the header; what stands after the first comma is the prompt, with or without quotes around it.

    Returns:
        The caption files, sorted.

    Raises:
        InputError: no table, a line without a file name or prompt, or two prompts for one name.
    """
    metas = Path(dataset) / "metas"
    texts: dict[Path, str] = {}
    for number, row in _rows(Path(table)):
        where = f"{table} line {number}"
        if len(row) < 2 or not (name := PurePath(row[0].strip()).stem):
            raise InputError(f"{where}: expected FILE,PROMPT")
        text = f"{prefix.strip()} {','.join(row[1:]).strip()}".strip()
        require_text(text, where)
        path = metas / f"{name}.txt"
        if texts.setdefault(path, text) != text:
            raise InputError(f"{where}: {name} has another prompt above; every file needs a name of its own")
    if not texts:
        raise InputError(f"{table} holds no lines after its header; expected FILE,PROMPT")
    metas.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        if not path.is_file() or read_caption_file(path) != text:
            write_text(path, text)
    return sorted(texts)


def _rows(table: Path) -> list[tuple[int, list[str]]]:
    """The lines after the header, with their numbers."""
    require_file(table)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(row)]
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (csv.Error, OSError) as error:
        raise InputError(f"{table} cannot be read as CSV: {error}") from error
    return rows[1:]
