"""The example data of the guides, with local files in place of the network."""

import json
import shutil
from fractions import Fraction

import pytest
import torch

from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.download.hdvila import DownloadError, main, parse_time, read_list
from nemo_cosmos.errors import InputError
from tests.data.odd_videos import PATCHES, encode, numbered, numbers, patches, patches_of, set_matrix, stored_for


@pytest.fixture
def store(tmp_path):
    """Three videos of 8 frames at 4 fps; video k has brightness 50 + 60 k."""
    for number in range(3):
        video = torch.full((3, 8, 32, 48), 50 + 60 * number, dtype=torch.uint8)
        write_mp4(tmp_path / "store" / f"url{number}.mp4", video, 4)
    return tmp_path / "store"


@pytest.fixture
def dataset(tmp_path):
    """Clip ids and video ids sort in opposite order, so pairing by order would mix them up."""
    folder = tmp_path / "hdvila"
    folder.mkdir()
    lines = []
    for number, (clip, video) in enumerate([("c0", "z"), ("b0", "y"), ("a0", "x")]):
        for part in range(2):
            lines.append(
                {
                    "url": f"url{number}",
                    "video_id": video,
                    "clip_id": f"{clip}.{part}.mp4",
                    "caption": f"caption {number} 🤖",
                    "span_start": "0:00:00.500",
                    "span_end": "0:00:01.500",
                    "extra": 1,
                }
            )
    (folder / "hdvila-100M.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


class FakeDownloader:
    def __init__(self, store, broken=()):
        self.store, self.broken, self.calls = store, broken, []

    def __call__(self, url, path):
        self.calls.append(url)
        path.write_bytes(b"partial")
        if url in self.broken:
            raise DownloadError("the video is private")
        shutil.copy(self.store / f"{url}.mp4", path)


def run(dataset, downloader, *flags):
    main("help", ["--dataset_path", str(dataset), *flags], downloader)


def test_clips_belong_to_their_videos(dataset, store):
    run(dataset, FakeDownloader(store), "--N_videos", "3", "--do_download", "--do_clip")
    clips = find_clips(dataset)
    assert [c.name for c in clips] == ["videos/a0.0.mp4", "videos/b0.0.mp4", "videos/c0.0.mp4"]
    for clip, number in zip(clips, (2, 1, 0), strict=True):
        frames = read_frames(clip.video)
        assert frames.shape[1] == 4 and probe(clip.video).fps == pytest.approx(4)
        assert frames.float().mean().item() == pytest.approx(50 + 60 * number, abs=2)
        assert clip.read_caption() == f"caption {number} 🤖"
    meta = json.loads((dataset / "metas/a0.0.json").read_text())
    assert meta["video_id"] == "x" and sorted(p.name for p in (dataset / "videos_orig").iterdir()) == [
        "x.mp4",
        "y.mp4",
        "z.mp4",
    ]


def test_failed_videos_are_skipped_counted_and_tried_again(dataset, store, capsys):
    run(dataset, FakeDownloader(store, broken=["url1"]), "--do_download", "--do_clip")
    said = capsys.readouterr().out
    assert "downloaded 2 videos, 0 were there already, 1 skipped" in said and "the video is private" in said
    assert len(list((dataset / "videos").iterdir())) == 2 and not list((dataset / "metas").glob("b0*"))
    assert not list((dataset / "videos_orig").glob(".*"))
    again = FakeDownloader(store)
    run(dataset, again, "--do_download", "--do_clip")
    assert again.calls == ["url1"]
    assert "cut 1 clips, 2 were there already, 0 skipped" in capsys.readouterr().out


def test_damaged_original_is_skipped(dataset, store, capsys):
    run(dataset, FakeDownloader(store), "--do_download")
    (dataset / "videos_orig/y.mp4").write_bytes(b"garbage")
    run(dataset, FakeDownloader(store), "--do_clip")
    assert "skipped b0.0" in capsys.readouterr().out
    assert sorted(p.name for p in (dataset / "videos").iterdir()) == ["a0.0.mp4", "c0.0.mp4"]


def test_number_of_videos(dataset):
    assert [r.url for r in read_list(dataset, 2)] == ["url0", "url1"]


def test_goes_on_until_so_many_succeed(dataset, store):
    downloader = FakeDownloader(store, broken=["url0"])
    run(dataset, downloader, "--N_videos", "1", "--do_download")
    assert downloader.calls == ["url0", "url1"] and len(list((dataset / "videos_orig").iterdir())) == 1
    again = FakeDownloader(store)  # the one that is there counts after those before it
    run(dataset, again, "--N_videos", "2", "--do_download")
    assert again.calls == ["url0"] and len(list((dataset / "videos_orig").iterdir())) == 2


def test_metas_keep_the_whole_record(dataset, store):
    run(dataset, FakeDownloader(store), "--N_videos", "1", "--do_download", "--do_clip")
    line = (dataset / "hdvila-100M.jsonl").read_text().splitlines()[0]
    assert json.loads((dataset / "metas/c0.0.json").read_text()) == json.loads(line)


def test_the_list_may_have_a_mark_and_blank_lines(dataset, store):
    file = dataset / "hdvila-100M.jsonl"
    file.write_text("\ufeff\n\n" + file.read_text(), encoding="utf-8")
    assert len(read_list(dataset, 9)) == 3
    file.write_text('\n\n{"url": 3}')
    with pytest.raises(InputError, match="line 3: 'url' is 3"):
        read_list(dataset, 9)


def test_everything_failing_is_an_error(dataset, store):
    with pytest.raises(InputError, match="none of 3 videos"):
        run(dataset, FakeDownloader(store, broken=["url0", "url1", "url2"]), "--do_download")


def test_mistakes_are_named(dataset, store, tmp_path):
    with pytest.raises(InputError, match="--do_download"):
        run(dataset, FakeDownloader(store))
    with pytest.raises(InputError, match=r"hdvila-100M\.jsonl is missing.*TempoFunk/hdvila-100M"):
        run(tmp_path, FakeDownloader(store), "--do_download")
    with pytest.raises(InputError, match="metas"):
        run(tmp_path, FakeDownloader(store), "--do_clip")
    (dataset / "hdvila-100M.jsonl").write_text('{"url": "u", "video_id": "../../etc"}')
    with pytest.raises(InputError, match="line 1: 'clip_id'"):
        run(dataset, FakeDownloader(store), "--do_download")


def test_names_may_not_leave_the_folder(dataset, store):
    line = json.loads((dataset / "hdvila-100M.jsonl").read_text().splitlines()[0])
    (dataset / "hdvila-100M.jsonl").write_text(json.dumps({**line, "video_id": "../x"}))
    with pytest.raises(InputError, match="no plain file name"):
        run(dataset, FakeDownloader(store), "--do_download")


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:00:00.500", 0.5), ("1:02:03.25", 3723.25), ("00:00:17.759", 17.759), ("0:1:2", 62)]
)
def test_times(text, seconds):
    assert parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["12", "0:61:00", "0:00:-1", "a:b:c", "0:0:nan", "1:2:3:4"])
