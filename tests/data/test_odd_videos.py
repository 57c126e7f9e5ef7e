"""What becomes of a file is what a player shows of it, or a reason why it is left out."""

import gc
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from nemo_cosmos.data.video import cut, iter_windows, probe, read_frames
from nemo_cosmos.data.video import examine as examine_module
from nemo_cosmos.data.video.interlace import CombDetector, is_woven
from nemo_cosmos.data.video.timing import measure
from nemo_cosmos.errors import InputError
from tests.data.odd_videos import (
    LOSSLESS,
    ORIENTATIONS,
    PATCHES,
    encode,
    is_upright,
    numbered,
    numbers,
    patches,
    patches_of,
    remux,
    set_matrix,
    stored_for,
)


@pytest.fixture(scope="module", autouse=True)
def free_decoders():
    """Tests that fork workers come after these: nothing with threads may be left to be freed there."""
    yield
    gc.collect()


SEQUENCE = [numbered(n) for n in range(60)]
HEVC = "log-level=none:lossless=1:scenecut=0"


def picture(path, number=0, **arguments):
    """(H, W, 3) frame of a file."""
    return read_frames(path, number, 1, **arguments)[:, 0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """60 frames at 30 fps with one key frame."""
    return encode(tmp_path_factory.mktemp("long") / "long.mp4", SEQUENCE, options={**LOSSLESS, "g": "250", "bf": "2"})


@pytest.fixture
def lossless_cut(long, tmp_path):
    """As `ffmpeg -ss 0.8 -i long.mp4 -c copy` leaves it."""
    return remux(long, tmp_path / "edit.mp4", hide=0.8)


def test_ordinary_files_are_not_decoded_to_be_counted(long):
    found = examine_module.examine(long)
    assert not found.decoded and len(found.ticks) == found.whole == 60
    info = probe(long)
    assert (info.frames, info.fps, info.duration) == (60, 30, pytest.approx(2)) and not info.damage


def test_hidden_frames_are_no_frames(lossless_cut):
    info = probe(lossless_cut)
    assert (info.frames, info.fps, info.variable_rate) == (36, 30, False) and info.duration == pytest.approx(1.2)
    assert not examine_module.examine(lossless_cut).decoded
    assert numbers(read_frames(lossless_cut)) == list(range(24, 60))
    assert numbers(read_frames(lossless_cut, 0, 36, fps=30)) == list(range(24, 60))
    for arguments in ({}, {"fps": 30}, {"step": 3, "start": 0}):
        with pytest.raises(InputError, match="too short"):
            read_frames(lossless_cut, count=37 if "step" not in arguments else 13, **arguments)
    with pytest.raises(InputError, match="too short: 36 frames, 37"):
        next(iter_windows(lossless_cut, 37, stride=1))


def test_a_file_that_begins_between_key_frames(tmp_path):
    for codec, options, container in (
        ("libx264", {**LOSSLESS, "g": "20", "bf": "2"}, "mkv"),
        ("libx264", {**LOSSLESS, "g": "20", "bf": "0"}, "ts"),
        ("libx265", {"x265-params": f"{HEVC}:keyint=20:open-gop=0"}, "mkv"),
    ):
        encode(tmp_path / "whole.mkv", SEQUENCE[:40], codec=codec, options=options)
        path = remux(tmp_path / "whole.mkv", tmp_path / f"head.{container}", keep=lambda n: n >= 5)
        info = probe(path)
        assert (info.frames, info.fps, info.variable_rate) == (20, 30, False) and not info.damage
        assert numbers(read_frames(path)) == list(range(20, 40))


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_truncated_file_ends_where_it_ends(long, tmp_path, share):
    path = remux(long, tmp_path / "whole.mkv")
    content = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: int(len(content) * share)])
    info = probe(tmp_path / "cut.mkv")
    assert 0 < info.frames < 59 and info.fps == 30 and not info.variable_rate
    assert numbers(read_frames(tmp_path / "cut.mkv", 0, info.frames)) == list(range(info.frames))
    with pytest.raises(InputError, match=r"cut\.mkv"):
        read_frames(tmp_path / "cut.mkv", 0, info.frames + 1)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {**LOSSLESS, "g": "20", "bf": "0"}),
        ("libx264", {**LOSSLESS, "g": "20", "bf": "2"}),
        ("libx265", {"x265-params": f"{HEVC}:keyint=20:bframes=0"}),
        ("mpeg2video", {"qscale": "2", "g": "20"}),
    ],
)
def test_nothing_after_lost_packets_is_used(tmp_path, codec, options, container):
    encode(tmp_path / "whole.mkv", SEQUENCE[:40], codec=codec, options=options)
    path = remux(tmp_path / "whole.mkv", tmp_path / f"lost.{container}", keep=lambda n: n not in (7, 8, 9))
    info = probe(path)
    assert 4 <= info.frames <= 7 and info.fps == pytest.approx(30) and not info.variable_rate
    assert "lost." in info.damage and "damaged" in info.damage
    whole = read_frames(tmp_path / "whole.mkv", 0, info.frames)
    assert torch.equal(read_frames(path, 0, info.frames), whole)
    for arguments in ({}, {"fps": 30}):
        with pytest.raises(InputError, match=r"damaged at 0\.[12]"):
            read_frames(path, 0, info.frames + 1, **arguments)
    assert [start for start, _ in partly(iter_windows(path, 2, stride=2))] == list(range(0, info.frames - 1, 2))
    kept = probe(path, keep_damaged=True).frames
    assert kept > 20 and read_frames(path, 0, kept, keep_damaged=True).shape[1] == kept


