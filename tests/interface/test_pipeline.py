"""`nc.Pipeline`: frames in and out, as the command makes them."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import nemo_cosmos as nc
from nemo_cosmos.checkpoint.lora import save_adapter
from nemo_cosmos.commands.generate import generate
from nemo_cosmos.data.video import probe, read_frames
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference import loading
from nemo_cosmos.inference import pretrained as pretrained_module
from nemo_cosmos.inference.pipelines import world
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from tests.interface.verbs import command

SMALL = {"height": 32, "width": 48, "num_frames": 9, "num_steps": 2}


def test_frames_equal_those_of_the_command_bit_for_bit(
    folder: Path, pipe: nc.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(world, "write_mp4", lambda path, frames, *rest: written.append((frames, *rest)))
    models = ("--model", folder / "run", "--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text")
    flags = ("--height", 32, "--width", 48, "--num-frames", 9, "--num-steps", 2, "--crf", 0, "--seed", 5)
    say = ("--prompt", "a red disc", "--negative-prompt", "blur", "--guidance", 3, "--num-input-frames", 5)
    command(generate, *models, *flags, *say, "--input", folder / "clip.mp4", "--output", tmp_path)
    video = pipe(
        "a red disc",
        video=folder / "clip.mp4",
        negative_prompt="blur",
        guidance=3.0,
        num_input_frames=5,
        seed=5,
        **SMALL,
    )
    [(frames, fps, _)] = written
    assert video.dtype == np.uint8 and video.shape == (9, 32, 48, 3) and video.flags.c_contiguous
    assert np.array_equal(video, frames.permute(1, 2, 3, 0).numpy())
    assert pipe.fps == fps == pytest.approx(8)
    other = pipe("a red disc", video=folder / "clip.mp4", num_input_frames=5, seed=6, **SMALL)
    assert not np.array_equal(other, video)


def test_models_are_read_once(folder: Path, pipe: nc.Pipeline) -> None:
    first = pipe("a disc", image=folder / "frame.png", **SMALL)
    assert np.array_equal(pipe("a disc", image=folder / "frame.png", **SMALL), first)
    parts = (pipe.models.network, pipe.models.tokenizer, pipe.models.text_encoder)
    assert [part.loads for part in parts] == [1, 1, 1]


def test_files_images_and_arrays_of_the_same_pixels_give_the_same_video(folder: Path, pipe: nc.Pipeline) -> None:
    file = folder / "frame.png"
    array = np.asarray(Image.open(file))
    videos = [pipe("go", image=image, **SMALL) for image in (file, str(file), Image.open(file), array, array[:, ::1])]
    assert all(np.array_equal(video, videos[0]) for video in videos)
    turned = pipe("go", image=array[::-1], **SMALL)
    assert not np.array_equal(turned, videos[0])
    frames = read_frames(folder / "clip.mp4").permute(1, 2, 3, 0).numpy()
    settings = {**SMALL, "num_input_frames": 5}
    from_file = pipe("go", video=folder / "clip.mp4", **settings)
    assert np.array_equal(pipe("go", video=frames, fps=8.0, **settings), from_file)
    assert np.array_equal(pipe("go", video=frames[-5:], fps=8.0, input_from="start", **settings), from_file)


def test_text_alone_and_long_videos(pipe: nc.Pipeline) -> None:
    assert pipe("go", **SMALL).shape == (9, 32, 48, 3)
    assert pipe("", **SMALL).shape == (9, 32, 48, 3)
    long = pipe("go", **{**SMALL, "num_frames": 13}, chunk_frames=9, overlap_frames=5, fps=12)
    assert long.shape == (13, 32, 48, 3) and pipe.fps == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": 5}, "prompt='5'"),
        ({"prompt": None}, "prompt: say what to generate"),
        ({"image": np.zeros((32, 48), np.uint8)}, r"image has the shape \(32, 48\).*\(H, W, 3\) uint8"),
        ({"image": np.zeros((3, 32, 48), np.uint8)}, "image has the shape"),
        ({"image": np.zeros((1, 32, 48, 3), np.uint8)}, "image has the shape"),
        ({"image": np.zeros((32, 48, 3), np.float32)}, "image has .*float32.*expected .*uint8"),
        ({"image": np.zeros((32, 48, 4), np.uint8)}, "image has the shape"),
        ({"image": np.zeros((0, 48, 3), np.uint8)}, "image has the shape"),
        ({"image": object()}, "image has .*object"),
        ({"image": "gone.png"}, "image=gone.png does not exist"),
        ({"image": "."}, "image=. is a folder"),
        ({"video": np.zeros((9, 32, 48, 3))}, "video has .*float64"),
        ({"video": np.zeros((32, 48, 3), np.uint8)}, r"video has .*expected \(T, H, W, 3\)"),
        ({"video": np.zeros((3, 32, 48, 3), np.uint8), "num_input_frames": 5}, "video has 3 frames, too few"),
        ({"video": "gone.mp4"}, "video=gone.mp4 does not exist"),
        ({"image": np.zeros((32, 48, 3), np.uint8), "num_input_frames": 5}, "image has 1 frames, too few"),
        (
            {"image": np.zeros((32, 48, 3), np.uint8), "video": np.zeros((9, 32, 48, 3), np.uint8)},
            "image and video: give one",
        ),
        ({"num_frames": 10}, "num_frames=10.*nearest legal 9 or 13"),
        ({"num_frames": "9"}, "num_frames='9'"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": 9.0}, "num_frames=9.0"),
        ({"num_frames": 113, "chunk_frames": 113}, "num_frames=113"),
        ({"height": 30}, "height=30"),
        ({"height": None}, "--height"),
        ({"num_steps": 1}, "num_steps=1"),
        ({"guidance": float("inf")}, "guidance=inf"),
        ({"negative_prompt": 5}, "negative_prompt=5"),
        ({"fps": 0}, "fps=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"fit": "squeeze"}, "fit='squeeze'"),
        ({"sampler": "ddim"}, "sampler='ddim'"),
        ({"input_from": "middle"}, "input_from='middle'"),
    ],
)
def test_mistakes_of_a_call_name_the_argument(pipe: nc.Pipeline, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipe(**{"prompt": "go", **SMALL, **arguments})


def test_an_image_is_no_video_nor_the_other_way_round(folder: Path, pipe: nc.Pipeline) -> None:
    with pytest.raises(InputError, match=r"frame.png is an image; give it as image="):
        pipe("go", video=folder / "frame.png", **SMALL)
    with pytest.raises(InputError, match=r"clip.mp4 is no image; a video is given as video="):
        pipe("go", image=folder / "clip.mp4", **SMALL)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "gone"}, "gone does not exist"),
        ({"model": "nobody/nothing"}, "nobody/nothing does not exist here, and as a repository of the hub"),
        ({"model": 5}, "model=5"),
        ({"tokenizer": None}, "tokenizer: name the tokenizer of .*, a folder such as"),
        ({"tokenizer": "gone"}, "gone: no such tokenizer folder"),
        ({"tokenizer": "nobody/nothing"}, "nobody/nothing does not exist here"),
        ({"text_encoder": "nowhere"}, "nowhere"),
        ({"lora": "gone"}, "gone"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"weights": "best"}, "weights='best'"),
        ({"preset": "tiny-video2world"}, "is a run folder"),
        ({"offload": ("wheels",)}, "offload="),
        ({"guardrail": True}, "cosmos_guardrail is not installed"),
    ],
)
def test_mistakes_of_loading(folder: Path, changed: Any, message: str) -> None:
    given = {"model": folder / "run", "tokenizer": folder / "tokenizer", "text_encoder": folder / "text"}
    with pytest.raises(InputError, match=message):
        nc.Pipeline.from_pretrained(**{**given, **changed})


def test_adapters_are_merged_as_by_the_command(
    folder: Path, pipe: nc.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dit = DiTConfig.from_dict(pipe.models.dit.to_dict())
    spec = LoraSpec(2, 2.0, ("to_q", "to_v"))
    tensors = {}
    for entry in adapter_entries(dit, spec):
        tensors[f"{entry.diffusers}.lora_A"] = torch.full((2, entry.shape[1]), 0.2)
        tensors[f"{entry.diffusers}.lora_B"] = torch.full((entry.shape[0], 2), 0.2)
    save_adapter(tmp_path / "lora", spec, tensors)
    models = {"tokenizer": folder / "tokenizer", "text_encoder": folder / "text"}
    adapted = nc.Pipeline.from_pretrained(folder / "run", **models, lora=tmp_path / "lora", offload=("network",))
    video = adapted("go", image=folder / "frame.png", **SMALL)
    assert not np.array_equal(video, pipe("go", image=folder / "frame.png", **SMALL))
    written: list[Any] = []
    monkeypatch.setattr(world, "write_mp4", lambda path, frames, *rest: written.append(frames))
    flags = ("--model", folder / "run", "--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text")
    more = ("--lora", tmp_path / "lora", "--prompt", "go", "--input", folder / "frame.png", "--output", tmp_path)
    size = ("--height", 32, "--width", 48, "--num-frames", 9, "--num-steps", 2)
    command(generate, *flags, *more, *size)
    assert np.array_equal(video, written[0].permute(1, 2, 3, 0).numpy())
    parts = nc.Pipeline.from_pretrained(
        folder / "run", **models, lora=[(tmp_path / "lora", 2), (tmp_path / "lora", -1)]
    )
    again = parts("go", image=folder / "frame.png", **SMALL)
    assert np.abs(again.astype(int) - video.astype(int)).max() <= 1
    with pytest.raises(InputError, match="lora="):
        nc.Pipeline.from_pretrained(folder / "run", **models, lora=[("a", "b")])


def test_a_released_repository_of_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``model.pt`` is found in the download, and the network by the repository's name."""
    from nemo_cosmos.inference import places

    asked = []

    def fetch(name: str, files: Any) -> Path:
        asked.append(name)
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / "model.pt").touch()
        return tmp_path / "cache"

    monkeypatch.setattr(places, "fetch_to_cache", fetch)
    found = places.find_network("nvidia/Cosmos-Predict1-7B-Video2World", None)
    assert found == (tmp_path / "cache" / "model.pt", "predict1-7b-video2world")
    assert places.find_network(tmp_path / "cache", "tiny-video2world")[1] == "tiny-video2world"
    for path in (
        "gone",
        "a/tokenizer.pth",
        "./a/b",
        "/a/b",
        str(tmp_path / "gone"),
        "tests/gone",
        "a/model.pt",
        "a/b/c",
    ):
        assert places.find_folder(path, ()) == Path(path)
    assert asked == ["nvidia/Cosmos-Predict1-7B-Video2World"]


