import weakref
from fractions import Fraction

import pytest
import torch

from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.components import Component
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.pipelines.world import WorldPipeline, plan_video
from nemo_cosmos.inference.requests import GenerationRequest
from tests.data.odd_videos import LOSSLESS, encode, numbered, numbers, remux

DEFAULTS = WeightDefaults(size=(32, 48), num_frames=9, text_length=6)


@pytest.fixture
def clip(tmp_path):
    """20 frames of 32x48 whose brightness is 10 times the frame number."""
    frames = (torch.arange(20) * 10).to(torch.uint8).view(1, 20, 1, 1).expand(3, 20, 32, 48)
    write_mp4(tmp_path / "clip.mp4", frames.contiguous(), fps=6, quality=0)
    return tmp_path / "clip.mp4"


def run(models, config, request, defaults=DEFAULTS, **options):
    pipeline = WorldPipeline(models, config, defaults, **options)
    (prepared,) = pipeline.prepare_texts([request])
    return pipeline.generate(request, prepared)


def test_video_of_the_planned_size_that_starts_with_the_last_input_frame(models, clip):
    parts = models(target=0.5)
    frames, fps = run(parts, GenerationConfig(num_steps=20, guidance=0), GenerationRequest("a", "go", clip))
    assert frames.shape == (3, 9, 32, 48) and frames.dtype == torch.uint8
    assert fps == pytest.approx(6)
    assert frames[:, 0].float().mean().item() == pytest.approx(190, abs=3)
    assert frames[:, 1:].float().mean().item() == pytest.approx(1.5 * 127.5, abs=1)


def test_input_frames_from_the_start_or_the_end(models, clip):
    for where, expected in (("start", [0, 10, 20, 30, 40]), ("end", [150, 160, 170, 180, 190])):
        parts = models()
        config = GenerationConfig(num_steps=2, num_input_frames=5, input_from=where)
        run(parts, config, GenerationRequest("a", "go", clip))
        with parts.tokenizer.use() as tokenizer:
            levels = (tokenizer.encoded[0][0, 0, :, 0, 0] + 1) * 127.5
        assert levels.tolist() == pytest.approx(expected, abs=3)