def partly(windows):
    """Windows up to the damage, which has to come."""
    with pytest.raises(InputError, match="damaged"):
        yield from windows


def test_lost_references_show_in_a_variable_rate_too(tmp_path):
    """Where no gap between times gives them away, the decoder does."""
    times = [Fraction(n, 30) if n < 12 else Fraction(2, 5) + Fraction(n - 12, 10) for n in range(30)]
    encode(tmp_path / "v.mp4", SEQUENCE[:30], times=times, options={**LOSSLESS, "g": "30", "bf": "0"})
    assert probe(tmp_path / "v.mp4").variable_rate and not probe(tmp_path / "v.mp4").damage
    path = remux(tmp_path / "v.mp4", tmp_path / "lost.mp4", keep=lambda n: n != 15)
    assert probe(path).frames == 15 and probe(path).damage


def test_damage_inside_of_a_picture_is_an_error(tmp_path):
    """Packets are all there: it is found when the frame is read."""
    path = encode(tmp_path / "a.mp4", SEQUENCE[:24], options={"crf": "20", "g": "24", "bf": "0", "threads": "1"})
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][10]
        where, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[where + 5 : where + size] = bytes(b ^ 0x5A for b in content[where + 5 : where + size])
    path.write_bytes(content)
    assert numbers(read_frames(path, 0, 5)) == list(range(5))
    with pytest.raises(InputError, match=r"a\.mp4 is damaged"):
        read_frames(path, 0, 24)


def test_the_stream_that_a_player_shows(long, tmp_path):
    cover = encode(
        tmp_path / "c.mkv", [np.full((400, 400, 3), 128, np.uint8)], codec="mjpeg", pix_fmt="yuvj420p", options={}
    )
    path = remux(long, tmp_path / "both.mkv", before=cover)
    info = probe(path)
    assert (info.frames, info.height, info.width) == (60, 64, 96)
    assert numbers(read_frames(path, 0, 5)) == [0, 1, 2, 3, 4]


