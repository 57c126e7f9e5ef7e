"""`sample-data worlds`: the same files for any number of processes, a list that is true, mistakes that are told."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest

from nemo_cosmos import cli
from nemo_cosmos.data.video import probe
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.sample_worlds import KINDS, LIST_NAME, WorldsSettings, render_worlds
from tests.scenes.pictures_of import make_photographs

SMALL = WorldsSettings(clips=4, held_out=2, size=(32, 48), frames=5, seed=1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    made = make_photographs(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield made


@pytest.fixture(scope="module")
def rendered(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("rendered") / "out"
    videos = list(render_worlds(out, SMALL, photographs=photographs))
    return out, videos


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_is_the_one_that_prepare_reads(rendered):
    out, videos = rendered
    names = [video.relative_to(out).as_posix() for video in videos]
    assert names[0] == "train/videos/train_00000.mp4" and names[-1] == "held_out/videos/held_out_00001.mp4"
    for video in videos:
        info = probe(video)
        assert (info.frames, info.height, info.width) == (5, 32, 48) and 3 <= info.fps <= 30
        assert (video.parents[1] / "metas" / f"{video.stem}.txt").read_text().strip()


def test_any_number_of_processes_writes_the_same_files(rendered, photographs, tmp_path):
    out, videos = rendered
    again = list(render_worlds(tmp_path / "b", SMALL, workers=2, photographs=photographs))
    assert [video.name for video in again] == [video.name for video in videos]
    assert files(tmp_path / "b") == files(out)


def test_what_is_there_is_kept_and_the_rest_is_made(rendered, photographs, tmp_path):
    rendering = render_worlds(tmp_path / "c", SMALL, photographs=photographs)
    first = next(rendering)
    rendering.close()
    assert not (tmp_path / "c" / LIST_NAME).exists(), "the list is written when all clips are there"
    time = first.stat().st_mtime_ns
    second = first.with_name("train_00001.mp4")
    list(render_worlds(tmp_path / "c", SMALL, photographs=photographs))
    second.unlink()
    list(render_worlds(tmp_path / "c", SMALL, photographs=photographs))
    assert first.stat().st_mtime_ns == time
    assert files(tmp_path / "c") == files(rendered[0])


def test_the_list_has_the_digest_of_every_clip_and_photograph(rendered, photographs):
    out, videos = rendered
    listed = json.loads((out / LIST_NAME).read_text())
    assert [clip["name"] for clip in listed["clips"]] == [video.stem for video in videos]
    for clip, video in zip(listed["clips"], videos, strict=True):
        assert clip["sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
        assert clip["split"] == video.parents[1].name and clip["kind"] in KINDS
    known = {shot["name"]: shot for shot in listed["photographs"]}
    for photograph in photographs:
        shot = known[photograph.name]
        assert (shot["sha256"], shot["licence"], shot["package"]) == (photograph.sha256, "CC0 1.0", "a-test")
    made_from = {name for clip in listed["clips"] for name in clip["made_from"]}
    assert made_from & set(known) and all(name in known or "texture" in name for name in made_from)
    assert "--clips 4 --held-out 2 --size 32x48 --frames 5 --seed 1" in listed["made_by"]


def test_other_settings_are_refused(rendered, photographs):
    with pytest.raises(InputError, match="seed=1, not 2"):
        list(render_worlds(rendered[0], WorldsSettings(4, 2, (32, 48), 5, 2), photographs=photographs))


def test_a_file_that_cannot_be_written_is_named(photographs, tmp_path):
    (tmp_path / "d/train/videos/train_00000.mp4").mkdir(parents=True)
    (tmp_path / "d/sample_data.json").write_text(
        json.dumps({"kind": "worlds", **vars(SMALL), "size": [32, 48]}), encoding="utf-8"
    )
    with pytest.raises((InputError, OSError)) as told:
        list(render_worlds(tmp_path / "d", SMALL, photographs=photographs))
    assert "train_00000.mp4" in str(told.value) and "Traceback" not in str(told.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "31x48"], "even numbers"),
        (["--size", "96"], "96"),
        (["--frames", "1"], "--frames: "),
        (["--clips", "0"], "--clips: "),
        (["--workers", "0"], "--workers: "),
        (["--seed", "-1"], "--seed: "),
        (["--frames", "10000", "--size", "1024x1024"], "render fewer or smaller frames"),
    ],
)
def test_numbers_are_refused_before_anything_is_written(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", "sample-data", "worlds", "out", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_missing_photograph_is_told_and_can_be_gone_without(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nemo_cosmos.scenes.photographs.find_spec", lambda name: None)
    words = ["sample-data", "worlds", "out", "--clips=2", "--held-out=0", "--size=16x16", "--frames=2", "--workers=1"]
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and line.startswith("error: ") and 'pip install "nemo_cosmos[tiny]"' in line
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["nemo-cosmos", *words, "--without-photos"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and "2 clips in out/train" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / LIST_NAME).read_text())["photographs"] == []