class Guard:
    """Refuses prompts with "bad" in them and, when told, videos."""

    refuses_videos = False

    def allows_prompt(self, prompt: str) -> bool:
        return "bad" not in prompt

    def filter_video(self, frames: torch.Tensor) -> torch.Tensor | None:
        return None if self.refuses_videos else frames * 0

    def to(self, *, device: Any) -> Guard:
        return self


def test_guardrails_refuse_prompts_and_videos_and_change_frames(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = Guard()
    monkeypatch.setattr(loading, "guardrail_wanted", lambda choice: choice is not False)
    monkeypatch.setattr(loading, "CosmosGuardrail", lambda device: guard)
    models = {"tokenizer": folder / "tokenizer", "text_encoder": folder / "text"}
    guarded = nc.Pipeline.from_pretrained(folder / "run", **models)
    assert not guarded("good", **SMALL).any()
    with pytest.raises(InputError, match="the guardrail refused the prompt 'bad'"):
        guarded("bad", **SMALL)
    guard.refuses_videos = True
    with pytest.raises(InputError, match="the guardrail refused the video"):
        guarded("good", **SMALL)
    monkeypatch.undo()
    nc.Pipeline.from_pretrained(folder / "run", **models)
    assert "guardrails: cosmos_guardrail is not installed" in capsys.readouterr().err


def test_settings_and_defaults_are_those_of_the_command() -> None:
    parameters = typer.main.get_command(_app(generate)).params
    flags = {p.name: getattr(p.default, "value", p.default) for p in parameters}
    for function in (nc.Pipeline.__call__, nc.Pipeline.from_pretrained):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in ("self", "image", "video", "input_from", "model", "tokenizer", "offload"):
                continue  # The command's --input, its default by --source, what must be given, and a list.
            assert flags[name] == parameter.default, name


def _app(verb: Any) -> typer.Typer:
    app = typer.Typer()
    app.command()(verb)
    return app


def test_logging_is_as_before(folder: Path, pipe: nc.Pipeline) -> None:
    package = logging.getLogger("nemo_cosmos")
    before = package.level, package.propagate, list(package.handlers)
    pipe("go", **SMALL)
    assert (package.level, package.propagate, list(package.handlers)) == before
    assert pretrained_module.Pipeline is nc.Pipeline


class Documented:
    """`nc` of the pages: arguments must fit the functions, configurations exist, and frames are real but small."""

    def __init__(self, pipe: nc.Pipeline, folder: Path) -> None:
        self.pipe, self.folder, self.fps, self.called = pipe, folder, 8.0, []
        self.Pipeline, self.load_config = self, nc.load_config

    def prepare(self, *args: Any, **options: Any) -> Any:
        self.called.append("prepare")
        inspect.signature(nc.prepare).bind(*args, **options)
        return SimpleNamespace(path=Path("shards"), samples=3)

    def train(self, *args: Any) -> Path:
        self.called.append("train")
        return Path(nc.load_config(*args).output_dir)

    def from_pretrained(self, *args: Any, **options: Any) -> Documented:
        inspect.signature(nc.Pipeline.from_pretrained).bind(*args, **options)
        return self

    def __call__(self, prompt: str, **settings: Any) -> np.ndarray:
        self.called.append("pipe")
        if isinstance(settings.get("image"), str):
            assert settings["image"] == "first_frame.jpg"
            settings["image"] = self.folder / "frame.png"
        return self.pipe(
            prompt, **{**settings, **SMALL, "num_input_frames": settings.get("num_input_frames", 1) // 9 * 4 + 1}
        )


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_documented_code_runs(
    page: str, folder: Path, pipe: nc.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    monkeypatch.chdir(tmp_path)
    found = Documented(pipe, folder)
    names: dict[str, Any] = {"nc": found}
    for block in blocks:
        exec(compile(block.replace("import nemo_cosmos as nc\n", ""), page, "exec"), names)
    assert {"train", "pipe"} <= set(found.called)
    assert page == "README.md" or probe("robot.mp4").frames == 9