def test_cover_pictures_are_no_video(tmp_path):
    cover = encode(tmp_path / "c.mkv", [numbered(1)], codec="mjpeg", pix_fmt="yuvj420p", options={})
    with av.open(str(cover)) as source, av.open(str(tmp_path / "song.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.disposition = av.stream.Disposition.attached_pic
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    with pytest.raises(InputError, match=r"song\.mp4 has a cover picture but no video"):
        probe(tmp_path / "song.mp4")


def weave(first, second, order="tff"):
    """Rows of two instants in one picture."""
    woven = first.copy()
    odd = slice(1, None, 2) if order == "tff" else slice(0, None, 2)
    woven[odd] = second[odd]
    return woven


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_flagged_interlaced_frames_show_one_instant(tmp_path, order):
    woven = [weave(SEQUENCE[2 * n], SEQUENCE[2 * n + 1], order) for n in range(12)]
    path = encode(tmp_path / "i.mp4", woven, rate=25, options={**LOSSLESS, "x264-params": f"{order}=1"})
    assert probe(path).frames == 12
    frames = read_frames(path)
    assert numbers(frames) == list(range(0, 24, 2))
    truth = torch.from_numpy(np.stack(SEQUENCE[0:24:2])).permute(3, 0, 1, 2)
    assert (frames.float() - truth.float()).abs().mean() < 2
    assert torch.equal(read_frames(path, 3, 2), frames[:, 3:5])
    cut(path, tmp_path / "cut.mp4", 0.2, 0.4)
    assert numbers(read_frames(tmp_path / "cut.mp4")) == [10, 12, 14, 16, 18]


def moving_texture(count):
    """A smooth random picture that moves sideways."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(1, 3, 12, 18, generator=generator)
    texture = torch.nn.functional.interpolate(blocks, scale_factor=8, mode="bicubic").clamp(0, 1)[0] * 255
    image = texture.permute(1, 2, 0).to(torch.uint8).numpy()
    return [np.roll(image, 3 * n, axis=1) for n in range(count)]


def test_combed_frames_without_a_flag_are_found(tmp_path):
    fields = moving_texture(40)
    path = encode(tmp_path / "combed.mp4", [weave(fields[2 * n], fields[2 * n + 1]) for n in range(20)])
    for read in (lambda: read_frames(path, 0, 17), lambda: list(iter_windows(path, 17, stride=1))):
        with pytest.raises(InputError, match=r"combed\.mp4 is interlaced without saying so.*--keep-damaged"):
            read()
    assert read_frames(path, 0, 17, keep_damaged=True).shape[1] == 17
    with pytest.raises(InputError, match="without saying so"):
        read_frames(path, 0, 1)  # fewer frames than it takes to tell
    progressive = encode(tmp_path / "whole.mp4", fields)
    assert read_frames(progressive).shape[1] == 40


def test_fine_lines_that_drift_slowly_are_not_combs():
    """Rows a quarter period apart fit as badly within a frame as between frames; idet's default calls some woven."""
    rows, columns = np.arange(96)[:, None, None], np.arange(128)[None, :, None] + np.zeros(3)
    combs = CombDetector()
    for time in range(20):
        lines = (127 + 100 * np.sin(np.pi / 2 * (rows + 0.1 * time) + 0.06 * columns)).astype(np.uint8)
        combs.is_combed(av.VideoFrame.from_ndarray(lines, "rgb24").reformat(format="yuv420p"))
    assert not combs.orders["tff"] + combs.orders["bff"]


def test_some_frames_that_look_combed_do_not_condemn_a_video():
    """Small generated videos look woven in up to 10 of 16 frames, between others that are whole."""
    assert is_woven(Counter(tff=19))
    assert is_woven(Counter(bff=9, undetermined=30, progressive=1))
    assert not is_woven(Counter(bff=10, progressive=6))
    assert not is_woven(Counter(tff=8, bff=8))
    assert not is_woven(Counter(tff=4))


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_turned_and_mirrored_pictures_stand_upright(tmp_path, matrix):
    path = encode(tmp_path / "m.mp4", [stored_for(numbered(n), matrix) for n in range(6)], rate=10)
    set_matrix(path, *matrix)
    info = probe(path)
    frames = read_frames(path)
    assert (info.height, info.width) == tuple(frames.shape[2:]) == (64, 96)
    assert numbers(frames) == [0, 1, 2, 3, 4, 5] and is_upright(picture(path))
    cut(path, tmp_path / "cut.mp4", 0.2, 0.5)
    assert numbers(read_frames(tmp_path / "cut.mp4")) == [2, 3, 4] and is_upright(picture(tmp_path / "cut.mp4"))


def test_a_picture_at_an_angle_is_refused(tmp_path):
    path = encode(tmp_path / "m.mp4", SEQUENCE[:3])
    set_matrix(path, 3, 4, -4, 3)
    with pytest.raises(InputError, match=r"m\.mp4: its display matrix"):
        probe(path)


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(4, 3), 72), (Fraction(2, 3), 144)])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square(tmp_path, aspect, width, turned):
    """A circle stays a circle, in every way of filling a frame, also after a cut."""
    row, column = np.mgrid[:64, :width]
    inside = (column * aspect.numerator / aspect.denominator - 48) ** 2 + (row - 32) ** 2 < 24**2
    image = np.where(inside[..., None], 230, 20).astype(np.uint8).repeat(3, axis=2)
    path = encode(tmp_path / "sar.mp4", [image] * 6, rate=10, aspect=aspect)
    if turned:
        set_matrix(path, 0, 1, -1, 0)
    info = probe(path)
    shown = (96, 64) if turned else (64, 96)
    assert (info.height, info.width) == shown
    cut(path, tmp_path / "cut.mp4", 0.0, 0.3)
    assert (probe(tmp_path / "cut.mp4").height, probe(tmp_path / "cut.mp4").width) == shown
    for source in (path, tmp_path / "cut.mp4"):
        for arguments in ({}, {"size": (64, 64)}, {"size": (64, 64), "fit": "pad"}):
            mask = picture(source, 2, **arguments)[..., 1] > 125
            spans = [int(mask.any(axis=axis).sum()) for axis in (0, 1)]
            assert abs(spans[0] - spans[1]) <= 2


