"""Read and write image files. Those read are told by their content, whatever their suffix is.

Images come as a browser shows them: upright, the first picture of several, in sRGB, transparency on white, 8 bits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.atomic import write_bytes
from nemo_cosmos.errors import InputError, require_file

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "JPEG2000", "PPM")
"""What counts as an image, by Pillow's names."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp")
"""Suffixes by which people name images; what a file is, its content says."""
IMAGE_FORMATS = ("jpg", "jpeg", "png")
"""What images are written as, by suffix."""
JPEG_QUALITY = 85
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Marks of HEIC files, which phones write and Pillow does not read."""
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_ADVICE = "save it as JPEG, PNG or AVIF"
_DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error),
    *(TypeError, LookupError, OverflowError, MemoryError),
)
"""What Pillow's readers raise on damaged files."""
WHITE = (255, 255, 255, 255)
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
"""The EXIF tag of how a camera was held, and its values for which rows are columns."""
_16_BIT_PER_LEVEL = 257
"""65535 / 255: white of 16 bits is white of 8."""


def is_image(path: str | Path) -> bool:
    """Whether a file's content is an image, an animated one included.

    Raises:
        InputError: the file is missing or unreadable, or a HEIC or JPEG XL photo, which cannot be read.
    """
    from PIL import Image

    path = Path(path)
    head = _head(path)
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Image.DecompressionBombError:
        return True  # Reading says that it is too large.
    except _DAMAGE as error:
        if kind := _unread_kind(head):
            raise InputError(f"{path} is a {kind}, which cannot be read here: {_ADVICE}") from error
        return False


def read_image(path: str | Path) -> Tensor:
    """(3, H, W) uint8 RGB, upright; transparency is blended on white, 16-bit gray v becomes v / 257.

    An embedded colour profile is converted to sRGB. Of animations and multi-page files it is the first picture.

    Raises:
        InputError: the file is missing, empty or does not decode, or holds numbers without a defined white.
    """
    path = Path(path)
    head = _head(path)
    if not head:
        raise InputError(f"{path} is empty (zero bytes)")
    with _opened(path, head, path) as opened:
        return pixels_of(opened, path)


def image_of(content: bytes, name: str | Path, *, upright: bool = True) -> Tensor:
    """:func:`read_image` of the content of a file; ``name`` stands for it in errors.

    Args:
        upright: turn what its camera marked as turned; False gives rows and columns as they are stored.
    """
    with _opened(io.BytesIO(content), content[:12], name) as opened:
        return pixels_of(opened, name, upright=upright)


def image_sizes(stream: Any, name: str | Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of an image as it is stored, and upright, from the beginning of its file.

    Raises:
        InputError: it is no image that can be read.
    """
    with _opened(stream, b"", name) as opened:
        width, height = opened.size
        turned = opened.getexif().get(_ORIENTATION, 1) in _TURNED
    return (height, width), (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened(file: Any, head: bytes, name: str | Path) -> Iterator[Image.Image]:
    """An image to be decoded; InputError where it cannot be."""
    from PIL import Image

    try:
        with Image.open(file, formats=_formats()) as opened:
            yield opened
    except InputError:
        raise
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        kind = _unread_kind(head)
        reason = f"it is a {kind}; {_ADVICE}" if kind else str(error)
        raise InputError(f"{name} cannot be read as an image: {reason}") from error


def pixels_of(opened: Image.Image, name: str | Path, *, upright: bool = True) -> Tensor:
    """What :func:`read_image` gives of an image that Pillow has opened or made; ``name`` stands for it in errors.

    Raises:
        InputError: it does not decode, or holds numbers without a defined white.
    """
    from PIL import ImageOps

    try:
        opened.load()
        image = ImageOps.exif_transpose(opened) if upright else opened
        array = np.array(_to_rgb(image, name))
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{name} cannot be read as an image: {error}") from error
    return torch.from_numpy(array).permute(2, 0, 1)


def write_image(path: Path, image: Tensor, quality: int | None = None) -> None:
    """Write (3, H, W) uint8 RGB in the format of the suffix, one of ``IMAGE_FORMATS``.

    Args:
        path: appears when the file is complete.
        image: pixels.
        quality: of JPEG, 1 to 100; None: 85.
    """
    from PIL import Image

    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
    if path.suffix.lower() == ".png":
        picture.save(file, "PNG")
    else:
        picture.save(file, "JPEG", quality=JPEG_QUALITY if quality is None else quality)
    write_bytes(path, file.getvalue())


def _formats() -> list[str]:
    """The formats that this build of Pillow reads; naming another one is an error of its own."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _head(path: Path) -> bytes:
    require_file(path)
    try:
        with path.open("rb") as file:
            return file.read(12)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _unread_kind(head: bytes) -> str:
    """What a photo is whose format Pillow does not read; empty for anything else."""
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return "HEIC photo"
    return "JPEG XL photo" if head.startswith(_JPEG_XL) else ""


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode.startswith("I"):
        image = _to_8_bit(image, path)
    if image.mode == "F":
        raise InputError(f"{path} holds floating-point numbers without a defined white: save it with 8 or 16 bits")
    image = _to_srgb(image, path)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image, path: str | Path) -> Image.Image:
    """16-bit gray (modes ``I;16``, and ``I`` where Pillow widens it) in 8 bits; one level is transparent in some."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError(f"{path} holds integers of {values.min()} to {values.max()}: save it with 8 or 16 bits")
    gray = Image.fromarray(np.rint(values / _16_BIT_PER_LEVEL).astype(np.uint8))
    gray.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return gray


def _to_srgb(image: Image.Image, path: str | Path) -> Image.Image:
    """The image with its colour profile applied; one without, or with sRGB's, as it is."""
    profile = image.info.get("icc_profile")
    if profile and image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if not profile or image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return image
    try:
        from PIL import ImageCms
    except ImportError:
        logger.warning("%s: its colour profile is not applied, this Pillow has no LittleCMS", path)
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(given).lower().replace(" ", ""):
            return image
        target = "RGBA" if image.mode == "RGBA" else "RGB"
        info = {name: value for name, value in image.info.items() if name == "transparency" and image.mode == "RGB"}
        converted = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode=target)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.warning("%s: its colour profile cannot be applied (%s)", path, error)
        return image
    assert converted is not None
    converted.info = info
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
