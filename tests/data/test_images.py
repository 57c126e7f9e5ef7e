"""Images are told by their content, and come as a browser shows them."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from nemo_cosmos.data.images import is_image, read_image
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError

PIXELS = np.zeros((8, 16, 3), np.uint8)
PIXELS[:, :8] = (250, 10, 10)
PIXELS[:4, 8:] = (10, 250, 10)
EXACT = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "TIFF": {},
    "BMP": {},
    "GIF": {},
}


def read(path):
    return read_image(path).permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("name", ["photo", "photo.jfif", "photo.mp4", "take [1].x"])
def test_the_suffix_says_nothing(tmp_path, kind, name):
    Image.fromarray(PIXELS).save(tmp_path / name, kind, **EXACT[kind])
    assert is_image(tmp_path / name)
    assert abs(read(tmp_path / name) - PIXELS).max() <= 2


def test_videos_and_text_are_no_images(tmp_path):
    write_mp4(tmp_path / "video.png", torch.zeros(3, 4, 32, 32, dtype=torch.uint8), 8)
    (tmp_path / "text.jpg").write_text("no image" * 10)
    (tmp_path / "empty.png").touch()
    assert not any(is_image(tmp_path / name) for name in ("video.png", "text.jpg", "empty.png"))
    with pytest.raises(InputError, match=r"text\.jpg cannot be read as an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        is_image(tmp_path / "gone.png")


def test_a_heic_photo_is_named(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(InputError, match=r"HEIC photo.*JPEG"):
        is_image(tmp_path / "IMG_1.HEIC")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC photo; save it as JPEG"),
        (b"\xff\x0a" + bytes(100), "JPEG XL photo; save it as JPEG"),
    ],
)
def test_reading_says_what_a_file_is_instead(tmp_path, head, words):
    (tmp_path / "photo.jpg").write_bytes(head)
    with pytest.raises(InputError, match=rf"photo\.jpg .*{words}"):
        read_image(tmp_path / "photo.jpg")


def test_pictures_of_phones_with_several_in_one(tmp_path):
    """JPEGs with a second picture, such as a gain map or depth."""
    first, second = Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second], **EXACT["JPEG"])
    assert is_image(tmp_path / "x.jpg") and abs(read(tmp_path / "x.jpg") - PIXELS).max() <= 2


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("colour_type", "pixel", "expected"),
    [
        (2, (0x8000, 0x4000, 0xFFFF), (128, 64, 255)),
        (4, (0x0000, 0x8000), (127, 127, 127)),
        (6, (0x8000, 0x4000, 0xFFFF, 0x8000), (191, 159, 255)),
    ],
)
def test_16_bit_colour_and_alpha(tmp_path, colour_type, pixel, expected):
    head = struct.pack(">IIBBBBB", 6, 4, 16, colour_type, 0, 0, 0)
    rows = (b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * 6) * 4
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    found = read(tmp_path / "x.png")
    assert found.shape == (4, 6, 3) and abs(found - expected).max() <= 1


def test_cmyk_of_print_shops(tmp_path):
    Image.fromarray(PIXELS).convert("CMYK").save(tmp_path / "x.jpg", "JPEG", **EXACT["JPEG"])
    assert abs(read(tmp_path / "x.jpg") - PIXELS).max() <= 3


@pytest.mark.parametrize("kind", EXACT)
def test_damage_anywhere_is_an_input_error_or_none(tmp_path, kind):
    random, buffer = np.random.default_rng(1), io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    extra = {} if kind in ("BMP", "GIF") else {"exif": exif}
    Image.fromarray(PIXELS).save(buffer, kind, **EXACT[kind], **extra)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    for _ in range(60):
        damaged = content.copy()
        places = random.integers(0, len(content), random.integers(1, 12))
        damaged[places] = random.integers(0, 256, len(places))
        (tmp_path / "x").write_bytes(damaged.tobytes())
        for reader in (read_image, is_image):
            with contextlib.suppress(InputError):
                reader(tmp_path / "x")


def test_a_truncated_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with pytest.raises(InputError, match=r"a\.jpg cannot be read as an image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "PPM")])
def test_16_bit_gray_is_scaled(tmp_path, mode, kind):
    values = np.arange(0, 65536, 257 // 2, dtype=np.uint16)[:504].reshape(8, 63)
    image = Image.fromarray(values)
    (image if mode == "I;16" else image.convert("I").convert(mode)).save(tmp_path / "gray", kind)
    assert np.array_equal(read(tmp_path / "gray")[..., 1], np.rint(values / 257))
    assert read(tmp_path / "gray").shape == (8, 63, 3)


def test_numbers_without_a_white_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "wide.tif")
    for name in ("float.tif", "wide.tif"):
        with pytest.raises(InputError, match=rf"{name} .*8 or 16 bits"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_recorded_orientation_is_applied_once(tmp_path, kind, orientation):
    """Each orientation with the turn that sets such a picture upright."""
    exif = Image.Exif()
    exif[274] = orientation
    extra = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    Image.fromarray(PIXELS).save(tmp_path / "x", kind, **EXACT[kind], **extra)
    upright = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }[orientation]
    found = read(tmp_path / "x")
    assert found.shape == upright.shape and abs(found - upright).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / "x.tif")
    assert abs(read(tmp_path / "x.tif") - np.asarray(image.convert("RGB")).astype(int)).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "I;16"])
def test_transparency_is_blended_on_white(tmp_path, mode):
    clear, extra = Image.fromarray(np.full((4, 4, 4), (0, 0, 0, 51), np.uint8)), {}
    if mode in ("P", "RGB"):
        clear, extra = Image.new(mode, (4, 4)), {"transparency": 0 if mode == "P" else (0, 0, 0)}
    elif mode == "I;16":
        clear, extra = Image.fromarray(np.full((4, 4), 300, np.uint16)), {"transparency": 300}
    else:
        clear = clear.convert(mode)
    clear.save(tmp_path / "x.png", **extra)
    assert np.unique(read(tmp_path / "x.png")).tolist() == ([204] if mode in ("RGBA", "LA") else [255])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_picture_of_several(tmp_path, kind):
    pictures = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 200, 100)]
    extra = {"lossless": True} if kind == "WEBP" else {}
    pictures[0].save(tmp_path / "x", kind, save_all=True, append_images=pictures[1:], **extra)
    assert is_image(tmp_path / "x") and np.unique(read(tmp_path / "x")).tolist() == [10]


def test_colour_profiles_are_applied(tmp_path):
    """A profile of other colours changes them, sRGB's and a damaged one do not."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(PIXELS).save(tmp_path / "srgb.png", icc_profile=srgb)
    Image.fromarray(PIXELS).save(tmp_path / "broken.png", icc_profile=b"nonsense" * 20)
    for name in ("srgb.png", "broken.png"):
        assert np.array_equal(read(tmp_path / name), PIXELS)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", icc_profile=lab)
    (tmp_path / "xyz.png").write_bytes(buffer.getvalue())
    assert read(tmp_path / "xyz.png").shape == PIXELS.shape  # a profile that is not RGB's is said and passed over


def test_the_profile_of_a_palette_is_looked_at(tmp_path, caplog):
    image = Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "palette.png", icc_profile=b"nonsense" * 20)
    read(tmp_path / "palette.png")
    assert "its colour profile cannot be applied" in caplog.text
