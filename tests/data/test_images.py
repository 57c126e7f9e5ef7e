"""Images are told by their content, and come as a browser shows them."""

import io

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