@pytest.mark.parametrize("matrix", [1, 2, 6, 9])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_colours_are_those_of_their_tags_also_after_a_cut(tmp_path, matrix, full_range, pix_fmt):
    path = encode(tmp_path / "c.mp4", [patches()] * 6, rate=10, matrix=matrix, full_range=full_range, pix_fmt=pix_fmt)
    assert np.abs(patches_of(picture(path)) - PATCHES).max() <= 2
    cut(path, tmp_path / "cut.mp4", 0.1, 0.5)
    assert np.abs(patches_of(picture(tmp_path / "cut.mp4", 2)) - PATCHES).max() <= 5


def wide_planes(transfer, primaries, bits):
    """PATCHES as yuv420p or yuv420p10le planes in another colour system, worked out from the standards."""
    light = (PATCHES / 255.0) ** 2.4
    to_wide = {
        9: [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]],
        12: [[0.8225, 0.1775, 0.0], [0.0332, 0.9668, 0.0], [0.0171, 0.0724, 0.9105]],
    }[primaries]
    light = light @ np.array(to_wide).T
    if transfer == 18:
        scene = (light * 203 / 1000) ** (1 / 1.2)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        coded = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    elif transfer == 16:
        power = (light * 203 / 10000) ** 0.1593017578125
        coded = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        coded = light ** (1 / 2.4)
    red, blue = (0.2627, 0.0593) if primaries == 9 else (0.2126, 0.0722)
    luma = coded @ [red, 1 - red - blue, blue]
    chroma = [(coded[:, 2] - luma) / (2 - 2 * blue), (coded[:, 0] - luma) / (2 - 2 * red)]
    scale = 1 << (bits - 8)
    planes = [16 * scale + 219 * scale * luma, *(128 * scale + 224 * scale * c for c in chroma)]
    shapes = [plane.reshape(2, 4).repeat(16, 0).repeat(16, 1) for plane in planes]
    rows = np.concatenate([shapes[0].ravel(), shapes[1][::2, ::2].ravel(), shapes[2][::2, ::2].ravel()])
    return np.rint(rows).reshape(48, 64).astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize(
    ("transfer", "primaries", "bits"), [(18, 9, 10), (16, 9, 10), (14, 9, 10), (1, 9, 8), (1, 12, 8), (1, 12, 10)]
)
def test_hdr_and_wide_colours_become_sdr(tmp_path, transfer, primaries, bits):
    path = encode(
        tmp_path / "hdr.mp4",
        [wide_planes(transfer, primaries, bits)] * 3,
        codec="libx265",
        options={"x265-params": f"log-level=none:lossless=1:colorprim={primaries}:transfer={transfer}"},
        pix_fmt="yuv420p" if bits == 8 else "yuv420p10le",
        tags={
            "colorspace": 9 if primaries == 9 else 1,
            "color_trc": transfer,
            "color_primaries": primaries,
            "color_range": 1,
        },
    )
    assert np.abs(patches_of(picture(path)) - PATCHES).max() <= 10


