"""Reading and writing video, including files nobody wants to get."""

import ctypes
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from nemo_cosmos.data.video import cut, iter_windows, probe, read_frames, stated_frames, video_writer, write_mp4
from nemo_cosmos.data.video import frames as frames_module
from nemo_cosmos.data.video.colour import to_rgb
from nemo_cosmos.errors import InputError

M_PERTURB = -6
"""Of glibc's mallopt: the byte that new memory is filled with, inverted; 0 leaves in it what there was."""


def ramp(frames=6, height=48, width=64):
    """Frame t is grey level 20 + 30 t: its number can be read from its brightness."""
    levels = torch.arange(frames, dtype=torch.float32) * 30 + 20
    return levels.to(torch.uint8).view(1, -1, 1, 1).expand(3, frames, height, width).contiguous()


def frame_numbers(video):
    return ((video[1].float().mean(dim=(1, 2)) - 20) / 30).round().int().tolist()


def write_times(path, times, rotation=0, size=(48, 64)):
    """A file whose frame k is shown at times[k] (in 1/100 s)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        for number, time in enumerate(times):
            image = np.full((*size, 3), 20 + 30 * number, np.uint8)
            image[: size[0] // 2, : size[1] // 2, 0] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if rotation:
        set_rotation(path, rotation)


def set_rotation(path, degrees):
    """Record a counter-clockwise rotation in the track header, as phones do."""
    cos, sin = {90: (0, 1), 180: (-1, 0), -90: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cos << 16, -sin << 16, 0, sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + len(matrix)] = matrix
    path.write_bytes(content)


def test_round_trip_and_probe(tmp_path):
    video = ramp()
    write_mp4(tmp_path / "a.mp4", video, 24)
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width, info.variable_rate) == (6, 48, 64, False)
    assert info.fps == pytest.approx(24) and info.duration == pytest.approx(0.25)
    back = read_frames(tmp_path / "a.mp4")
    assert back.shape == video.shape and back.dtype == torch.uint8
    assert (back.int() - video.int()).abs().max() <= 2
    write_mp4(tmp_path / "b.mp4", video.permute(1, 2, 3, 0).numpy(), 24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_file_plays_while_it_loads_and_names_its_colours(tmp_path):
    write_mp4(tmp_path / "a.mp4", ramp(), 29.97)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.colorspace) == ("h264", "yuv420p", 6)
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, abs=1e-3)


def test_colours_have_no_bias(tmp_path):
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (3, 4, 6, 8), generator=generator).float()
    video = torch.nn.functional.interpolate(blocks, scale_factor=16.0, mode="bilinear").to(torch.uint8)
    write_mp4(tmp_path / "a.mp4", video, 10, quality=5)
    difference = read_frames(tmp_path / "a.mp4").float() - video.float()
    assert difference.mean(dim=(1, 2, 3)).abs().max() < 0.5


def test_start_count_and_step_pick_frames(tmp_path):
    write_mp4(tmp_path / "a.mp4", ramp(8), 24)
    assert frame_numbers(read_frames(tmp_path / "a.mp4", 2, 3)) == [2, 3, 4]
    assert frame_numbers(read_frames(tmp_path / "a.mp4", 1, 3, step=2)) == [1, 3, 5]
    assert frame_numbers(read_frames(tmp_path / "a.mp4", 3)) == [3, 4, 5, 6, 7]


def test_too_short_names_file_and_need(tmp_path):
    write_mp4(tmp_path / "short.mp4", ramp(4), 24)
    with pytest.raises(InputError, match=r"short\.mp4 is too short: 2 .* 7 frames needed"):
        read_frames(tmp_path / "short.mp4", 2, 5)


def test_variable_rate_is_seen_and_resampled_by_time(tmp_path):
    write_times(tmp_path / "v.mp4", [0, 10, 20, 60, 70])  # frame 2 stays for 0.4 s
    info = probe(tmp_path / "v.mp4")
    assert info.variable_rate and info.frames == 5
    assert frame_numbers(read_frames(tmp_path / "v.mp4", fps=10)) == [0, 1, 2, 2, 2, 2, 3, 4, 4]
    assert frame_numbers(read_frames(tmp_path / "v.mp4", 4, 3, fps=10)) == [2, 2, 3]


def test_constant_rate_in_coarse_time_base_is_not_variable(tmp_path):
    write_times(tmp_path / "c.mp4", [0, 3, 7, 10, 13, 17])
    assert not probe(tmp_path / "c.mp4").variable_rate
    assert frame_numbers(read_frames(tmp_path / "c.mp4", fps=15)) == [0, 2, 4]


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_of_phones_is_applied(tmp_path, rotation):
    write_times(tmp_path / "r.mp4", [0, 4], rotation=rotation)
    info = probe(tmp_path / "r.mp4")
    video = read_frames(tmp_path / "r.mp4")
    assert (info.height, info.width) == tuple(video.shape[2:]) == ((64, 48) if rotation % 180 else (48, 64))
    # The stored frame has a red mark at its top left; turning counter-clockwise by 90 degrees moves it to the bottom
    # left.
    expected = {0: (0, 0), 90: (1, 0), 180: (1, 1), -90: (0, 1)}[rotation]
    red = video[0, 0].float() - video[1, 0].float()
    height, width = red.shape
    quarters = red.reshape(2, height // 2, 2, width // 2).mean(dim=(1, 3))
    assert divmod(int(quarters.argmax()), 2) == expected


def test_odd_sizes_are_written_and_read(tmp_path):
    write_mp4(tmp_path / "odd.mp4", ramp(3, 33, 51), 10)
    assert probe(tmp_path / "odd.mp4").height == 34
    assert read_frames(tmp_path / "odd.mp4", size=(16, 16)).shape == (3, 3, 16, 16)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50, None])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    for read in (probe, read_frames):
        with pytest.raises(InputError, match=r"bad\.mp4"):
            read(path)


def test_truncated_and_scrambled_files_are_named(tmp_path):
    generator = torch.Generator().manual_seed(0)
    write_mp4(tmp_path / "a.mp4", torch.randint(0, 255, (3, 12, 64, 64), generator=generator, dtype=torch.uint8), 24)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    content[len(content) // 3 : len(content) // 3 + 4000] = bytes(4000)
    (tmp_path / "zeros.mp4").write_bytes(content)
    for name in ("cut.mp4", "zeros.mp4"):
        with pytest.raises(InputError, match=name):
            read_frames(tmp_path / name, 0, 12)


@pytest.mark.parametrize("name, words", [("a\0b", "null byte"), ("n" * 300, "too long"), (".", "is a folder")])
def test_paths_that_name_no_file(tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        probe(tmp_path / name)


def test_audio_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="no video stream"):
        probe(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("frames", "fps"), [(torch.zeros(3, 2, 8, 8), 24), (torch.zeros(2, 8, 8, 4, dtype=torch.uint8), 24), (ramp(2), 0)]
)
def test_writer_refuses_wrong_frames(tmp_path, frames, fps):
    with pytest.raises(InputError):
        write_mp4(tmp_path / "x.mp4", frames, fps)
    assert not list(tmp_path.iterdir())


def test_windows_are_the_frames_that_reading_gives(tmp_path):
    write_mp4(tmp_path / "a.mp4", ramp(8), 24)
    for step, stride, starts in ((1, 2, [0, 2, 4]), (2, 1, [0, 1]), (1, 4, [0, 4])):
        windows = list(iter_windows(tmp_path / "a.mp4", 4, stride=stride, step=step, size=(16, 16)))
        assert [start for start, _ in windows] == starts
        for start, frames in windows:
            assert torch.equal(frames, read_frames(tmp_path / "a.mp4", start, 4, (16, 16), step=step))
    with pytest.raises(InputError, match=r"too short: 8 frames, 9 frames needed"):
        list(iter_windows(tmp_path / "a.mp4", 9, stride=1))


@pytest.mark.parametrize("count", [1, 3, 4, 8, 9])
def test_windows_with_the_rest_give_every_frame_once(tmp_path, count):
    write_mp4(tmp_path / "a.mp4", ramp(8), 24)
    windows = list(iter_windows(tmp_path / "a.mp4", count, stride=count, rest=True))
    assert [start for start, _ in windows] == list(range(0, 8, count))
    assert torch.equal(torch.cat([frames for _, frames in windows], dim=1), read_frames(tmp_path / "a.mp4"))


def test_windows_are_decoded_when_asked_for(tmp_path, monkeypatch):
    write_mp4(tmp_path / "a.mp4", ramp(8), 24)
    decoded, read = [], frames_module.shown
    monkeypatch.setattr(frames_module, "shown", lambda *a, **k: (decoded.append(f.time) or f for f in read(*a, **k)))
    asked = [len(decoded) for _ in iter_windows(tmp_path / "a.mp4", 3, stride=3, rest=True)]
    assert asked == [3, 6, 8]


@pytest.mark.parametrize("step", [1, 2])
def test_frames_between_windows_are_not_converted(tmp_path, monkeypatch, step):
    write_mp4(tmp_path / "a.mp4", ramp(8), 24)
    converted, image = [], frames_module.Shown.image
    monkeypatch.setattr(frames_module.Shown, "image", lambda self, *a: (converted.append(1), image(self, *a))[1])
    windows = list(iter_windows(tmp_path / "a.mp4", 2, stride=5, step=step))
    assert len(windows) == 2 and len(converted) == 2 * (step + 1)
    for start, window in windows:
        assert torch.equal(window, read_frames(tmp_path / "a.mp4", start, 2, step=step))


def test_frames_that_share_a_converter_keep_their_own_range_and_matrix():
    levels = np.random.default_rng(0).integers(16, 235, (48 * 3 // 2, 64), dtype=np.uint8)
    for colour_range, matrix in [(1, 1), (2, 1), (1, 5), (1, 1), (2, 5)] * 2:
        frame = av.VideoFrame.from_ndarray(levels, format="yuv420p")
        frame.color_range, frame.colorspace = colour_range, matrix
        alone = frame.reformat(format="yuv444p").reformat(format="rgb24").to_ndarray()
        assert (to_rgb(frame) == alone).all(), (colour_range, matrix)


def test_a_change_of_the_frame_size_is_named(tmp_path):
    content = b""
    for number, size in enumerate(((48, 64), (32, 64))):
        with av.open(str(tmp_path / f"{number}.h264"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
            for image in np.zeros((3, *size, 3), np.uint8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        content += (tmp_path / f"{number}.h264").read_bytes()
    (tmp_path / "both.h264").write_bytes(content)
    for read in (read_frames, lambda path: list(iter_windows(path, 3, stride=3))):
        with pytest.raises(InputError, match=r"both\.h264: the frame size changes"):
            read(tmp_path / "both.h264")


def test_writing_in_pieces_gives_the_same_file(tmp_path):
    video = ramp(8, 33, 51)
    write_mp4(tmp_path / "whole.mp4", video, 24)
    with video_writer(tmp_path / "parts.mp4", 24) as write:
        for part in video.split(3, dim=1):
            write(part)
            assert not (tmp_path / "parts.mp4").exists()
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert stated_frames(tmp_path / "parts.mp4") == 8


def test_the_same_frames_give_the_same_file_whatever_lay_in_memory(tmp_path):
    squares = torch.rand(3, 9, 6, 10, generator=torch.Generator().manual_seed(0)).mul(255)
    video = torch.nn.functional.interpolate(squares, scale_factor=(8, 8), mode="bilinear").to(torch.uint8)
    fill_new_memory = ctypes.CDLL(None).mallopt
    files = set()
    try:
        for filler in (1, 60, 170):
            fill_new_memory(M_PERTURB, filler)
            write_mp4(tmp_path / "a.mp4", video, 8)
            files.add((tmp_path / "a.mp4").read_bytes())
    finally:
        fill_new_memory(M_PERTURB, 0)
    assert len(files) == 1


@pytest.mark.parametrize("pieces", [[], [ramp(2), ramp(2, 32)], [ramp(2), ramp(2).float()]])
def test_writer_leaves_nothing_of_an_unfinished_file(tmp_path, pieces):
    with pytest.raises(InputError, match=r"x\.mp4|float32"), video_writer(tmp_path / "x.mp4", 24) as write:
        for piece in pieces:
            write(piece)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "name"), [("mov", "mov"), ("m4v", "mp4"), ("MKV", "matroska"), ("avi", "avi"), ("x", "mp4")]
)
def test_suffix_chooses_the_container(tmp_path, suffix, name):
    path = tmp_path / f"a.{suffix}"
    write_mp4(path, ramp(), 24)
    assert frame_numbers(read_frames(path)) == [0, 1, 2, 3, 4, 5]
    with av.open(str(path)) as container:
        assert name in container.format.name


def test_rgb_files_are_read_exactly(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgra")))
        container.mux(stream.encode())
    assert np.array_equal(read_frames(tmp_path / "a.mkv")[:, 0].permute(1, 2, 0).numpy(), image)


def test_cut_takes_the_frames_of_the_span(tmp_path):
    write_mp4(tmp_path / "a.mp4", ramp(8, 33, 51), 4)
    assert cut(tmp_path / "a.mp4", tmp_path / "b.mp4", 0.5, 1.5) == 4
    assert frame_numbers(read_frames(tmp_path / "b.mp4")) == [2, 3, 4, 5]
    info = probe(tmp_path / "b.mp4")
    assert info.fps == pytest.approx(4) and not info.variable_rate and (info.height, info.width) == (34, 52)


def test_cut_keeps_uneven_times(tmp_path):
    write_times(tmp_path / "v.mp4", [0, 10, 20, 60, 70])
    assert cut(tmp_path / "v.mp4", tmp_path / "b.mp4", 0.1, 0.65) == 3
    assert frame_numbers(read_frames(tmp_path / "b.mp4", fps=10))[:6] == [1, 2, 2, 2, 2, 3]


def test_cut_far_into_a_long_video(tmp_path):
    video = torch.zeros(3, 400, 32, 32, dtype=torch.uint8)
    video[:, 300:] = 200  # beyond the first key frames
    write_mp4(tmp_path / "long.mp4", video, 25)
    assert cut(tmp_path / "long.mp4", tmp_path / "b.mp4", 11.8, 12.2) == 10
    assert (read_frames(tmp_path / "b.mp4").float().mean(dim=(0, 2, 3)) > 100).tolist() == [False] * 5 + [True] * 5


@pytest.mark.parametrize("span", [(5.0, 6.0), (1.0, 1.0), (-1.0, 1.0)])
def test_cut_outside_the_video_leaves_nothing(tmp_path, span):
    write_mp4(tmp_path / "a.mp4", ramp(4), 4)
    with pytest.raises(InputError, match=r"a\.mp4"):
        cut(tmp_path / "a.mp4", tmp_path / "b.mp4", *span)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