def test_transparent_image_is_blended_on_white(models, tmp_path):
    from PIL import Image

    Image.new("RGBA", (48, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    parts = models()
    _, fps = run(parts, GenerationConfig(num_steps=2), GenerationRequest("a", "go", tmp_path / "clear.png"))
    assert fps == 24
    with parts.tokenizer.use() as tokenizer:
        assert tokenizer.encoded[0].min() == 1 and tokenizer.encoded[0].shape == (1, 3, 1, 32, 48)


def test_padding_is_told_to_the_network(models, tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "square.png")
    parts = models()
    run(parts, GenerationConfig(num_steps=2, fit="pad"), GenerationRequest("a", "go", tmp_path / "square.png"))
    with parts.network.use() as network:
        assert network.calls[0]["padding_mask"][0, 0, 0].tolist() == [1, 0, 0, 0, 0, 1]


def test_text_only_video(models):
    frames, fps = run(
        models("tiny-text2world", target=-1.0),
        GenerationConfig(num_steps=4, guidance=0),
        GenerationRequest("a", "a"),
    )
    assert frames.shape == (3, 9, 32, 48) and fps == 24
    assert frames.float().mean() < 8


def test_long_video_continues_from_the_last_frames_of_each_chunk(models, clip, monkeypatch):
    from nemo_cosmos.inference.pipelines import base as module

    seen, original = [], module.sample_latent

    def spy(network, dit, inputs, config, **options):
        seen.append(inputs)
        latent = original(network, dit, inputs, config, **options)
        return latent + 0.1 * len(seen)

    monkeypatch.setattr(module, "sample_latent", spy)
    parts = models()
    config = GenerationConfig(num_steps=3, num_frames=20, overlap_frames=5, seed=7)
    frames, _ = run(parts, config, GenerationRequest("a", "go", clip))
    assert frames.shape[1] == 20
    assert [i.seed for i in seen] == [7, 8, 9, 10]
    assert [i.condition.shape[2] for i in seen] == [1, 2, 2, 2]
    # What a chunk is given is what the frames before it show.
    for index, inputs in enumerate(seen[1:]):
        end = 9 + 4 * index
        shown = frames[0, end - 5].float().mean() / 127.5 - 1
        assert inputs.condition[0, 0, 0].mean().item() == pytest.approx(shown.item(), abs=0.02)


def test_progress_counts_over_all_chunks(models, clip):
    calls = []
    pipeline = WorldPipeline(models(), GenerationConfig(num_steps=3, num_frames=17, overlap_frames=1), DEFAULTS)
    request = GenerationRequest("a", "go", clip)
    pipeline.generate(request, pipeline.prepare_texts([request])[0], progress=lambda d, t: calls.append((d, t)))
    assert calls == [(i, 6) for i in range(1, 7)]


def test_texts_are_padded_to_the_length_of_training(models):
    parts = models("tiny-text2world")
    config = GenerationConfig(num_steps=2, negative_prompt="bad")
    run(parts, config, GenerationRequest("a", "two words"))
    with parts.network.use() as network:
        positive, negative = (network.calls[i]["text"] for i in (0, 1))
    assert positive.shape == (1, 6, 8)
    torch.testing.assert_close(positive[0, :, 0], torch.tensor([0.03, 0.05, 0, 0, 0, 0]))
    torch.testing.assert_close(negative[0, :, 0], torch.tensor([0.03, 0, 0, 0, 0, 0]))


def test_a_prompt_that_is_cut_is_said_aloud(models, caplog):
    request = GenerationRequest("clip", "one two three four five six seven")
    WorldPipeline(models("tiny-text2world"), GenerationConfig(), DEFAULTS).prepare_texts([request])
    assert "clip: only the first 6 of 7 text tokens are used" in caplog.text


def test_no_negative_prompt_is_the_zero_embedding(models):
    parts = models("tiny-text2world")
    run(parts, GenerationConfig(num_steps=2), GenerationRequest("a", "two words"))
    with parts.network.use() as network:
        assert network.calls[1]["text"].abs().max() == 0


class Upsampler:
    def __init__(self):
        self.seen = []

    def to(self, *, device):
        return self

    def upsample(self, prompt, image=None):
        self.seen.append((prompt, image))
        return f"long {prompt}"


def test_the_upsampler_expands_the_users_prompt_and_sees_the_last_frame(models, clip):
    upsampler = Upsampler()
    parts = models(upsampler=upsampler)
    pipeline = WorldPipeline(parts, GenerationConfig(), DEFAULTS, upsampler_word_limit=3)
    prepared = pipeline.prepare_texts(
        [GenerationRequest("a", "go", clip), GenerationRequest("b", "this has four words", clip)]
    )
    assert [p.prompt for p in prepared] == ["long go", "this has four words"]
    ((prompt, image),) = upsampler.seen
    assert prompt == "go" and image.shape == (3, 32, 48)
    assert image.float().mean().item() == pytest.approx(190, abs=3)


class Guard:
    def to(self, *, device):
        return self

    def allows_prompt(self, prompt):
        return "forbidden" not in prompt

    def filter_video(self, frames):
        return None if frames.float().mean() > 200 else frames // 2


def test_the_guardrail_checks_prompts_upsampled_prompts_and_videos(models, clip):
    class Rude(Upsampler):
        def upsample(self, prompt, image=None):
            return "forbidden" if prompt == "rude" else prompt

    pipeline = WorldPipeline(models(guardrail=Guard(), upsampler=Rude()), GenerationConfig(), DEFAULTS)
    names = [GenerationRequest(n, n, clip) for n in ("fine", "forbidden", "rude")]
    assert [p.text is None for p in pipeline.prepare_texts(names)] == [False, True, True]
    config, request = GenerationConfig(num_steps=4, guidance=0), GenerationRequest("a", "a")
    bright, _ = run(models("tiny-text2world", target=1.0, guardrail=Guard()), config, request)
    assert bright is None
    plain, _ = run(models("tiny-text2world", target=0.0), config, request)
    blurred, _ = run(models("tiny-text2world", target=0.0, guardrail=Guard()), config, request)
    assert torch.equal(blurred, plain // 2)


def test_offloaded_parts_are_gone_after_use_on_the_cpu(fakes):
    alive = []

    def load(device):
        network = fakes.network(fakes.dit())
        alive.append(weakref.ref(network))
        return network

    component = Component("network", load, offload=True)
    for _ in range(2):
        with component.use(), component.use() as network:
            assert network is alive[-1]()
        del network
        assert alive[-1]() is None and not component.resident
    assert component.loads == 2
    kept = Component("network", load)
    for _ in range(2):
        with kept.use():
            pass
    assert kept.loads == 1 and kept.resident


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"height": 40}, "height=40 is not a multiple of 16: nearest are 32 and 48"),
        ({"width": 240 * 8 + 16}, "largest, 1920 pixels"),
        ({"num_frames": 8}, "nearest legal 9"),
        ({"num_input_frames": 4}, "nearest legal 5"),
        ({"num_input_frames": 9}, "leaves nothing to generate"),
        ({"num_frames": 30, "overlap_frames": 9}, "overlap_frames=9 leaves nothing"),
        ({"num_frames": 30, "overlap_frames": 2}, "nearest legal"),
        ({"chunk_frames": 1 + 4 * 200, "num_frames": 1 + 4 * 200}, "the network takes 128"),
    ],
)
def test_impossible_sizes_name_the_nearest_possible(fakes, settings, message):
    with pytest.raises(InputError, match=message):
        plan_video(GenerationConfig(**settings), DEFAULTS, fakes.tokenizer(), fakes.dit(), has_input=True)


