"""Commands that generate with several cameras, on tiny models: what they write, and what they refuse."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

import nemo_cosmos as nc
from nemo_cosmos.checkpoint.lora import save_adapter
from nemo_cosmos.commands.generate import generate
from nemo_cosmos.data.video import probe, read_frames, write_mp4
from nemo_cosmos.inference import known_views_flags, predict2_flags
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import GenerationJob, run_job
from nemo_cosmos.inference.prompts import released_negative_prompt
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from tests.inference import rigs

EXAMPLES = Path(__file__).parents[2] / "examples"
CAMERAS = ["front_wide", "cross_right", "rear_right"]
Run = Callable[..., int]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multiview")
    rigs.write_models(folder)
    rigs.write_clips(folder / "clips", CAMERAS)
    return folder


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs multiview.py as a user does, in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)

    def call(*words: Any, small: bool = True, prompt: Any = "go") -> int:
        sizes = ["--height", rigs.HEIGHT, "--width", rigs.WIDTH, "--num_steps", 2, "--num_frames", rigs.FRAMES]
        tools = ["--dit_path", models / "dit" / "both.pt", "--tokenizer", models / "vae"]
        tools += ["--text_encoder", models / "text", "--disable_guardrail", "--disable_prompt_refiner"]
        asked = [] if prompt is None else ["--prompt", prompt]
        argv = [str(EXAMPLES / "multiview.py"), *map(str, [*tools, *(sizes if small else []), *asked, *words])]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return call


def command(*words: Any, refused: bool = False) -> str:
    """Runs `nemo-cosmos generate`; gives what it says of a mistake."""
    app = typer.Typer()
    app.command()(generate)
    result = CliRunner().invoke(app, [*map(str, words), "--no-guardrail"])
    assert isinstance(result.exception, nc.InputError) if refused else result.exit_code == 0, result.exception
    return str(result.exception)


def views(folder: Path, names: list[str] = CAMERAS) -> Tensor:
    return torch.stack([read_frames(folder / f"{name}.mp4") for name in names]).int()


def test_what_is_written(run: Run, models: Path) -> None:
    assert run("--n_views", 3, "--input_path", models / "clips", "--save_path", "out/x.mp4", "--fps", 10) == 0
    found = sorted(str(file.relative_to("out")) for file in Path("out").rglob("*") if file.is_file())
    assert found == sorted(["x.json", "x.mp4", "x.txt", "x_grid.mp4", *(f"x/{name}.mp4" for name in CAMERAS)])
    whole, grid = probe("out/x.mp4"), probe("out/x_grid.mp4")
    assert (whole.height, whole.width, whole.frames, whole.fps) == (96, 48, 5, pytest.approx(10))
    assert (grid.height, grid.width, grid.frames) == (64, 96, 5)
    cameras = views(Path("out/x"))
    stacked = torch.stack(read_frames("out/x.mp4").chunk(3, dim=2)).int()
    assert (cameras - stacked).abs().float().mean() < 6
    given = torch.stack([read_frames(models / "clips" / f"{name}.mp4")[:, -1] for name in CAMERAS]).int()
    assert len(torch.unique(given.flatten(1), dim=0)) == 3
    record = json.loads(Path("out/x.json").read_text())
    assert record["settings"]["rig"]["cameras"][1] == ["cross_right", 1, "cross right", None]
    assert record["settings"]["negative_prompt"] == released_negative_prompt()
    assert [view["camera"] for view in record["views"]] == CAMERAS and record["measured"]["frames"] == 5
    assert Path("out/x.txt").read_text() == "go\n"


def test_a_result_is_finished_when_all_its_files_are_there(run: Run, models: Path) -> None:
    words = ["--n_views", 3, "--input_path", models / "clips", "--save_path", "x.mp4"]
    assert run(*words) == 0
    times = {file: file.stat().st_mtime_ns for file in Path().rglob("*.mp4")}
    assert run(*words) == 0
    assert times == {file: file.stat().st_mtime_ns for file in Path().rglob("*.mp4")}
    Path("x/cross_right.mp4").unlink()
    Path("x/.cross_right.mp4.killed.tmp").touch()
    assert run(*words) == 0
    assert Path("x/cross_right.mp4").is_file() and not list(Path("x").glob(".*.tmp"))
    assert Path("x.mp4").stat().st_mtime_ns > times[Path("x.mp4")]
    before = Path("x.mp4").stat().st_mtime_ns
    assert run(*words, "--rope_fps", 30) == 0 and Path("x.mp4").stat().st_mtime_ns > before


def test_flags_that_change_the_result_and_those_that_do_not(run: Run, models: Path) -> None:
    words = ["--n_views", 3, "--input_path", models / "clips"]
    made = {}
    for name, more in (
        ("plain", []),
        ("ema", ["--load_ema"]),
        ("fps", ["--fps", 30]),
        ("rope", ["--fps", 10, "--rope_fps", 30]),
        ("none", ["--num_conditional_frames", 0]),
        ("rig", ["--rig", models / "rig.yaml"]),
    ):
        (models / "rig.yaml").write_text(
            "cameras: {rear_right: 2, front_wide: 0, cross_right: 1}\nfront: front_wide\n"
        )
        assert run(*words, *more, "--save_path", f"{name}.mp4", "--num_frames", 9) == 0, name
        made[name] = views(Path(name))
    for name in ("ema", "fps", "none"):
        assert (made[name] - made["plain"]).abs().max() > 2, name
    assert torch.equal(made["rig"], made["plain"])  # Its lines are in another order.
    assert not torch.equal(made["rope"], made["plain"])  # In files of one rate.
    assert probe("fps.mp4").fps == pytest.approx(30) and probe("rope.mp4").fps == pytest.approx(10)


def test_an_output_is_an_input_again(run: Run, models: Path) -> None:
    assert run("--n_views", 3, "--input_path", models / "clips", "--save_path", "x.mp4") == 0
    words = ["--n_views", 3, "--num_conditional_frames", 2, "--num_frames", 9]
    assert run(*words, "--input_path", "x", "--save_path", "a.mp4") == 0
    assert run(*words, "--input_path", "x.mp4", "--input_stacking", "vertical", "--save_path", "b.mp4") == 0
    assert (views(Path("a")) - views(Path("b"))).abs().float().mean() < 8
    assert run(*words, "--input_path", "x.mp4", "--input_stacking", "vertical", "--output_stacking", "time",
               "--save_path", "c.mp4") == 0  # fmt: skip
    assert probe("c.mp4").frames == 27 and probe("c.mp4").height == 32
    assert run(*words, "--input_path", "c.mp4", "--save_path", "d.mp4") == 0
    settings = json.loads(Path("a.json").read_text())["settings"]
    assert settings["num_input_frames"] == 5


def test_a_batch(run: Run, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(models / "clips")
    by_camera = {name: f"{folder}/{name}.mp4" for name in CAMERAS}
    entries = [
        {"prompt": "a", "input_video": folder, "output_video": "one/x.mp4"},
        {"prompt": {"cross_right": "b"}, "input_video": by_camera, "output_video": "two/x.mp4"},
        {"prompt": ["a", "", "c"], "input_video": f"{folder}/{{camera}}.mp4"},
    ]
    Path("batch.json").write_text(json.dumps(entries))
    assert run("--n_views", 3, "--batch_input_json", "batch.json", prompt=None) == 0
    assert Path("one/x_grid.mp4").is_file() and Path("two/x/rear_right.mp4").is_file()
    assert Path("output_2.txt").read_text() == "front_wide: a\nrear_right: c\n"
    assert not torch.equal(views(Path("one/x")), views(Path("two/x")))
    for content, message in (
        ([{"prompt": {"cross_right": 3}, "input_video": folder}], "entry 0: prompt={'cross_right': 3}: expected text"),
        ([{"prompt": "a", "input_video": [folder]}], "entry 0: input_video=["),
        ([{"prompt": "a", "input_video": folder, "output_video": "x.mp4"},
          {"prompt": "a", "input_video": folder, "output_video": "x_grid.mp4"}], "requests would write x_grid.mp4"),
    ):  # fmt: skip
        Path("batch.json").write_text(json.dumps(content))
        assert run("--n_views", 3, "--batch_input_json", "batch.json", prompt=None) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--input_path or --batch_input_json is required"),
        (["--input_path", "{models}/clips", "--n_views", 4], "no input for rear_tele; the cameras are front_wide (0)"),
        (["--num_conditional_frames", 3], "--num_conditional_frames 3: expected 0 or 1 or 2 or 5"),
        (["--num_conditional_frames", 0, "--n_views", 8], "table of 7 views, ids 0 to 6: view_7 (7)"),
        (["--num_conditional_frames", 0, "--n_views", 0], "num_views=0: expected at least 1"),
        (["--num_conditional_frames", 0, "--n_views", 3, "--rig", "waymo"], "waymo.yaml names 5 cameras"),
        (["--num_conditional_frames", 0, "--rig", "gone.yaml"], "gone.yaml does not exist"),
        (["--n_views", 3, "--num_conditional_frames", 0, "--prompt", "{models}/two.txt"], "two.txt has 2 lines"),
        (["--n_views", 3, "--input_path", "{models}/clips/front_wide.mp4", "--num_conditional_frames", 5],
         "front_wide.mp4 has 3 frames of each view, too few"),
        (["--n_views", 2, "--input_path", "{models}/clips/front_wide.mp4"], "9 frames, which do not divide into 2"),
        (["--num_conditional_frames", 0, "--num_frames", 6], "num_frames=6"),
        (["--num_conditional_frames", 0, "--dit_path", "{models}/vae"], "expected CosmosTransformer3DModel"),
        (["--use_cuda_graphs"], "--use_cuda_graphs: "),
    ],
)  # fmt: skip
def test_what_is_refused(words: list[Any], message: str, run: Run, models: Path, tmp_path: Path, capsys: Any) -> None:
    (models / "two.txt").write_text("a\nb\n")
    assert run(*(str(word).format(models=models, camera="{camera}") for word in words)) == 2
    error = capsys.readouterr().err
    assert message.format(models=models) in error and error.strip().splitlines()[-1].startswith("error: "), error
    assert not any(file.suffix == ".mp4" for file in tmp_path.rglob("*"))


def test_other_networks_are_told_apart(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--dit_path", models / "dit" / "both.pt", "--tokenizer", models / "vae", "--prompt", "go"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / "text2image.py"), *map(str, words)])
    with pytest.raises(SystemExit):
        runpy.run_path(sys.argv[0], run_name="__main__")
    assert (
        "is a Multiview network, expected one of Predict2 Text2Image; examples/multiview.py" in capsys.readouterr().err
    )


def test_adapters(run: Run, models: Path) -> None:
    spec, generator = LoraSpec(2, 4.0, ("to_q", "ff.net.2")), torch.Generator().manual_seed(9)
    entries = adapter_entries(DiTConfig.preset("tiny-predict2-multiview", **rigs.SIZES), spec)
    factors = {
        f"{e.diffusers}.{factor}": torch.randn(shape, generator=generator)
        for e in entries
        for factor, shape in (("lora_A", (2, e.shape[1])), ("lora_B", (e.shape[0], 2)))
    }
    save_adapter(Path("adapter"), spec, factors)
    merged = torch.load(models / "dit" / "both.pt")
    for entry in entries:
        a, b = (factors[f"{entry.diffusers}.{factor}"] for factor in ("lora_A", "lora_B"))
        merged[f"net.{entry.original}"] = merged[f"net.{entry.original}"] + 2 * b @ a
    torch.save(merged, models / "dit" / "merged.pt")
    words = ["--n_views", 2, "--num_conditional_frames", 0]
    for name, more in (
        ("plain", []), ("lora", ["--lora_path", "adapter"]), ("merged", ["--dit_path", models / "dit" / "merged.pt"])
    ):  # fmt: skip
        assert run(*words, *more, "--save_path", f"{name}.mp4") == 0
    found = {name: views(Path(name), CAMERAS[:2]) for name in ("plain", "lora", "merged")}
    assert (found["lora"] - found["merged"]).abs().max() <= 2 < (found["lora"] - found["plain"]).abs().max()


def test_released_places_and_defaults(run: Run, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(predict2_flags, "run_job", lambda job, requests: seen.append((job, requests)))
    monkeypatch.setattr(sys, "argv", ["multiview.py"])
    parser = predict2_flags.build_parser("multiview", "")
    place = Path("checkpoints/nvidia/Cosmos-Predict2-2B-Multiview/model-720p-10fps-7views-29frames.pt")
    words = ["--prompt", "go", "--input_path", str(models / "clips"), "--tokenizer", str(models / "vae")]
    with pytest.raises(nc.InputError, match=f"{place} is not there"):
        predict2_flags.run_script("multiview", parser.parse_args(words))
    place.parent.mkdir(parents=True)
    weights = {"net.x_embedder.proj.1.weight": torch.zeros(1).expand(2048, 100)}
    torch.save(weights | {f"net.blocks.{i}.x": torch.zeros(1) for i in range(28)}, place)
    predict2_flags.run_script("multiview", parser.parse_args(words))
    job, _ = seen.pop()
    c = job.config
    assert (job.preset, job.weights, job.kind, job.upsampler) == ("predict2-2b-multiview", place, "reg", None)
    assert (c.height, c.width, c.num_frames, c.fps, c.rope_fps, c.num_views) == (704, 1280, None, 10, None, 1)
    assert (c.guidance, c.seed, c.num_input_frames, c.input_from, c.input_stacking) == (7, 0, 1, "end", "time")


def test_a_run_is_sampled_with_the_cameras_that_it_was_trained_on(run: Run, models: Path, capsys: Any) -> None:
    """Their names, ids and the size come from the manifest of the shards; without it they have to be said."""
    from nemo_cosmos.data.manifest import Manifest

    shards = write_rig_shards(Path("shards"), models / "vae", {"west": 4, "ahead": 0, "east": 2}, "ahead")
    assert Manifest.load(shards).view_ids == [[4, 0, 2]]
    place = models / "dit"
    (place / "config.yaml").write_text(f"data:\n  path: {shards.absolute()}\n")
    try:
        words = ["--num_conditional_frames", 0, "--num_steps", 2]
        assert run(*words, "--save_path", "x.mp4", small=False) == 0
        assert sorted(file.stem for file in Path("x").iterdir()) == ["ahead", "east", "west"]
        info, record = probe("x.mp4"), json.loads(Path("x.json").read_text())
        assert (info.height, info.width, info.frames, info.fps) == (96, 48, 5, pytest.approx(10))
        assert [view["camera"] for view in record["views"] if view["prompt"]] == ["ahead"]
        assert record["settings"]["rig"]["front"] == "ahead"
        assert run(*words, "--n_views", 5, "--save_path", "y.mp4", small=False) == 2
        assert "the training data names 3 cameras, west (4), ahead (0), east (2)" in capsys.readouterr().err
        (place / "config.yaml").write_text("data:\n  path: gone\n")
        assert run(*words, "--save_path", "y.mp4") == 2
        assert "the run does not say which cameras it was trained on" in capsys.readouterr().err
    finally:
        (place / "config.yaml").unlink()


def write_rig_shards(path: Path, vae: Path, cameras: dict[str, int], front: str) -> Path:
    """A sample of 5 frames of 32x48 of each camera, as `prepare` records it."""
    from nemo_cosmos.data.manifest import merge_manifest
    from nemo_cosmos.data.rig import parse_rig
    from nemo_cosmos.data.sample import LatentSample
    from nemo_cosmos.data.shards import ShardWriter
    from nemo_cosmos.models.video_tokenizer import open_tokenizer

    rig = parse_rig({"cameras": cameras, "front": front}, "rig")
    settings = {"rig": rig.described(), "captions": f"front, front {front}"}
    tokenizer = open_tokenizer(vae)
    sample = LatentSample(
        key="a", latent=torch.zeros(16, 2 * len(cameras), 4, 6), text=torch.zeros(len(cameras), 1, 32), caption="go",
        fps=10.0, num_frames=5, image_size=(32, 48, 32, 48), view_ids=torch.tensor(list(rig.view_ids)),
    )  # fmt: skip
    with ShardWriter(path, tokenizer=tokenizer.identity, text_encoder="tiny") as writer:
        writer.write(sample)
    merge_manifest(path, settings=settings)
    return path


def small(models: Path, output: str, **settings: Any) -> None:
    """A job on these models, which other processes can call, too."""
    dtype = settings.pop("dtype", None)
    request = GenerationRequest("x", "go", models / "clips" if settings.pop("given", True) else None)
    config = GenerationConfig(
        **{"height": 32, "width": 48, "num_frames": 9, "num_steps": 3, "crf": 0, "num_views": 3, **settings}
    )
    run_job(
        GenerationJob(models / "dit" / "both.pt", models / "vae", models / output, config, kind="reg",
                      text_encoder=str(models / "text"), dtype=dtype), [request]
    )  # fmt: skip


def test_processes_share_a_video_and_offloading_changes_nothing(models: Path) -> None:
    from tests.parallel.processes import run_processes

    small(models, "alone")
    run_processes(2, small, models, "shared", log=models / "logs")
    alone, shared = views(models / "alone" / "x"), views(models / "shared" / "x")
    assert (alone - shared).abs().max() <= 1
    small(models, "bf16", dtype=torch.bfloat16)
    assert 0 < (views(models / "bf16" / "x") - alone).abs().float().mean() < 8


def test_generate_and_python_do_the_same(models: Path, tmp_path: Path) -> None:
    small(models, "job")
    expected = views(models / "job" / "x").permute(0, 2, 3, 4, 1).numpy()
    words = ["--model", models / "dit" / "both.pt", "--tokenizer", models / "vae", "--text-encoder",
             models / "text", "--weights", "reg", "--height", 32, "--width", 48, "--num-frames", 9, "--num-steps", 3,
             "--crf", 0, "--n-views", 3, "--offload", "network", "--offload", "tokenizer"]  # fmt: skip
    given = ["--input", models / "clips", "--prompt", "go", "--output", tmp_path / "out", "--name", "x"]
    command(*words, *given)
    assert np.array_equal(views(tmp_path / "out" / "x").permute(0, 2, 3, 4, 1).numpy(), expected)
    line = {"prompt": {"front_wide": "go"}, "visual_input": {name: f"clips/{name}.mp4" for name in CAMERAS}}
    (models / "batch.jsonl").write_text(json.dumps(line) + "\n")
    command(*words, "--batch", models / "batch.jsonl", "--output", tmp_path / "batch")
    assert np.array_equal(views(tmp_path / "batch" / "0").permute(0, 2, 3, 4, 1).numpy(), expected)

    pipe = nc.Pipeline.from_pretrained(
        models / "dit" / "both.pt", tokenizer=models / "vae", text_encoder=models / "text", weights="reg"
    )
    settings: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 9, "num_steps": 3, "num_views": 3}
    frames = np.stack([read_frames(models / "clips" / f"{n}.mp4").permute(1, 2, 3, 0).numpy() for n in CAMERAS])
    made = [
        pipe("go", video=video, fps=8.0, **settings)
        for video in (models / "clips", frames, dict(zip(CAMERAS, frames, strict=True)))
    ]
    assert made[0].shape == (3, 9, 32, 48, 3)
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])
    write_mp4(tmp_path / "view.mp4", made[0][1], 8, quality=0)
    assert np.array_equal(read_frames(tmp_path / "view.mp4").permute(1, 2, 3, 0).numpy(), expected[1])
    with pytest.raises(nc.InputError, match="frames of one camera in memory, but there are 3"):
        pipe("go", video=frames[0], **settings)


def test_networks_of_one_camera_take_no_cameras(models: Path, tmp_path: Path) -> None:
    from tests.inference.runs import write_models

    write_models(tmp_path)
    words = ["--model", tmp_path / "run", "--tokenizer", tmp_path / "tokenizer", "--height", 32, "--width",
             48, "--num-frames", 9, "--output", tmp_path / "out", "--prompt", "go"]  # fmt: skip
    for flags, message in (
        (["--rig", "waymo"], "has no effect, the weights make videos"),
        (["--n-views", 2], "num_views=2: has no effect"),
        (["--rope-fps", 30], "rope_fps=30.0: has no effect"),
        (["--input-stacking", "vertical"], "input_stacking=vertical: has no effect"),
        (["--input", models / "clips"], "clips is a folder, expected a file"),
    ):
        assert message in command(*words, *flags, refused=True)
    (tmp_path / "batch.jsonl").write_text('{"prompt": {"a": "b"}}\n')
    del words[-2:]
    assert "for several cameras, but the weights make videos of one" in command(
        *words, "--batch", tmp_path / "batch.jsonl", refused=True
    )


@pytest.mark.parametrize("kind", ["Text2World", "Video2World"])
def test_predict1_scripts(kind: str, models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"Cosmos-Predict1-7B-{kind}-Sample-AV-Multiview"
    (Path("checkpoints") / name).mkdir(parents=True)
    (Path("checkpoints") / name / "model.pt").touch()
    (Path("checkpoints") / "Cosmos-Tokenize1-CV8x8x8-720p").mkdir()
    seen: list[Any] = []
    monkeypatch.setattr(known_views_flags, "run_job", lambda job, requests: seen.append((job, requests)))
    parser = known_views_flags.build_parser(kind, "")  # type: ignore[arg-type]
    given = ["--input_image_or_video_path", "clip.mp4", "--num_input_frames", "9"] if kind == "Video2World" else []
    known_views_flags.run_script(kind, parser.parse_args(["--prompt", "go", "--prompt_left", "trees", *given]))  # type: ignore[arg-type]
    job, (request,) = seen.pop()
    c = job.config
    assert job.preset == f"predict1-7b-{kind.lower()}-multiview" and job.upsampler is None
    assert (c.height, c.width, c.num_frames, c.fps, c.num_steps, c.guidance) == (480, 848, 57, 24, 35, 7)
    assert c.negative_prompt is None and c.num_input_frames == (9 if given else 1)
    assert [camera.frame_repeat for camera in c.rig.cameras] == [0, 0, 0, 0, 10, 10]
    assert request.prompt == "go" and request.other_prompts["left"] == "trees"
    assert "backwards and to the left" in request.other_prompts["back_left"]
    words = ["--prompt", "go", *given, "--frame_repeat_negative_condition", "-1"]
    known_views_flags.run_script(kind, parser.parse_args(words))  # type: ignore[arg-type]
    assert [camera.frame_repeat for camera in seen.pop()[0].config.rig.cameras] == [0] * 6
    with pytest.raises(nc.InputError, match="--prompt or --batch_input_path is required"):
        known_views_flags.run_script(kind, parser.parse_args(given))  # type: ignore[arg-type]


def test_predict1_writes_its_grid_and_its_views_one_after_another(models: Path, tmp_path: Path) -> None:
    rigs.write_models(tmp_path, "tiny-video2world-multiview")
    names = ["front", "left", "right", "back", "back_left", "back_right"]
    words = ["--model", tmp_path / "dit" / "both.pt", "--tokenizer", tmp_path / "vae", "--text-encoder",
             tmp_path / "text", "--height", 32, "--width", 48, "--num-frames", 5, "--num-steps", 2, "--prompt", "go",
             "--output", tmp_path / "out", "--name", "x", "--crf", 0, "--fps", 8]  # fmt: skip
    command(*words)
    found = views(tmp_path / "out" / "x", names)
    whole, grid = read_frames(tmp_path / "out" / "x.mp4").int(), read_frames(tmp_path / "out" / "x_grid.mp4").int()
    assert torch.equal(torch.stack(whole.chunk(6, dim=1)), found)
    tiles = [tile for row in grid.chunk(2, dim=2) for tile in row.chunk(3, dim=3)]
    for tile, name in zip(tiles, ("left", "front", "right", "back_left", "back", "back_right"), strict=True):
        apart = [(tile - view)[:, :, 20:].abs().float().mean() for view in found]  # Below the names.
        assert apart.index(min(apart)) == names.index(name) and min(apart) < 4, name
