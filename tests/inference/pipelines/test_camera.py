"""Videos along a trajectory: which rays the network is told, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import nemo_cosmos as nc
from nemo_cosmos.camera.rays import Cameras, fitted, normalise
from nemo_cosmos.camera.stored import stored_rays
from nemo_cosmos.camera.trajectories import read_trajectory
from nemo_cosmos.commands.generate import generate
from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.job import GenerationJob, run_job
from nemo_cosmos.inference.requests import GenerationRequest, requests_from_jsonl
from nemo_cosmos.models.dit.model import CosmosDiT
from tests.inference import runs
from tests.parallel.processes import run_processes

SETTINGS: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 9, "num_steps": 2, "crf": 0, "fps": 7.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camera")
    runs.write_models(folder, "tiny-video2world-camera")
    write_poses(folder / "transforms.json", 12)
    return folder


def write_poses(file: Path, count: int, size: tuple[int, int] = (32, 48)) -> None:
    """A camera that goes to the right, in the form of nerfstudio."""
    frames = []
    for number in range(count):
        pose = np.eye(4)
        pose[0, 3] = 0.3 * number
        frames.append({"file_path": f"images/{number:03d}.png", "transform_matrix": pose.tolist()})
    height, width = size
    told = {"w": width, "h": height, "fl_x": 40.0, "fl_y": 40.0, "cx": width / 2, "cy": height / 2, "frames": frames}
    file.write_text(json.dumps(told))


def job(folder: Path, output: str, **settings: Any) -> GenerationJob:
    config = GenerationConfig(**{**SETTINGS, "input_from": "start", **settings})
    return GenerationJob(
        weights=folder / "run", tokenizer=folder / "tokenizer", output=folder / output, config=config,
        text_encoder=str(folder / "text"), guardrail=False,
    )  # fmt: skip


def make(folder: Path, output: str, way: str | None, given: Path | None = None, **settings: Any) -> None:
    request = GenerationRequest("video", "a room", given or folder / "clip.mp4", trajectory=way)
    run_job(job(folder, output, **settings), [request])


def video(folder: Path, output: str, way: str | None, given: Path | None = None, **settings: Any) -> Tensor:
    make(folder, output, way, given, **settings)
    return read_frames(folder / output / "video.mp4").int()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The rays of every evaluation."""
    seen: list[Tensor] = []
    forward = CosmosDiT.forward

    def spy(self: CosmosDiT, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(kwargs["plucker"])
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(CosmosDiT, "forward", spy)
    return seen


def test_both_branches_are_told_the_rays_of_the_file(folder: Path, told: list[Tensor]) -> None:
    video(folder, "file", str(folder / "transforms.json"), guidance=3.0)
    cameras = read_trajectory(folder / "transforms.json", 9, (32, 48))
    chunk, scale = normalise(cameras)
    assert scale == pytest.approx(8 * 0.3)
    expected = stored_rays(chunk.poses, chunk.intrinsics, chunk.size, (3, 4, 6), "last")
    assert len(told) >= 2 * 2 and all(torch.equal(rays[0], expected) for rays in told)
    assert not expected[3:, 0].any(), "the first frame is the origin"
    picture = np.asarray(Image.open(folder / "file" / "video_trajectory.png"))
    assert picture.std() > 1
    record = json.loads((folder / "file" / "video.json").read_text())
    assert record["trajectory"]["path"] == str(folder / "transforms.json") and record["measured"]["fps"] == 7


def test_another_trajectory_is_another_video_and_a_finished_one_is_not_made_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = video(folder, "left", "orbit_left:0.5")
    assert torch.equal(video(folder, "again", None, trajectory="orbit_left:0.5"), left)
    right = video(folder, "right", "orbit_right:0.5")
    assert not torch.equal(left, right)
    with caplog.at_level("INFO"):
        video(folder, "right", "orbit_right:0.5")
        assert "is finished: skipped" in caplog.text
        video(folder, "right", "orbit_right:0.6")
    assert "made with other trajectory" in caplog.text
    (folder / "right" / "video_trajectory.png").unlink()
    video(folder, "right", "orbit_right:0.6")
    assert (folder / "right" / "video_trajectory.png").is_file()


def test_poses_are_brought_to_the_size_as_the_picture_is(folder: Path, told: list[Tensor]) -> None:
    """A picture of another shape between bars: rays in the bars are zero, and the bars show it mirrored."""
    image = torch.arange(32 * 32).view(32, 32).repeat_interleave(2, 0) % 251
    Image.fromarray(image[..., None].repeat(1, 1, 3).byte().numpy()).save(folder / "tall.png")
    write_poses(folder / "tall.json", 9, (64, 32))
    video(folder, "tall", str(folder / "tall.json"), folder / "tall.png", fit="pad")
    rays = told[0][0]
    # 16 of 48 columns of pixels show it: two of six cells.
    assert not rays[..., :2].any() and not rays[..., 4:].any() and rays[:3, :, :, 2:4].norm(dim=0).min() > 0.99
    named = read_trajectory("pan_left:0.2", 9, (32, 48), fit="pad", picture=(64, 32), fov=60.0)
    video(folder, "named", "pan_left:0.2", folder / "tall.png", fit="pad", fov=60.0)
    focal = 16 / np.tan(np.pi / 6) / 2
    assert named.intrinsics[0].tolist() == pytest.approx([focal, focal, 24, 16])


def test_a_longer_video_has_the_rays_of_each_chunk(folder: Path, told: list[Tensor]) -> None:
    write_poses(folder / "long.json", 13)
    made = video(
        folder, "long", str(folder / "long.json"), num_frames=13, chunk_frames=9, overlap_frames=5, guidance=0.0
    )
    assert made.shape[1] == 13
    chunks = {tuple(rays.flatten()[:0].shape) + (round(float(rays.sum()), 4),) for rays in told}
    cameras = read_trajectory(folder / "long.json", 13, (32, 48))
    second, _ = normalise(cameras[4:13])
    expected = stored_rays(second.poses, second.intrinsics, second.size, (3, 4, 6), "last")
    assert torch.equal(told[-1][0], expected) and len(chunks) == 1, "an even way looks alike from every pose"


def test_too_few_poses(folder: Path, told: list[Tensor]) -> None:
    write_poses(folder / "few.json", 5)
    with pytest.raises(InputError, match=r"few\.json has 5 poses, but the clip has 9 frames.*resample_trajectory"):
        video(folder, "few", str(folder / "few.json"))
    assert not (folder / "few").exists() and not told
    video(folder, "spread", str(folder / "few.json"), resample_trajectory=True)
    write_poses(folder / "nine.json", 9)
    video(folder, "nine", str(folder / "nine.json"))
    assert torch.allclose(told[0], told[-1], atol=1e-6), "the same way, and lengths are divided by it"


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        (None, "no trajectory, which the network needs"),
        ("orbit_lft:0.3", "did you mean orbit_left"),
        ("missing.json", r"missing\.json"),
        ("clip.mp4", r"clip\.mp4"),
    ],
)
def test_what_is_no_trajectory(trajectory: str | None, message: str, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=message):
        video(folder, "none", trajectory)
    assert not (folder / "none").exists()