def test_plan_of_a_long_video(fakes):
    config = GenerationConfig(num_frames=26, overlap_frames=1)
    plan = plan_video(config, DEFAULTS, fakes.tokenizer(), fakes.dit(), has_input=False)
    assert (plan.num_chunks, plan.chunk_frames, plan.num_input_frames) == (4, 9, 0)
    alone = plan_video(GenerationConfig(num_frames=5), DEFAULTS, fakes.tokenizer(), fakes.dit(), has_input=False)
    assert (alone.num_chunks, alone.chunk_frames, alone.num_frames) == (1, 5, 5)
    # The chunk follows the tokenizer where the weights' own length is unknown.
    released = plan_video(GenerationConfig(), WeightDefaults(), fakes.tokenizer(), fakes.dit(), has_input=False)
    assert (released.height, released.width, released.num_frames) == (704, 1280, 17)


def test_networks_that_cannot_do_it_say_so(fakes):
    text2world = fakes.dit("tiny-text2world")
    with pytest.raises(InputError, match="takes no input"):
        plan_video(GenerationConfig(), DEFAULTS, fakes.tokenizer(), text2world, has_input=True)
    with pytest.raises(InputError, match="cannot continue a video"):
        plan_video(GenerationConfig(num_frames=17), DEFAULTS, fakes.tokenizer(), text2world, has_input=False)


def test_wrong_models_are_refused(models, clip):
    request = GenerationRequest("a", "go", clip)

    class Wide:
        name, width = "wide", 9

        def to(self, *, device):
            return self

    with pytest.raises(InputError, match="width 9, the network takes 8"):
        run(models(text_encoder=Wide()), GenerationConfig(), request)
    from nemo_cosmos.data.sample import TokenizerIdentity

    other = WeightDefaults(size=(32, 48), num_frames=9, tokenizer=TokenizerIdentity("else", "1" * 64, 4, 8, 16))
    with pytest.raises(InputError, match="not the one that made the training latents"):
        run(models(), GenerationConfig(), request, other)


