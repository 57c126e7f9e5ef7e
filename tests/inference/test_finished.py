"""A video is finished while everything that shapes it is what it was."""

import os

import pytest
import torch
from PIL import Image

from nemo_cosmos.data.video import probe, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import job as module
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import GenerationJob, run_job
from nemo_cosmos.inference.requests import GenerationRequest, collect_requests


@pytest.fixture
def folder(tmp_path):
    for name in ("tokenizer/model.safetensors", "text/config.json", "model.pt", "run/model_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345678")
    Image.new("RGB", (48, 32), (80, 80, 80)).save(tmp_path / "a.png")
    return tmp_path


@pytest.fixture
def job(folder, models, fakes, monkeypatch):
    monkeypatch.setattr(module, "build_models", lambda *args: models(target=0.0))
    monkeypatch.setattr(module, "describe_network", lambda *args: fakes.dit())

    def make(**changes):
        values = {
            "weights": folder / "model.pt",
            "tokenizer": folder / "tokenizer",
            "text_encoder": str(folder / "text"),
            "output": folder / "out",
            "config": GenerationConfig(height=32, width=48, num_frames=5, num_steps=2),
        }
        return GenerationJob(**{**values, **changes})

    return make


@pytest.fixture
def made(job, folder):
    """Whether a job makes its one video (again)."""

    def make(**changes):
        return run_job(job(**changes), [GenerationRequest("v", "go", folder / "a.png")]).written == ["v"]

    return make


@pytest.mark.parametrize("file", ["model.pt", "tokenizer/model.safetensors", "text/config.json"])
def test_other_files_under_the_old_name(made, folder, file):
    """Of the same size, as weights of one network are."""
    assert made() and not made()
    (folder / file).write_bytes(b"87654321")
    os.utime(folder / file, ns=(0, 1))
    assert made() and not made()


def test_another_save_of_a_run(made, folder):
    saves = folder / "run" / "checkpoints"
    saves.mkdir()
    (saves / "latest_checkpoint.txt").write_text("iter_000000010.pt")
    for kind in ("ema", "reg"):
        (saves / f"iter_000000010_{kind}_model.pt").write_bytes(b"1")
    assert made(weights=folder / "run") and not made(weights=folder / "run")
    (folder / "run" / "metrics.jsonl").write_text("{}")  # what else a run writes is no other weights
    os.utime(saves / "iter_000000010_reg_model.pt", ns=(0, 1))
    assert not made(weights=folder / "run")
    os.utime(saves / "iter_000000010_ema_model.pt", ns=(0, 1))
    assert made(weights=folder / "run")


def test_another_input_of_the_same_name(made, folder):
    assert made()
    content = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content)
    assert not made()
    Image.new("RGB", (48, 32), (81, 80, 80)).save(folder / "a.png")
    assert made()


def test_another_precision(made):
    assert made() and not made(dtype=torch.float32)
    assert made(dtype=torch.bfloat16) and made(text_encoder_dtype=torch.bfloat16)


def test_a_video_that_was_replaced_half_way_is_not_finished(made, folder, monkeypatch):
    """A second job stops between the video and its record: the first job's record does not speak of that video."""
    assert made()

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", stop)
    other = GenerationConfig(height=32, width=48, num_frames=5, num_steps=3)
    with pytest.raises(KeyboardInterrupt):
        made(config=other)
    monkeypatch.undo()
    assert not (folder / "out" / "v.json").exists()


def test_an_output_that_cannot_be_written_stops_before_a_model_is_loaded(made, folder, monkeypatch):
    monkeypatch.setattr(module, "build_models", lambda *args: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"a\.png is a file; name another"):
        made(output=folder / "a.png" / "out")
    monkeypatch.setattr("nemo_cosmos.errors.os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="out cannot be written: no permission"):
        made()


@pytest.fixture
def clips(tmp_path):
    root = tmp_path / "clips"
    for name in ("top.mp4", "Other.MOV", "day/below.mkv"):
        write_mp4(root / "videos" / name, torch.full((3, 9, 32, 48), 80).to(torch.uint8), fps=8)
    (root / "videos" / "film.MTS").touch()
    (root / "metas" / "day").mkdir(parents=True)
    for name, text in {"top": "", "Other": "other", "day/below": "below"}.items():
        (root / "metas" / f"{name}.txt").write_text(text)
    return root


def test_a_source_is_what_prepare_reads(job, clips, caplog):
    """Suffixes of any case, subfolders, and an empty caption, which is generated as it was trained."""
    with caplog.at_level("INFO"):
        requests = collect_requests(source=clips)
    assert [(r.name, r.prompt) for r in requests] == [("Other", "other"), ("day_below", "below"), ("top", "")]
    assert "1 .MTS" in caplog.text
    assert run_job(job(), requests).written == ["Other", "day_below", "top"]
    assert probe(job().output / "top.mp4").frames == 5


def test_plain_folders_and_lists_are_sources(tmp_path):
    write_mp4(tmp_path / "plain" / "x.webm.avi", torch.zeros(3, 4, 32, 32, dtype=torch.uint8), 8)
    (tmp_path / "plain" / "x.webm.txt").write_text("words")
    (tmp_path / "list.jsonl").write_text('\ufeff{"video": "plain/x.webm.avi", "caption": "more"}\n', encoding="utf-8")
    for source, prompt in ((tmp_path / "plain", "words"), (tmp_path / "list.jsonl", "more")):
        (request,) = collect_requests(source=source)
        assert (request.prompt, request.visual_input.name) == (prompt, "x.webm.avi")


def test_batch_files_with_a_mark_and_blank_lines(tmp_path):
    file = tmp_path / "batch.jsonl"
    file.write_text('\ufeff\n{"prompt": "a\u2028b"}\n\n{"prompt": ""}\n{"prompt": null}\n', encoding="utf-8")
    assert [(r.name, r.prompt, r.has_prompt) for r in collect_requests(batch=file)] == [
        ("1", "a\u2028b", True),
        ("3", "", True),
        ("4", "", False),
    ]
    file.write_text('\n\n{"prompt": 3}\n')
    with pytest.raises(InputError, match="line 3: prompt=3"):
        collect_requests(batch=file)
    file.write_bytes("{'ü'".encode("latin-1"))
    with pytest.raises(InputError, match=r"batch\.jsonl is not UTF-8"):
        collect_requests(batch=file)
