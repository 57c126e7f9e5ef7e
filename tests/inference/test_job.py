import json
import sys
import types

import pytest
import torch

from nemo_cosmos.data.video import probe, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import job as module
from nemo_cosmos.inference.config import GenerationConfig, weight_defaults
from nemo_cosmos.inference.job import GenerationJob, describe_network, run_job
from nemo_cosmos.inference.pipelines import world
from nemo_cosmos.inference.requests import GenerationRequest, collect_requests


@pytest.fixture
def folder(tmp_path):
    """Two clips in the HD-VILA layout."""
    (tmp_path / "clips" / "metas").mkdir(parents=True)
    for name in ("b", "a"):
        write_mp4(tmp_path / "clips" / "videos" / f"{name}.mp4", torch.full((3, 9, 32, 48), 80).to(torch.uint8), fps=8)
        (tmp_path / "clips" / "metas" / f"{name}.txt").write_text(f"clip {name}\n")
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def job(folder, models, fakes, monkeypatch):
    built = []

    def build(*args):
        built.append(models(target=0.0))
        return built[-1]

    monkeypatch.setattr(module, "build_models", build)
    monkeypatch.setattr(module, "describe_network", lambda *args: fakes.dit())
    settings = GenerationConfig(height=32, width=48, num_frames=5, num_steps=2)

    def make(**changes):
        values = {"weights": folder / "run", "tokenizer": folder, "output": folder / "out", "config": settings}
        return GenerationJob(**{**values, **changes})

    make.built = built
    return make


def test_clips_become_videos_with_prompt_and_record(job, folder):
    summary = run_job(job(), collect_requests(source=folder / "clips"))
    assert summary.written == ["a", "b"]
    out = folder / "out"
    assert sorted(p.name for p in out.iterdir()) == [f"{n}.{s}" for n in "ab" for s in ("json", "mp4", "txt")]
    info = probe(out / "a.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (5, 32, 48, pytest.approx(8))
    assert (out / "b.txt").read_text() == "clip b\n"
    record = json.loads((out / "a.json").read_text())
    assert record["final_prompt"] == "clip a" and record["settings"]["num_steps"] == 2


def test_finished_videos_are_skipped_and_others_made(job, folder):
    requests = collect_requests(source=folder / "clips")
    run_job(job(), requests)
    before = (folder / "out" / "a.mp4").stat().st_mtime_ns
    (folder / "out" / "b.json").unlink()
    summary = run_job(job(), requests)
    assert (summary.finished_before, summary.written) == (["a"], ["b"])
    assert (folder / "out" / "a.mp4").stat().st_mtime_ns == before
    assert run_job(job(), requests).written == [] and len(job.built) == 2
    assert run_job(job(overwrite=True), requests).written == ["a", "b"]


def test_other_settings_make_a_video_again(job, folder):
    requests = collect_requests(source=folder / "clips", limit=1)
    run_job(job(), requests)
    changed = GenerationConfig(height=32, width=48, num_frames=5, num_steps=3)
    assert run_job(job(config=changed), requests).written == ["a"]
    (folder / "run" / "checkpoints").mkdir()
    (folder / "run" / "checkpoints" / "latest_checkpoint.txt").write_text("iter_000000010")
    assert run_job(job(config=changed), requests).written == ["a"]


def test_a_failure_leaves_no_half_written_video(job, folder, monkeypatch):
    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world, "write_mp4", fail)
    with pytest.raises(InputError, match=r"no space left while writing to .*out"):
        run_job(job(), collect_requests(source=folder / "clips", limit=1))
    assert not list((folder / "out").glob("*.mp4")) and not list((folder / "out").glob("*.json"))


def test_missing_input_stops_before_any_model_is_loaded(job, folder):
    with pytest.raises(InputError, match=r"x: input .*gone.png does not exist"):
        run_job(job(), [GenerationRequest("x", "go", folder / "gone.png")])
    assert not job.built and not (folder / "out").exists()


