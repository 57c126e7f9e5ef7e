"""The commands of Cosmos-Predict2 on tiny models: what they write, and what they refuse."""

from __future__ import annotations

import json
import logging
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nemo_cosmos.checkpoint.files import MODEL_CONFIG
from nemo_cosmos.checkpoint.lora import save_adapter
from nemo_cosmos.data.video import probe, write_mp4
from nemo_cosmos.inference import predict2_flags
from nemo_cosmos.inference.config import trained_text_length
from nemo_cosmos.inference.prompts import released_negative_prompt
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.dit.lora import LoraSpec, adapter_entries
from nemo_cosmos.models.text import save_tiny_text_encoder
from tests.models.wan import save_tiny_wan_vae

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "adaln_lora_dim": 8, "text_width": 32}
SPEC = LoraSpec(2, 4.0, ("to_q", "ff.net.2"))


def network(kind: str, seed: int, **sizes: int) -> dict[str, Tensor]:
    net = build_dit(DiTConfig.preset(f"tiny-predict2-{kind}", **{**SIZES, **sizes}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.final_layer.parameters():
        parameter.data.normal_(std=0.05, generator=generator)
    return net.to_original()


def adapters(kind: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    entries = adapter_entries(DiTConfig.preset(f"tiny-predict2-{kind}", **SIZES), SPEC)
    return {
        f"{e.diffusers}.{factor}": torch.randn(shape, generator=generator)
        for e in entries
        for factor, shape in (("lora_A", (2, e.shape[1])), ("lora_B", (e.shape[0], 2)))
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For either kind a folder with both weights in one file, as training exports it, and each alone; adapters."""
    folder = tmp_path_factory.mktemp("predict2")
    for kind in ("text2image", "video2world"):
        place = folder / kind
        place.mkdir()
        config = DiTConfig.preset(f"tiny-predict2-{kind}", **SIZES)
        (place / MODEL_CONFIG).write_text(json.dumps(config.to_dict()))
        regular, averaged = network(kind, 0), network(kind, 1)
        torch.save(regular, place / "reg.pt")
        torch.save(averaged, place / "ema.pt")
        torch.save(regular | {k.replace("net.", "net_ema.", 1): v for k, v in averaged.items()}, place / "both.pt")
        factors = adapters(kind)
        save_adapter(place / "adapter", SPEC, factors)
        merged, inside = dict(regular), dict(regular)
        for entry in adapter_entries(config, SPEC):
            name = f"net.{entry.original}"
            a, b = (factors[f"{entry.diffusers}.{factor}"] for factor in ("lora_A", "lora_B"))
            merged[name] = regular[name] + 2 * b @ a
            layer = name.removesuffix(".weight")
            del inside[name]
            inside |= {f"{layer}.base_layer.weight": regular[name], f"{layer}.lora_A.default.weight": a,
                       f"{layer}.lora_B.default.weight": b}  # fmt: skip
        torch.save(merged, place / "merged.pt")
        torch.save(inside, place / "inside.pt")
    save_tiny_text_encoder(folder / "text", width=32)
    save_tiny_wan_vae(folder / "vae")
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / "first.png")
    rows = torch.arange(32 * 48).view(1, 1, 32, 48) % 200 + torch.arange(9).view(1, 9, 1, 1) * 5
    write_mp4(folder / "clip.mp4", rows.expand(3, 9, 32, 48).to(torch.uint8).contiguous(), fps=8)
    return folder


Run = Callable[..., int]


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script as a user does, in an empty folder; gives its exit status."""
    monkeypatch.chdir(tmp_path)

    def call(script: str, *words: Any, small: bool = True, dit: str | None = "reg.pt") -> int:
        kind = "text2image" if script == "text2image" else "video2world"
        sizes = ["--height", 32, "--width", 48, "--num_steps", 2, "--disable_guardrail"] if small else []
        tools = ["--tokenizer", models / "vae", "--text_encoder", models / "text"]
        path = [] if dit is None else ["--dit_path", models / kind / dit]
        argv = [str(EXAMPLES / f"{script}.py"), *map(str, [*path, *tools, *sizes, *words])]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return call


def test_an_image_from_each_kind_of_weights(run: Run, tmp_path: Path) -> None:
    images = {}
    for name, dit, words in (
        ("reg", "reg.pt", []), ("both", "both.pt", []), ("ema", "ema.pt", []), ("both_ema", "both.pt", ["--load_ema"]),
        ("merged", "merged.pt", []), ("inside", "inside.pt", ["--lora_alpha", 4]),
        ("adapter", "reg.pt", ["--lora_path", tmp_path.parent / "none"]),
    ):  # fmt: skip
        status = run("text2image", "--prompt", "a red disc", "--save_path", f"out/{name}.png", *words, dit=dit)
        assert status == (2 if name == "adapter" else 0), name
        if not status:
            images[name] = np.asarray(Image.open(f"out/{name}.png")).astype(int)
    assert images["reg"].shape == (32, 48, 3)
    assert np.array_equal(images["reg"], images["both"]) and np.array_equal(images["ema"], images["both_ema"])
    assert np.abs(images["reg"] - images["ema"]).max() > 2 and np.abs(images["reg"] - images["merged"]).max() > 2
    assert np.abs(images["inside"] - images["merged"]).max() <= 1
    assert not Path("out/adapter.png").exists()


def test_adapters_beside_the_weights(run: Run, models: Path) -> None:
    adapter = models / "text2image" / "adapter"
    for name, dit, words in (
        ("plain", "reg.pt", []),
        ("merged", "merged.pt", []),
        ("adapter", "reg.pt", ["--lora_path", adapter]),
        ("halves", "reg.pt", ["--lora_path", f"{adapter}:0.75", "--lora_path", f"{adapter}:0.25"]),
        ("nothing", "reg.pt", ["--lora_path", f"{adapter}:0.5", "--lora_path", f"{adapter}:-0.5"]),
    ):
        assert run("text2image", "--prompt", "a", "--save_path", f"{name}.png", *words, dit=dit) == 0
    images = {
        n: np.asarray(Image.open(f"{n}.png")).astype(int) for n in ("plain", "merged", "adapter", "halves", "nothing")
    }
    assert np.abs(images["merged"] - images["adapter"]).max() <= 1
    assert np.abs(images["merged"] - images["halves"]).max() <= 1
    assert np.abs(images["plain"] - images["nothing"]).max() <= 1
    assert np.abs(images["plain"] - images["merged"]).max() > 2


def test_what_is_written_of_an_image(run: Run) -> None:
    assert run("text2image", "--prompt", " a red disc ", "--save_path", "out/disc.jpg") == 0
    assert sorted(file.name for file in Path("out").iterdir()) == ["disc.jpg", "disc.json", "disc.txt"]
    record = json.loads(Path("out/disc.json").read_text())
    assert Path("out/disc.txt").read_text() == "a red disc\n"
    settings = record["settings"]
    assert (settings["guidance"], settings["seed"], settings["negative_prompt"]) == (4.0, 0, None)
    assert (record["kind"], record["prompt"]) == ("reg", "a red disc")


@pytest.mark.parametrize("given", ["first.png", "clip.mp4"])
def test_a_video(given: str, run: Run, models: Path) -> None:
    frames = 5 if given.endswith(".mp4") else 1
    words = ["--num_frames", 9, "--num_conditional_frames", frames, "--save_path", "out/disc.mp4", "--fps", "10"]
    assert run("video2world_predict2", "--prompt", "go", "--input_path", models / given, *words) == 0
    info = probe(Path("out/disc.mp4"))
    assert (info.frames, info.height, info.width, info.fps) == (9, 32, 48, pytest.approx(10))
    settings = json.loads(Path("out/disc.json").read_text())["settings"]
    assert settings["guidance"] == 7 and settings["negative_prompt"] == released_negative_prompt()
    assert settings["num_input_frames"] == frames and settings["input_from"] == "end"


def test_a_batch(run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("nemo_cosmos"), "propagate", True)
    entries = [{"prompt": "a", "output_image": "one/x.jpg"}, {"output_image": "one/y.jpg"}, {"prompt": "b"},
               {"prompt": "c", "output_image": "two/x.png"}]  # fmt: skip
    Path("batch.json").write_text(json.dumps(entries))
    assert run("text2image", "--batch_input_json", "batch.json") == 0
    assert sorted(str(file) for file in Path().glob("**/*.jpg")) == ["one/x.jpg", "output_2.jpg"]
    assert Image.open("two/x.png").format == "PNG"
    assert "entry 1 has no prompt: passed over" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "expected a JSON list"),
        ("[", "no JSON"),
        ("[]", "holds no request"),
        ('[{"prompt": "a", "seed": 3}]', "entry 0: unknown field 'seed'; expected prompt, output_image"),
        ('[{"prompt": 3}]', "entry 0: prompt=3, expected text"),
        (
            '[{"prompt": "a", "output_image": "x.bmp"}]',
            r"x.bmp: expected the name of a file to write that ends in .jpg",
        ),
        ('[{"prompt": "a", "output_image": "x.jpg"}, {"prompt": "b", "output_image": "x.jpg"}]', "two entries"),
        ('[{"prompt": "a", "output_image": ".x.jpg"}]', "entry 0: output name '.x'"),
    ],
)
def test_batches_that_are_refused(content: str, message: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("batch.json").write_text(content)
    assert run("text2image", "--batch_input_json", "batch.json") == 2
    assert message in (error := capsys.readouterr().err) and error.count("\n") == 1, error
    assert [file.name for file in Path().iterdir()] == ["batch.json"]


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("text2image", ["--load_ema"], "--load_ema: {dit} has no averaged weights (EMA), no net_ema.*"),
        ("text2image", ["--model_size", "0.6B"], "--model_size 0.6B: the 0.6B network has a tokenizer"),
        ("text2image", ["--model_size", "7B"], "--model_size 7B; expected 2B or 14B"),
        ("text2image", ["--distill_steps", 2], "--distill_steps 2: only the 0.6B"),
        ("text2image", ["--benchmark"], "--benchmark: time is measured by nemo-cosmos bench"),
        ("text2image", ["--use_cuda_graphs"], "--use_cuda_graphs: "),
        ("text2image", ["--aspect_ratio", "1:1"], "--aspect_ratio and --height"),
        ("text2image", ["--lora_alpha", 4], "lora_alpha=4 has no effect"),
        ("text2image", ["--dit_path", "gone.pt"], "--dit_path gone.pt: nothing there"),
        ("text2image", ["--dit_path", "{models}/video2world/reg.pt"], "a Video2World network, expected one of "
         "Predict2 Text2Image; examples/video2world_predict2.py"),
        ("text2image", ["--lora_path", "{models}/video2world/inside.pt", "--lora_path", "{other}"],
         "it is the adapter of a network of another size"),
        ("text2image", ["--save_path", "out"], "out: expected the name of a file"),
        ("video2world_predict2", [], "--input_path or --batch_input_json is required"),
        ("video2world_predict2", ["--natten"], "--natten: networks with sparse attention"),
        ("video2world_predict2", ["--num_conditional_frames", 3], "expected 1 or 5"),
        ("video2world_predict2", ["--input_path", "{models}/first.png", "--num_conditional_frames", 5],
         "is an image: it gives 1 frame, not"),
        ("video2world_predict2", ["--input_path", "gone.mp4"], "gone.mp4"),
    ],
)  # fmt: skip
def test_what_is_refused(
    script: str, words: list[Any], message: str, run: Run, models: Path, tmp_path: Path, capsys: Any
) -> None:
    other = tmp_path / "other"
    wide = DiTConfig.preset("tiny-predict2-text2image", **{**SIZES, "hidden_size": 128})
    tensors = {f"{e.diffusers}.{f}": torch.zeros((2, e.shape[1]) if f == "lora_A" else (e.shape[0], 2))
               for e in adapter_entries(wide, SPEC) for f in ("lora_A", "lora_B")}  # fmt: skip
    save_adapter(other, SPEC, tensors)
    words = [str(word).format(models=models, other=other) for word in words]
    dit = models / ("text2image" if script == "text2image" else "video2world") / "reg.pt"
    frames = ["--num_frames", 9] if script != "text2image" else []
    assert run(script, "--prompt", "go", *frames, *words) == 2
    error = capsys.readouterr().err
    assert message.format(dit=dit) in error and error.strip().splitlines()[-1].startswith("error: "), error
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_the_size_of_a_file_that_does_not_say(
    run: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "bare" / "model.pt"
    file.parent.mkdir()
    small = network("text2image", 0)
    torch.save(small, file)
    for words, expected in (
        ([], "expected 2B or 14B"),
        (["--model_size", "14B"], "expected 14B, 36 layers of width 5120"),
    ):
        assert run("text2image", "--prompt", "go", "--dit_path", file, *words) == 2
        assert f"is a network of 2 layers of width 64; {expected}" in capsys.readouterr().err
    # As much of the 14B as its names and shapes tell.
    meta = {"net.x_embedder.proj.1.weight": torch.zeros(1).expand(5120, 68)}
    torch.save(meta | {f"net.blocks.{i}.x": torch.zeros(1) for i in range(36)}, file)
    assert run("text2image", "--prompt", "go", "--dit_path", file, "--model_size", "2B") == 2
    message = "is a network of 36 layers of width 5120, 14B; expected 2B, 28 layers of width 2048 (--model_size)"
    assert message in capsys.readouterr().err
    seen: list[Any] = []
    monkeypatch.setattr(predict2_flags, "run_job", lambda job, requests: seen.append(job))
    assert run("text2image", "--prompt", "go", "--dit_path", file) == 0
    assert (seen[0].preset, seen[0].weights) == ("predict2-14b-text2image", file)


def test_settings_of_a_run_are_found_from_its_joint_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "model").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("data: {path: gone, text_length: 12}")
    assert trained_text_length(tmp_path / "checkpoints" / "model" / "iter_000000004.pt") == 12
    assert trained_text_length(tmp_path / "checkpoints" / "iter_000000004_ema_model.pt") == 12