def test_wrong_times(text):
    with pytest.raises(InputError, match="time"):
        parse_time(text)


def test_cut_clips_look_like_their_span(tmp_path):
    """Colours by the source's tags, turned and with oblong pixels as displayed."""
    (tmp_path / "metas").mkdir()
    (tmp_path / "videos_orig").mkdir()
    encode(tmp_path / "videos_orig/v.mp4", [patches()] * 20, rate=10, matrix=1)
    phone = (0, 1, -1, 0)
    turned = [stored_for(numbered(n, 64, 96), phone)[:, ::2] for n in range(20)]
    encode(tmp_path / "videos_orig/phone.mp4", turned, rate=10, aspect=Fraction(2))
    set_matrix(tmp_path / "videos_orig/phone.mp4", *phone)
    for name in ("v", "phone"):
        record = {"url": "u", "video_id": name, "clip_id": f"{name}-cut.mp4", "caption": "c"}
        record |= {"span_start": "0:00:00.500", "span_end": "0:00:01.500"}
        (tmp_path / f"metas/{name}.json").write_text(json.dumps(record))
    main("help", ["--dataset_path", str(tmp_path), "--do_clip"])
    colours = patches_of(read_frames(tmp_path / "videos/v-cut.mp4")[:, 4].permute(1, 2, 0).numpy())
    assert abs(colours - PATCHES).max() <= 5
    info = probe(tmp_path / "videos/phone-cut.mp4")
    assert (info.frames, info.fps, info.height, info.width) == (10, 10, 96, 64)
    assert numbers(read_frames(tmp_path / "videos/phone-cut.mp4")) == list(range(5, 15))