def test_batch_file(folder):
    (folder / "clips" / "batch.jsonl").write_text(
        '{"prompt": " go ", "visual_input": "videos/a.mp4"}\n\n{"prompt": "stay", "name": "still", "seed": 9}\n'
    )
    first, second = collect_requests(batch=folder / "clips" / "batch.jsonl")
    assert (first.name, first.prompt, first.visual_input) == ("0", "go", folder / "clips" / "videos" / "a.mp4")
    assert (second.name, second.visual_input, second.seed) == ("still", None, 9)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "holds no request"),
        ('{"prompt": "a"}\n{"prompt"', "line 2: no JSON object"),
        ('{"promt": "a"}', "unknown field 'promt'"),
        ('{"prompt": 3}', "prompt=3, expected a str"),
        ("[1]", "line 1: expected an object"),
        ('{"prompt": "a", "name": "../x"}', "output name"),
        (json.dumps({"prompt": "a", "name": "x" * 250}), "has 250 bytes; expected at most 230"),
        ('{"prompt": "half \\ud800"}', "the prompt .* is no UTF-8 text"),
        ('{"prompt": "a", "name": "\\ud800"}', "line 1: name .* is no UTF-8 text"),
        ('{"visual_input": "a\\u0000b"}', "line 1: visual_input .* NUL character"),
        ('{"prompt": "a", "name": "1"}\n{"prompt": "b"}', "two requests are named '1'"),
    ],
)
def test_bad_batch_files_name_the_line(tmp_path, content, message):
    (tmp_path / "batch.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        collect_requests(batch=tmp_path / "batch.jsonl")


def test_long_clip_names_become_shorter_file_names(tmp_path):
    clip = tmp_path / "videos" / ("d" * 150) / f"{'n' * 150}.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    (tmp_path / "metas").mkdir()
    (tmp_path / "metas" / f"{clip.stem}.txt").write_text("go")
    [request] = collect_requests(source=tmp_path)
    assert len(request.name) < 100 and request.visual_input == clip


@pytest.mark.parametrize(
    ("given", "words"), [(".", "is a folder"), ("n" * 300, "too long"), ("/dev/null", "no regular file")]
)
def test_inputs_that_are_no_files(job, folder, given, words):
    with pytest.raises(InputError, match=words):
        run_job(job(), [GenerationRequest("a", "go", folder / given)])


def test_sources_that_are_not_there(folder):
    (folder / "clips" / "metas" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a.mp4 has no caption: expected .*a.txt"):
        collect_requests(source=folder / "clips")
    with pytest.raises(InputError, match="holds no video"):
        collect_requests(source=folder)
    with pytest.raises(InputError, match="one of"):
        collect_requests()
    with pytest.raises(InputError, match="one of"):
        collect_requests(prompt="a", source=folder / "clips")


def write_run(folder, **manifest):
    from nemo_cosmos.data.manifest import Manifest
    from nemo_cosmos.data.sample import TokenizerIdentity

    values = {
        "samples": 0,
        "tokenizer": TokenizerIdentity("t", "0" * 64, 4, 8, 16),
        "text_encoder": "words",
        "latent_shapes": [[16, 5, 4, 6]],
        "latent_dtypes": ["F32"],
        "text_widths": [8],
        "num_frames": [17],
        "image_sizes": [[32, 48]],
        "settings": {"fit": "pad", "fps": 4.0, "step": 2},
        "shards": [],
        **manifest,
    }
    (folder / "shards").mkdir()
    Manifest(**values).save(folder / "shards")
    (folder / "run" / "config.yaml").write_text(
        f"data:\n  path: {folder / 'shards'}\n  text_length: 32\ndiffusion:\n  sigma_data: 0.5\n"
    )


def test_a_run_brings_its_sizes(folder):
    write_run(folder)
    (folder / "run" / "checkpoints").mkdir()
    for inner in ("", "checkpoints", "checkpoints/iter_000000001_ema_model.pt"):
        path = folder / "run" / inner
        got = weight_defaults(path, GenerationConfig())
        assert (got.size, got.num_frames, got.text_length, got.sigma_data) == ((32, 48), 17, 32, 0.5)
        assert got.tokenizer.name == "t" and got.text_encoder == "words"
        assert (got.fit, got.input_fps, got.input_step) == ("pad", 4.0, 2)


def test_a_run_whose_shards_are_gone_needs_sizes(folder):
    (folder / "run" / "config.yaml").write_text("data:\n  path: gone\n  text_length: 32\n")
    with pytest.raises(InputError, match="give --width, --num-frames"):
        weight_defaults(folder / "run", GenerationConfig(height=32))
    got = weight_defaults(folder / "run", GenerationConfig(height=32, width=32, num_frames=9))
    assert got.text_length == 32


def test_run_on_raw_videos_says_what_it_was_trained_on(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "data:\n  mode: online\n  path: clips\n  text_length: 12\n  num_frames: 9\n  size: [32, 48]\n"
    )
    got = weight_defaults(tmp_path, GenerationConfig())
    assert (got.size, got.num_frames, got.text_length) == ((32, 48), 9, 12)


def test_a_run_on_several_sizes_needs_one(folder):
    write_run(folder, image_sizes=[[32, 48], [48, 32]])
    with pytest.raises(InputError, match="several sizes"):
        weight_defaults(folder / "run", GenerationConfig())
    with pytest.raises(InputError, match=r"32x48, 48x32.*--height and --width"):
        weight_defaults(folder / "run", GenerationConfig(height=48))
    assert weight_defaults(folder / "run", GenerationConfig(height=32, width=48)).num_frames == 17


def test_the_network_is_described_by_the_run_or_a_preset(folder, fakes):
    dit = fakes.dit("tiny-predict2-video2world")
    (folder / "run" / "checkpoints").mkdir()
    (folder / "run" / "checkpoints" / "model_config.json").write_text(json.dumps(dit.to_dict()))
    assert describe_network(folder / "run", None) == dit
    (folder / "model.pt").touch()
    assert describe_network(folder / "model.pt", "predict1-7b-video2world").num_layers == 28
    with pytest.raises(InputError, match=r"model_config\.json"):
        describe_network(folder / "model.pt", None)
    with pytest.raises(InputError, match="leave out the preset"):
        describe_network(folder / "run", "tiny-video2world")
    with pytest.raises(InputError, match="does not exist"):
        describe_network(folder / "gone.pt", None)


def test_guardrails_run_where_they_are_installed(monkeypatch, caplog):
    from nemo_cosmos.inference import guardrail

    monkeypatch.setattr(guardrail.importlib.util, "find_spec", lambda name: None)
    assert guardrail.guardrail_wanted(None) is False and "is not installed" in caplog.text
    with pytest.raises(InputError, match="pip install cosmos_guardrail"):
        guardrail.guardrail_wanted(True)
    monkeypatch.setattr(guardrail.importlib.util, "find_spec", lambda name: object())
    with caplog.at_level("INFO"):
        assert guardrail.guardrail_wanted(None) is True
    assert "checks prompts before and videos after" in caplog.text
    assert guardrail.guardrail_wanted(False) is False and "off by request" in caplog.text


def test_the_guardrail_package_is_called_as_it_is_published(monkeypatch):
    class Checker:
        def to(self, device):
            self.device = device

        def check_text_safety(self, prompt):
            return "bad" not in prompt

        def check_video_safety(self, frames):
            assert frames.shape == (4, 16, 24, 3) and frames.dtype.name == "uint8"
            return None if frames.max() > 200 else frames + 1

    monkeypatch.setitem(sys.modules, "cosmos_guardrail", types.SimpleNamespace(CosmosSafetyChecker=Checker))
    from nemo_cosmos.inference.guardrail import CosmosGuardrail

    guard = CosmosGuardrail("cpu")
    assert guard.allows_prompt("good") and not guard.allows_prompt("bad")
    frames = torch.zeros(3, 4, 16, 24, dtype=torch.uint8)
    assert torch.equal(guard.filter_video(frames), frames + 1)
    assert guard.filter_video(frames + 255) is None


@pytest.mark.parametrize(
    "bad", [{"num_steps": 1}, {"fps": 0}, {"fps": float("inf")}, {"seed": -1}, {"sampler": "x"}, {"num_frames": 0}]
)
def test_bad_settings_name_the_setting(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        GenerationConfig(**bad)