def test_a_network_of_a_size_of_its_own_is_of_the_size_that_its_run_names(run: Run, models: Path, capsys: Any) -> None:
    place = models / "text2image"
    (place / "config.yaml").write_text("model:\n  preset: predict2-14b-text2image\ndata:\n  path: gone\n")
    try:
        assert run("text2image", "--prompt", "go", "--model_size", "14B", "--save_path", "a.jpg") == 0
        assert run("text2image", "--prompt", "go", "--model_size", "2B", "--save_path", "b.jpg") == 2
    finally:
        (place / "config.yaml").unlink()
    assert "2 layers of width 64, 14B; expected 2B" in capsys.readouterr().err


def test_released_models_and_their_defaults(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(predict2_flags, "run_job", lambda job, requests: seen.append((job, requests)))
    assert run("text2image", "--prompt", "go", small=False, dit=None) == 2
    expected = "checkpoints/nvidia/Cosmos-Predict2-2B-Text2Image/model.pt is not there"
    assert expected in capsys.readouterr().err
    for repository, name, features in (
        ("2B-Text2Image", "model.pt", 68),
        ("2B-Video2World", "model-480p-10fps.pt", 72),
    ):
        place = Path(f"checkpoints/nvidia/Cosmos-Predict2-{repository}")
        place.mkdir(parents=True)
        weights = {"net.x_embedder.proj.1.weight": torch.zeros(1).expand(2048, features)}
        torch.save(weights | {f"net.blocks.{i}.x": torch.zeros(1) for i in range(28)}, place / name)
    Path("a.png").touch()
    run("text2image", "--prompt", "go", small=False, dit=None)
    job, (request,) = seen.pop()
    c = job.config
    assert (c.height, c.width, c.num_frames, c.guidance, c.num_steps, c.seed) == (768, 1360, 1, 4.0, 35, 0)
    assert (job.preset, job.kind, job.output, request.name) == (
        "predict2-2b-text2image", "reg", Path("output"), "generated_image")  # fmt: skip
    run("video2world_predict2", "--prompt", "go", "--input_path", "a.png", "--resolution", "480", "--fps", "10",
        "--aspect_ratio", "3:4", "--offload_text_encoder",
        "--downcast_text_encoder", dit=None, small=False)  # fmt: skip
    job, _ = seen.pop()
    c = job.config
    assert (c.height, c.width, c.num_frames, c.fps, c.guidance) == (640, 480, 61, 10, 7)
    assert (job.preset, job.upsampler, job.offload) == ("predict2-2b-video2world", None, {"text_encoder"})
    assert job.text_encoder_dtype == torch.bfloat16 and job.num_gpus == 1
    run("video2world_predict2", "--prompt", "go", "--input_path", "a.png", "--negative_prompt", "", small=False)
    job, _ = seen.pop()
    assert (job.config.height, job.config.width, job.config.num_frames, job.config.fps) == (704, 1280, 93, 16)
    assert job.config.negative_prompt is None


def test_a_long_prompt_is_cut_with_a_warning(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nemo_cosmos"), "propagate", True)
    assert run("text2image", "--prompt", "robot " * 600, "--save_path", "a.jpg") == 0
    assert "a: only the first 512 of 601 text tokens are used" in caplog.text
