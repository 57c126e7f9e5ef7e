"""The list of requests that Predict2's Video2World inference takes, made from a folder of images with captions."""

from __future__ import annotations

from pathlib import Path

from nemo_cosmos.atomic import write_json
from nemo_cosmos.data.clips import SHOWN, read_caption_file
from nemo_cosmos.data.listing import unique_names
from nemo_cosmos.errors import InputError, require_replaceable, require_writable
from nemo_cosmos.prepare.captions import find_images


def batch_requests(dataset: str | Path, save_path: str | Path) -> list[dict[str, str]]:
    """One ``{"input_video", "prompt", "output_video"}`` for each image, sorted by name.

    Args:
        dataset: folder of ``NAME.jpg`` beside ``NAME.txt``, or with ``images/NAME.jpg`` and ``metas/NAME.txt``.
        save_path: folder that the videos shall be written to.

    Raises:
        InputError: no images, an image without caption, or a caption that is not UTF-8.
    """
    root = Path(dataset)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: expected one with images and their captions")
    inner = (root / "images").is_dir()
    folder, texts = (root / "images", root / "metas") if inner else (root, root)
    images = find_images(folder)
    paths = [image.relative_to(folder) for image in images]
    captions = [texts / path.with_name(f"{path.stem}.txt") for path in paths]
    missing = [str(caption) for caption in captions if not caption.is_file()]
    if missing:
        names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise InputError(f"{len(missing)} of {len(images)} images have no caption: {names} missing; write them")
    return [
        {
            "input_video": str(image),
            "prompt": read_caption_file(caption),
            "output_video": str(Path(save_path) / f"{name}.mp4"),
        }
        for image, caption, name in zip(images, captions, unique_names(paths), strict=True)
    ]


def write_batch_input(dataset: str | Path, save_path: str | Path, output: str | Path) -> int:
    """Write :func:`batch_requests` as JSON; returns how many.

    Raises:
        InputError: as there, or the file cannot be written.
    """
    output = Path(output)
    require_replaceable(output)
    require_writable(output.parent)
    requests = batch_requests(dataset, save_path)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, requests)
    return len(requests)