def test_colours_that_are_not_converted_are_named(tmp_path):
    path = encode(tmp_path / "log.mp4", SEQUENCE[:2], matrix=1, tags={"color_trc": 9, "color_primaries": 1})
    with pytest.raises(InputError, match=r"log\.mp4: its colours have the transfer curve logarithmic"):
        read_frames(path)


@pytest.mark.parametrize("keys", [12, 250])
def test_a_cut_of_a_transport_stream_has_its_first_frames(tmp_path, keys):
    path = encode(tmp_path / "a.ts", SEQUENCE, options={**LOSSLESS, "g": str(keys), "bf": "2"})
    for first, last in ((0, 20), (17, 40), (24, 60)):
        assert cut(path, tmp_path / "cut.mp4", first / 30, last / 30) == last - first
        frames = read_frames(tmp_path / "cut.mp4")
        assert numbers(frames) == list(range(first, last))
        truth = torch.from_numpy(np.stack(SEQUENCE[first:last])).permute(3, 0, 1, 2)
        assert (frames.float() - truth.float()).abs().mean() < 2
        info = probe(tmp_path / "cut.mp4")
        assert info.fps == 30 and not info.variable_rate


def test_a_cut_across_damage_is_refused(tmp_path):
    encode(tmp_path / "whole.mkv", SEQUENCE[:40], options={**LOSSLESS, "g": "20", "bf": "0"})
    path = remux(tmp_path / "whole.mkv", tmp_path / "lost.mp4", keep=lambda n: n != 10)
    assert cut(path, tmp_path / "a.mp4", 0, 10 / 30) == 10
    with pytest.raises(InputError, match=r"lost\.mp4 is damaged at 0\.33 s"):
        cut(path, tmp_path / "b.mp4", 0.2, 0.6)
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("ticks", "rate", "variable", "missing"),
    [
        (list(range(0, 300, 10)), 10, False, ()),
        ([t for t in range(0, 400, 10) if t not in (70, 80, 90)], 10, False, (7,)),
        ([0, 10, 20, 60, 70], 4 / 0.7, True, ()),
        ([0, 3, 7, 10, 13, 17], 5 / 0.17, False, ()),
        ([0, 2, 5, 7, 10, 12, 15, 17, 20], 40, False, ()),  # film in a 60 Hz clock
        ([*range(0, 30, 2), *range(30, 90, 6)], 24 / 0.84, True, ()),
        ([5], 25, False, ()),
    ],
)
def test_rates(ticks, rate, variable, missing):
    timing = measure(np.array(ticks), 0.01, 25)
    assert timing.rate == pytest.approx(rate, rel=1e-2)
    assert (timing.variable, timing.missing) == (variable, missing)
