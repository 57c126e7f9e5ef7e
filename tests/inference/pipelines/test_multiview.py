"""Generation with several cameras: what the network is told and given of each, and what becomes of its answer."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.data.rig import Rig, parse_rig
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.diffusion import architecture_invariant_noise
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.inputs import GivenFrames
from nemo_cosmos.inference.pipelines.multiview import MultiviewPipeline, SixViewPipeline
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.inference.views import numbered_rig, rig_for, with_views
from tests.inference.rigs import SIZES, network

PRESET = "tiny-predict2-multiview"
DEFAULTS = WeightDefaults(size=(32, 48), num_frames=9, text_length=6)
RIG = parse_rig({"cameras": {"left": 5, "front": 0, "right": 1}, "front": "front"}, "rig")


def run(
    models: Any, request: GenerationRequest, rig: Rig = RIG, defaults: WeightDefaults = DEFAULTS, **settings: Any
) -> tuple[Tensor, float]:
    config = GenerationConfig(**{"num_steps": 2, "rig": rig, **settings})
    kind = SixViewPipeline if models.dit.frame_repeat else MultiviewPipeline
    request = with_views(request, rig, config, defaults)
    pipeline = kind(models, config, defaults)
    (prepared,) = pipeline.prepare_texts([request])
    frames, fps = pipeline.generate(request, prepared)
    assert frames is not None
    return frames, fps


def calls(models: Any) -> list[dict[str, Tensor]]:
    with models.network.use() as net:
        return net.calls


def clips(folder: Path, rig: Rig = RIG, count: int = 9, **sizes: int) -> Path:
    """One clip a camera: brightness 20 times its id, plus 3 a frame."""
    for camera in rig.cameras:
        shape = (3, count, sizes.get(camera.folder, 32), 48)
        levels = camera.view_id * 20 + 3 * torch.arange(count).view(1, -1, 1, 1)
        write_mp4(folder / f"{camera.folder}.mp4", levels.expand(shape).to(torch.uint8).contiguous(), 10, quality=0)
    return folder


def test_each_view_has_its_block_of_text_its_id_and_the_rate(models: Any) -> None:
    parts = models(PRESET)
    request = GenerationRequest("a", prompts={"left": "ab", "front": "abcd x"}, has_prompt=True)
    frames, fps = run(parts, request, negative_prompt="bad", fps=10.0)
    assert frames.shape == (3, 3, 9, 32, 48) and fps == 10
    positive, negative = calls(parts)[:2]
    assert positive["view_ids"].tolist() == [[0, 1, 5]]  # In the order of the ids, whatever that of the rig.
    rows = positive["text"].view(3, 6, -1)[:, :, 0]
    torch.testing.assert_close(rows[0], torch.tensor([0.04, 0.01, 0, 0, 0, 0]))
    assert not rows[1].any()
    torch.testing.assert_close(rows[2], torch.tensor([0.02, 0, 0, 0, 0, 0]))
    unconditional = negative["text"].view(3, 6, -1)[:, :, 0]
    assert (
        unconditional[0, 0] == pytest.approx(0.03) and not unconditional[1:].any() and not unconditional[0, 1:].any()
    )
    assert positive["fps"].tolist() == [10.0]


def test_a_rate_of_its_own_for_the_network(models: Any) -> None:
    parts = models(PRESET)
    _, fps = run(parts, GenerationRequest("a", "go"), fps=10.0, rope_fps=30.0)
    assert fps == 10 and calls(parts)[0]["fps"].tolist() == [30.0]


def test_the_first_frames_of_every_view_are_its_own(models: Any, tmp_path: Path) -> None:
    clips(tmp_path)
    for count, where, expected in ((1, "end", [24]), (5, "end", [12, 15, 18, 21, 24]), (5, "start", [0, 3, 6, 9, 12])):
        parts = models(PRESET, target=0.5)
        request = GenerationRequest("a", "go", tmp_path)
        frames, fps = run(parts, request, num_input_frames=count, input_from=where, guidance=0, num_steps=20)
        assert fps == pytest.approx(10)
        for view, camera in zip(frames, RIG.cameras, strict=True):
            with parts.tokenizer.use() as tokenizer:
                given = tokenizer.encoded[sorted(RIG.view_ids).index(camera.view_id)]
            levels = (given[0, 0, :, 0, 0] + 1) * 127.5 - 20 * camera.view_id
            assert levels.tolist() == pytest.approx(expected, abs=2)
            assert view[:, 0].float().mean().item() == pytest.approx(20 * camera.view_id + expected[0], abs=2)
            assert view[:, count:].float().mean().item() == pytest.approx(1.5 * 127.5, abs=2)
        mask, latent = calls(parts)[0]["condition_mask"], 1 + (count - 1) // 4
        assert mask[0, 0, :, 0, 0].tolist() == ([1.0] * latent + [0.0] * (3 - latent)) * 3


@pytest.mark.parametrize("stacking", ["time", "vertical"])
def test_one_video_of_all_views_is_read_as_its_parts(models: Any, tmp_path: Path, stacking: str) -> None:
    clips(tmp_path / "clips")
    views = [
        camera.view_id * 20 + 3 * torch.arange(9).view(1, -1, 1, 1).expand(3, 9, 32, 48) for camera in RIG.cameras
    ]
    whole = torch.cat(views, dim=1 if stacking == "time" else 2).to(torch.uint8)
    write_mp4(tmp_path / "whole.mp4", whole.contiguous(), 10, quality=0)
    made = []
    for given, settings in ((tmp_path / "clips", {}), (tmp_path / "whole.mp4", {"input_stacking": stacking})):
        frames, fps = run(models(PRESET), GenerationRequest("a", "go", given), num_input_frames=5, **settings)
        assert fps == pytest.approx(10)
        made.append(frames.int())
    assert (made[0] - made[1]).abs().max() <= 2


def test_views_of_other_sizes_are_padded_each_on_its_own(models: Any, tmp_path: Path) -> None:
    clips(tmp_path, left=16)
    parts = models(PRESET)
    run(parts, GenerationRequest("a", "go", tmp_path), fit="pad")
    mask = calls(parts)[0]["padding_mask"]
    assert mask.shape == (1, 3, 4, 6)
    assert not mask[0, :2].any() and mask[0, 2, :, 0].tolist() == [1, 0, 0, 1]


def test_a_vertical_image_and_frames_in_memory(models: Any, tmp_path: Path) -> None:
    from PIL import Image

    picture = torch.cat([torch.full((32, 48, 3), 20 * c.view_id, dtype=torch.uint8) for c in RIG.cameras])
    Image.fromarray(picture.numpy()).save(tmp_path / "whole.png")
    views = tuple(GivenFrames(part.movedim(-1, 0)[:, None], "view") for part in picture.chunk(3))
    one, _ = run(
        models(PRESET), GenerationRequest("a", "go", tmp_path / "whole.png"), input_stacking="vertical", fps=10.0
    )
    other, _ = run(models(PRESET), GenerationRequest("a", "go", visual_inputs=views), fps=10.0)
    assert torch.equal(one, other)


def real(models: Any, tmp_path: Path) -> Any:
    """The stand-ins with a real network of random weights."""
    folder = tmp_path / "dit"
    if not folder.exists():
        import json

        from nemo_cosmos.checkpoint.files import MODEL_CONFIG
        from nemo_cosmos.models.dit import DiTConfig

        folder.mkdir()
        config = DiTConfig.preset(PRESET, **{**SIZES, "text_width": 8})
        (folder / MODEL_CONFIG).write_text(json.dumps(config.to_dict()))
        torch.save(network(PRESET, 0, text_width=8), folder / "model.pt")
    return models(PRESET, network=load_network(folder / "model.pt", weights="reg"))


def test_exchanged_cameras_exchange_exactly_their_videos(models: Any, tmp_path: Path) -> None:
    parts = real(models, tmp_path)
    before, _ = run(parts, GenerationRequest("a", "go"), fps=10.0)
    exchanged = parse_rig({"cameras": {"left": 1, "front": 0, "right": 5}, "front": "front"}, "rig")
    after, _ = run(parts, GenerationRequest("a", "go"), exchanged, fps=10.0)
    assert torch.equal(after, before[[2, 1, 0]]) and not torch.equal(after[0], before[0])


def test_neither_the_order_of_lines_nor_of_files_matters(models: Any, tmp_path: Path) -> None:
    clips(tmp_path / "clips")
    parts = real(models, tmp_path)
    given = {camera.folder: tmp_path / "clips" / f"{camera.folder}.mp4" for camera in RIG.cameras}
    turned = parse_rig({"cameras": {"front": 0, "right": 1, "left": 5}, "front": "front"}, "rig")
    before, _ = run(parts, GenerationRequest("a", "go", tmp_path / "clips"))
    after, _ = run(parts, GenerationRequest("a", "go", visual_inputs=dict(reversed(given.items()))), turned)
    assert torch.equal(after, before[[1, 2, 0]])


def test_sampling_equals_a_loop_written_out(models: Any, tmp_path: Path) -> None:
    """RES-2ab from 200 to 0.01 over views in the order of their ids, guidance on clean latents, given frames kept."""
    clips(tmp_path / "clips")
    parts = real(models, tmp_path)
    taken: list[Tensor] = []
    with parts.tokenizer.use() as tokenizer:
        decode = tokenizer.decode
        tokenizer.decode = lambda latent: taken.append(latent) or decode(latent)
    request = GenerationRequest("a", prompts={"front": "ab cd", "left": "e"}, visual_inputs=None)
    request = replace(request, visual_input=tmp_path / "clips")
    run(parts, request, num_steps=4, guidance=3.0, negative_prompt="bad bad", seed=7, num_input_frames=5)
    got = torch.cat(taken, dim=2)

    with parts.network.use() as net, parts.tokenizer.use() as tokenizer:
        given = torch.cat([clean[:, :, :2].float() for clean in map(tokenizer.encode, tokenizer.encoded[:3])], dim=2)
        clean = torch.zeros(1, 16, 3, 3, 4, 6)
        clean[:, :, :, :2] = given.unflatten(2, (3, 2))
        clean, marked = clean.flatten(2, 3), torch.tensor([1.0, 1, 0] * 3).view(1, 1, 9, 1, 1)
        positive, negative = torch.zeros(2, 3, 6, 8)
        positive[0, 0], positive[0, 1], positive[2, 0] = 0.02, 0.02, 0.01
        negative[0, :2] = 0.03

        def predict(x: Tensor, sigma: float) -> Tensor:
            t = sigma / (1 + sigma)
            mixed = clean * marked + x.float() * (1 - t) * (1 - marked)
            times = torch.where(marked.flatten().bool(), 1e-4 / (1 + 1e-4), torch.tensor(t))[None]
            mask = marked.expand(1, 1, 9, 4, 6)
            outputs = [
                net(mixed, times, text.flatten(0, 1)[None], fps=torch.tensor([10.0]), condition_mask=mask,
                    view_ids=torch.tensor([[0, 1, 5]]))
                for text in (positive, negative)
            ]  # fmt: skip
            branches = [(x.float() * (1 - t) - t * output) for output in outputs]
            guided = branches[0] + 3.0 * (branches[0] - branches[1])
            return (clean * marked + guided * (1 - marked)).double()

        levels = [(200 ** (1 / 7) + k / 4 * (0.01 ** (1 / 7) - 200 ** (1 / 7))) ** 7 for k in range(5)]
        x = levels[0] * architecture_invariant_noise((1, 16, 9, 4, 6), 7).double()
        with torch.no_grad():
            before = torch.zeros(())
            for k in range(4):
                now, after = predict(x, levels[k]), levels[k + 1]
                if k == 0:
                    x = (1 - after / levels[0]) * now + after / levels[0] * x
                else:
                    step, back = math.log(levels[k] / after), math.log(levels[k] / levels[k - 1])
                    phi1 = (1 - math.exp(-step)) / step
                    phi2 = (1 - phi1) / step
                    old = phi2 / (back / step)
                    x = math.exp(-step) * x + step * ((phi1 - old) * now + old * before)
                before = now
            expected = predict(x, levels[4])
    torch.testing.assert_close(got, expected.float(), atol=2e-4, rtol=2e-4)


def test_predict1_is_told_repetition_counts(models: Any) -> None:
    parts, rig = models("tiny-video2world-multiview"), numbered_rig(6, "av6")
    frames, fps = run(parts, GenerationRequest("a", "go"), rig)
    assert frames.shape[0] == 6 and fps == 24
    call = calls(parts)[0]
    assert call["frame_repeat"].tolist() == [[0, 0, 0, 0, 1, 1]] and call["view_ids"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_cameras_of_a_generation(models: Any) -> None:
    dit, none = models(PRESET).dit, WeightDefaults()
    trained = WeightDefaults(rig=RIG, of_run=True)
    assert rig_for(dit, GenerationConfig(), none, "av7").view_ids == tuple(range(7))
    assert rig_for(dit, GenerationConfig(num_views=2), none, "av7").folders == ("front_wide", "cross_right")
    assert rig_for(dit, GenerationConfig(), trained, "av7") == RIG
    assert rig_for(dit, GenerationConfig(num_views=3), trained, "av7") == RIG
    wide = replace(dit, num_views=12)
    assert rig_for(wide, GenerationConfig(), none, "av7").folders[6:8] == ("front_tele", "view_7")
    beyond = parse_rig({"cameras": {"a": 0, "roof": 7, "floor": 9}}, "rig")
    for config, defaults, message in (
        (GenerationConfig(num_views=7), trained, r"num_views=7: the training data names 3 cameras, left \(5\), front"),
        (GenerationConfig(num_views=9), none, r"table of 7 views, ids 0 to 6: view_7 \(7\), view_8 \(8\)"),
        (GenerationConfig(rig=beyond), none, r"roof \(7\), floor \(9\)"),
        (GenerationConfig(rig=RIG, num_views=2), none, "num_views=2: rig names 3 cameras"),
        (GenerationConfig(), WeightDefaults(of_run=True), "does not say which cameras"),
    ):
        with pytest.raises(InputError, match=message):
            rig_for(dit, config, defaults, "av7")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("lines.txt", "to the left\n\nto the right\n", {"left": "to the left", "right": "to the right"}),
        ("one.txt", "ahead\n", {"front": "ahead"}),
        ("blank.txt", "ahead\n\n\n\n\n", {"left": "ahead"}),
        ("by.json", '{"right": " r ", "left": ""}', {"right": "r"}),
        ("list.json", '["l", null, "r"]', {"left": "l", "right": "r"}),
        ("by.yaml", "front: f\nleft: l\n", {"front": "f", "left": "l"}),
        ("dir/left.txt", "l", {"left": "l"}),
        ("metas/left/clip.txt", "l", {"left": "l"}),
    ],
)
def test_captions_from_files(tmp_path: Path, name: str, content: str, expected: dict[str, str]) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    place = tmp_path / name.split("/")[0]
    request = with_views(GenerationRequest("a", str(place)), RIG, GenerationConfig(), DEFAULTS)
    assert {view.camera.folder: view.prompt for view in request.views if view.prompt is not None} == expected
    assert [view.camera.view_id for view in request.views] == [0, 1, 5]
    if name.startswith("metas"):
        request = with_views(GenerationRequest("a", f"{place}/{{camera}}/clip.txt"), RIG, GenerationConfig(), DEFAULTS)
        assert request.views[2].prompt == "l" and request.views[0].prompt is None


def test_ready_embeddings_are_used_as_they_are(models: Any, tmp_path: Path) -> None:
    rows = torch.rand(1, 18, 8)
    torch.save(rows, tmp_path / "text.pt")
    parts = models(PRESET)
    run(parts, GenerationRequest("a", str(tmp_path / "text.pt")), negative_prompt=None)
    told = calls(parts)[0]["text"].view(3, 6, 8)
    torch.testing.assert_close(told, rows[0].view(3, 6, 8)[[1, 2, 0]])
    with parts.text_encoder.use() as encoder:
        assert encoder.seen == []
    for value, message in (
        (torch.rand(1, 12, 8), r"holds \(1, 12, 8\) torch.float32; expected a tensor of \[1, 3 x 6, 8\]"),
        (torch.full((18, 8), math.nan), "not finite"),
        ({"text": rows}, "holds a dict"),
        (object(), "not a readable tensor file"),
    ):
        torch.save(value, tmp_path / "text.pt")
        with pytest.raises(InputError, match=message):
            run(models(PRESET), GenerationRequest("a", str(tmp_path / "text.pt")))


def test_what_does_not_fit_the_cameras(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("a\nb\n")
    (tmp_path / "odd.json").write_text('{"front": "a", "rear": "b", "roof": "c"}')
    (tmp_path / "number.json").write_text('{"front": 3}')
    (tmp_path / "lists.json").write_text('["a"]')
    clips(tmp_path / "clips")
    clips(tmp_path / "some")
    (tmp_path / "some" / "left.mp4").rename(tmp_path / "some" / "lft.mp4")
    clips(tmp_path / "uneven")
    write_mp4(tmp_path / "uneven" / "left.mp4", torch.zeros(3, 7, 32, 48, dtype=torch.uint8), 10)
    clips(tmp_path / "rates")
    write_mp4(tmp_path / "rates" / "left.mp4", torch.zeros(3, 9, 32, 48, dtype=torch.uint8), 30)
    for camera, name in (("left", "a"), ("left", "b"), ("front", "a"), ("right", "a")):
        write_mp4(tmp_path / "many" / camera / f"{name}.mp4", torch.zeros(3, 1, 32, 48, dtype=torch.uint8), 10)
    for camera, name in (("left", "b"), ("front", "a"), ("right", "a")):
        write_mp4(tmp_path / "names" / camera / f"{name}.mp4", torch.zeros(3, 1, 32, 48, dtype=torch.uint8), 10)
    (tmp_path / "empty").mkdir()
    cameras = r"left \(5\), front \(0\), right \(1\)"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prompt": ""}, f"a: no prompt; give the caption of front, or of several cameras: {cameras}"),
        ({"prompt": str(tmp_path / "few.txt")}, f"few.txt has 2 lines, expected one for each of 3 cameras.*{cameras}"),
        ({"prompt": str(tmp_path / "gone.txt")}, "gone.txt does not exist"),
        ({"prompt": str(tmp_path / "odd.json")}, f"of unknown cameras: rear, roof; the cameras are {cameras}"),
        ({"prompt": str(tmp_path / "number.json")}, "captions of front are no text"),
        ({"prompt": str(tmp_path / "lists.json")}, f"1 captions for 3 cameras: {cameras}"),
        ({"prompt": str(tmp_path / "clips")}, "no caption there; expected CAMERA.txt"),
        ({"prompts": ("a", "b")}, f"a: 2 captions for 3 cameras: {cameras}"),
        ({"visual_input": tmp_path / "some"}, "some: no input for left; unknown cameras: lft; the cameras are"),
        ({"visual_input": tmp_path / "empty"}, "no input for left, front, right"),
        ({"visual_input": tmp_path / "gone"}, "a: input .*gone does not exist"),
        ({"visual_input": tmp_path / "{camera}" / "x.mp4"}, "no input for left, front, right"),
        ({"visual_input": tmp_path / "uneven"}, r"in length \(left: 7 frames, front: 9 frames, right: 9 frames"),
        ({"visual_input": tmp_path / "rates"}, r"differ in frame rate \(left: 30 fps, front: 10 fps"),
        ({"visual_input": tmp_path / "many"}, r"several inputs for left \(2\); name those of one clip, such as"),
        ({"visual_input": tmp_path / "names"}, "clips of different names"),
        ({"visual_inputs": {"left": tmp_path / "clips" / "left.mp4", "rear": tmp_path}}, "no input for front, right; "
         "unknown cameras: rear"),
    ]  # fmt: skip
    for fields, message in wrong:
        with pytest.raises(InputError, match=message):
            with_views(GenerationRequest("a", **{"prompt": "go", **fields}), RIG, GenerationConfig(), DEFAULTS)


@pytest.mark.parametrize("given", ["clips", None])
def test_a_stacking_of_no_video_is_refused(tmp_path: Path, given: str | None) -> None:
    clips(tmp_path / "clips")
    request = GenerationRequest("a", "go", None if given is None else tmp_path / given)
    with pytest.raises(InputError, match="input_stacking=vertical says how one input video holds all views"):
        with_views(request, RIG, GenerationConfig(input_stacking="vertical"), DEFAULTS)


def test_one_video_that_does_not_divide_into_views(models: Any, tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", torch.zeros(3, 10, 32, 48, dtype=torch.uint8), 30)
    write_mp4(tmp_path / "b.mp4", torch.zeros(3, 9, 32, 48, dtype=torch.uint8), 30)
    resampled = replace(DEFAULTS, input_fps=10.0)
    for name, defaults, settings, message in (
        ("a.mp4", DEFAULTS, {}, "a.mp4 has 10 frames, which do not divide into 3 views"),
        ("a.mp4", DEFAULTS, {"input_stacking": "vertical"}, "a.mp4 has 32 rows, which do not divide into 3 views"),
        ("b.mp4", DEFAULTS, {"num_input_frames": 5}, "b.mp4 has 3 frames of each view, too few"),
        ("b.mp4", resampled, {"num_input_frames": 5}, "has 30 frames per second and the network was trained at 10"),
    ):
        with pytest.raises(InputError, match=message):
            run(models(PRESET), GenerationRequest("a", "go", tmp_path / name), RIG, defaults, **settings)