def test_bad_inputs_are_named(models, clip, tmp_path):
    from PIL import Image

    Image.new("RGB", (48, 32)).save(tmp_path / "one.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    for path, frames, message in (
        (tmp_path / "one.png", 5, "is an image"),
        (tmp_path / "broken.jpg", 1, "broken.jpg cannot be read"),
        (clip, 21, "too few for num_input_frames=21"),
        (tmp_path / "none.png", 1, "does not exist"),
    ):
        config = GenerationConfig(num_input_frames=frames, num_frames=25, chunk_frames=25)
        with pytest.raises(InputError, match=message):
            run(models(), config, GenerationRequest("a", "go", path))
    with pytest.raises(InputError, match="a: no prompt"):
        run(models(), GenerationConfig(), GenerationRequest("a", "", clip))


@pytest.mark.parametrize(
    "where, rate, step, expected",
    [
        ("start", None, 2, [0, 20, 40, 60, 80]),
        ("end", None, 3, [70, 100, 130, 160, 190]),
        ("start", 3.0, 1, [0, 20, 40, 60, 80]),
        ("end", 3.0, 2, [20, 60, 100, 140, 180]),
        ("end", 12.0, 1, [170, 180, 180, 190, 190]),
    ],
)
def test_input_video_is_taken_at_the_rate_of_training(clip, where, rate, step, expected):
    from nemo_cosmos.inference.inputs import read_input

    defaults = WeightDefaults(input_fps=rate, input_step=step)
    given = read_input(clip, (32, 48), GenerationConfig(num_input_frames=5, input_from=where), defaults, 8)
    assert given.frames[0, :, 0, 0].tolist() == pytest.approx(expected, abs=3)
    assert given.fps == pytest.approx((rate or 6) / step)


def test_input_video_is_what_a_player_shows(tmp_path):
    """Hidden frames are no frames, a variable rate is resampled as for training, damage is named."""
    from nemo_cosmos.inference.inputs import read_input

    def given(path, count=5, where="start"):
        config = GenerationConfig(num_input_frames=count, input_from=where)
        return read_input(path, (64, 96), config, WeightDefaults(), 8)

    pictures = [numbered(n) for n in range(40)]
    encode(tmp_path / "whole.mp4", pictures, options={**LOSSLESS, "g": "20", "bf": "0"})
    cut = remux(tmp_path / "whole.mp4", tmp_path / "cut.mp4", hide=0.8)
    assert numbers(given(cut, where="end").frames) == [35, 36, 37, 38, 39]
    assert numbers(given(cut, count=16).frames) == list(range(24, 40))
    with pytest.raises(InputError, match=r"cut\.mp4 has 16 frames too few for num_input_frames=17"):
        given(cut, count=17)
    times = [Fraction(n, 30) if n < 15 else Fraction(1, 2) + Fraction(n - 15, 10) for n in range(30)]
    encode(tmp_path / "variable.mp4", pictures[:30], times=times)
    frames = given(tmp_path / "variable.mp4", count=9)
    assert frames.fps == pytest.approx(29 / 1.9)
    expected = [max(n for n in range(30) if float(times[n]) <= k * 1.9 / 29 + 0.25 * 1.9 / 29) for k in range(9)]
    assert numbers(frames.frames) == expected == [0, 2, 4, 6, 8, 10, 12, 14, 15]
    lost = remux(tmp_path / "whole.mp4", tmp_path / "lost.mp4", keep=lambda n: n not in (7, 8))
    assert numbers(given(lost).frames) == [0, 1, 2, 3, 4]
    for count, where in ((9, "start"), (1, "end")):
        with pytest.raises(InputError, match=r"lost\.mp4 is damaged at 0\.23 s"):
            given(lost, count, where)