def test_networks_without_rays_refuse_trajectories(folder: Path, tmp_path: Path) -> None:
    runs.write_models(tmp_path)
    request = GenerationRequest("video", "a room", tmp_path / "clip.mp4", trajectory="orbit_left")
    with pytest.raises(InputError, match="a trajectory, but the weights are a network without camera rays"):
        run_job(job(tmp_path, "out", input_from="end"), [request])
    with pytest.raises(InputError, match="trajectory=orbit_left: has no effect"):
        run_job(job(tmp_path, "out", trajectory="orbit_left"), [replace(request, trajectory=None)])


def test_processes_that_share_a_video_make_the_same_one(folder: Path) -> None:
    one = video(folder, "one", "spiral")
    run_processes(2, make, folder, "shared", "spiral", log=folder / "logs")
    assert (read_frames(folder / "shared" / "video.mp4").int() - one).abs().max() <= 1


def test_command_batch_and_python(folder: Path) -> None:
    expected = video(folder, "expected", "dolly_in:0.4")
    batch = folder / "batch.jsonl"
    lines = [
        {"prompt": "a room", "visual_input": "clip.mp4", "name": "video", "trajectory": "dolly_in:0.4"},
        {"prompt": "a room", "visual_input": "clip.mp4", "name": "other", "trajectory": "transforms.json"},
    ]
    batch.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert requests_from_jsonl(batch)[1].trajectory == str(folder / "transforms.json")
    app = typer.Typer()
    app.command()(generate)
    arguments = [
        "--model", folder / "run", "--tokenizer", folder / "tokenizer", "--text-encoder", folder / "text",
        "--output", folder / "command", "--batch", batch, "--no-guardrail", "--fov", 90,
        *(word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", value)),
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert torch.equal(read_frames(folder / "command" / "video.mp4").int(), expected)
    assert (folder / "command" / "other_trajectory.png").is_file()
    pipe = nc.Pipeline.from_pretrained(
        folder / "run", tokenizer=folder / "tokenizer", text_encoder=folder / "text", guardrail=False
    )
    settings = {name: value for name, value in SETTINGS.items() if name != "crf"}
    made = pipe("a room", video=folder / "clip.mp4", trajectory="dolly_in:0.4", **settings)
    write_mp4(folder / "python.mp4", torch.from_numpy(made).permute(3, 0, 1, 2), 7.0, 0)
    # Models that stay loaded may round the last bit otherwise, which is a level or two in a file.
    assert (read_frames(folder / "python.mp4").int() - expected).abs().float().mean() < 0.5
    with pytest.raises(InputError, match="no trajectory"):
        pipe("a room", video=folder / "clip.mp4", **settings)


def test_without_a_rate_it_is_that_of_the_scenes(folder: Path) -> None:
    write_mp4(folder / "fast.mp4", torch.zeros(3, 9, 32, 48, dtype=torch.uint8), fps=30.0)
    video(folder, "rate", "orbit_left", folder / "fast.mp4", fps=None)
    assert json.loads((folder / "rate" / "video.json").read_text())["measured"]["fps"] == 7


def test_fitted_cameras_of_the_input_and_of_the_file_agree() -> None:
    """What ``read_trajectory`` does with a file's pictures is what is done with the input's."""
    cameras = Cameras(torch.eye(4).repeat(2, 1, 1), torch.tensor([[40.0, 40.0, 16.0, 32.0]] * 2), (64, 32))
    brought = fitted(cameras, (32, 48), "pad")
    assert brought.intrinsics[0].tolist() == [20.0, 20.0, 24.0, 16.0]
