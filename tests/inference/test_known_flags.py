import runpy
import sys
from pathlib import Path

import pytest

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import known_flags
from nemo_cosmos.inference.prompts import default_negative_prompt

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Parses flags as the script does and returns the job and requests it would run."""
    for name in (
        "Cosmos-Predict1-7B-Video2World",
        "Cosmos-Predict1-14B-Text2World_post-trained",
        "Cosmos-Predict1-7B-Text2World",
        "mine",
    ):
        (tmp_path / "weights" / name).mkdir(parents=True)
        (tmp_path / "weights" / name / "model.pt").touch()
    (tmp_path / "weights" / "Cosmos-Tokenize1-CV8x8x8-720p").mkdir()
    (tmp_path / "a.png").touch()
    seen = []
    monkeypatch.setattr(known_flags, "run_job", lambda job, requests: seen.append((job, requests)))

    def call(kind, *flags):
        arguments = known_flags.build_parser(kind, "").parse_args(
            ["--checkpoint_dir", str(tmp_path / "weights"), *[str(f) for f in flags]]
        )
        known_flags.run_script(kind, arguments)
        return seen.pop()

    call.folder = tmp_path
    return call


def test_video2world_flags(run):
    job, (request,) = run(
        "Video2World", "--input_image_or_video_path", run.folder / "a.png", "--prompt", "go", "--num_input_frames", 9,
        "--num_steps", 20, "--guidance", 5, "--height", 352, "--width", 640, "--fps", 12, "--seed", 4,
        "--num_video_frames", 57, "--video_save_folder", run.folder / "out", "--video_save_name", "robot",
        "--disable_prompt_upsampler", "--disable_guardrail", "--offload_diffusion_transformer",
        "--offload_text_encoder_model",
    )  # fmt: skip
    c = job.config
    assert (c.height, c.width, c.num_frames, c.fps, c.seed) == (352, 640, 57, 12, 4)
    assert (c.num_steps, c.guidance, c.num_input_frames, c.input_from) == (20, 5, 9, "end")
    assert c.negative_prompt == default_negative_prompt()
    assert (request.name, request.prompt, request.visual_input) == ("robot", "go", run.folder / "a.png")
    assert job.weights == run.folder / "weights" / "Cosmos-Predict1-7B-Video2World" / "model.pt"
    assert (job.preset, job.upsampler, job.guardrail, job.num_gpus) == ("predict1-7b-video2world", None, False, 1)
    assert job.offload == {"network", "text_encoder"} and job.output == run.folder / "out"


def test_text2world_defaults(run):
    job, _ = run("Text2World", "--prompt", "go", "--disable_prompt_upsampler", "--negative_prompt", "")
    c = job.config
    assert (c.height, c.width, c.num_frames, c.fps, c.seed, c.num_steps, c.guidance) == (704, 1280, 121, 24, 1, 35, 7)
    assert c.negative_prompt is None and job.guardrail is None and job.offload == frozenset()
    assert job.preset == "predict1-7b-text2world" and job.text_encoder == "google-t5/t5-11b"


def test_names_of_weights(run):
    job, _ = run(
        "Text2World",
        "--prompt",
        "go",
        "--disable_prompt_upsampler",
        "--diffusion_transformer_dir",
        "Cosmos-Predict1-14B-Text2World_post-trained",
    )
    assert job.preset == "predict1-14b-text2world"
    with pytest.raises(InputError, match="give --preset"):
        run("Text2World", "--prompt", "go", "--disable_prompt_upsampler", "--diffusion_transformer_dir", "mine")
    (run.folder / "run").mkdir()
    job, _ = run(
        "Text2World", "--prompt", "go", "--disable_prompt_upsampler", "--diffusion_transformer_dir", run.folder / "run"
    )
    assert (job.weights, job.preset) == (run.folder / "run", None)
    with pytest.raises(InputError, match=r"neither .* exists"):
        run("Text2World", "--prompt", "go", "--disable_prompt_upsampler", "--diffusion_transformer_dir", "gone")


def test_the_upsampler_is_named_or_switched_off(run):
    with pytest.raises(InputError, match="pass --disable_prompt_upsampler"):
        run("Text2World", "--prompt", "go")
    job, _ = run("Text2World", "--prompt", "go", "--prompt_upsampler_dir", "some/model")
    assert (job.upsampler, job.upsampler_word_limit) == ("some/model", 250)


def test_batch_of_inputs(run):
    batch = run.folder / "batch.jsonl"
    batch.write_text(f'{{"prompt": "a", "visual_input": "{run.folder / "a.png"}"}}\n{{"prompt": "b"}}\n')
    _, requests = run("Text2World", "--batch_input_path", batch, "--disable_prompt_upsampler")
    assert [r.name for r in requests] == ["0", "1"]
    with pytest.raises(InputError, match="'1' has no visual_input"):
        run("Video2World", "--batch_input_path", batch, "--disable_prompt_upsampler")


def test_missing_prompts_and_inputs(run):
    with pytest.raises(InputError, match="--prompt or --batch_input_path"):
        run("Text2World")
    with pytest.raises(InputError, match="--input_image_or_video_path or"):
        run("Video2World", "--prompt", "go")
    with pytest.raises(InputError, match="no prompt: required with"):
        run("Video2World", "--input_image_or_video_path", run.folder / "a.png", "--disable_prompt_upsampler")


@pytest.mark.parametrize("script", ["video2world.py", "text2world.py"])
def test_scripts_end_with_one_line_on_a_mistake(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "--checkpoint_dir", "gone", "--prompt", "go"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: --")
    assert not list(tmp_path.iterdir())
