"""Offline tokenizing: what is written, what is left out, resuming, ranks."""

import errno
import multiprocessing
import os
import socket

import pytest
import torch
import torch.distributed as dist

from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset, encode_sample, writing
from nemo_cosmos.data.video import read_frames, write_mp4
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder, text_encoder_name
from nemo_cosmos.prepare import decode as decode_module
from nemo_cosmos.prepare.encode import prepare
from nemo_cosmos.prepare.text_embeddings import embed_captions, recorded_encoder
from tests.data.odd_videos import LOSSLESS, encode, numbered, remux


class MeanTokenizer:
    """Stands in for a video tokenizer: latents are means over 4 x 8 x 8 blocks."""

    identity = TokenizerIdentity("mean", "0" * 64, 4, 8, 3)

    def __init__(self, fail_after=None, infinite=()):
        self.calls, self.fail_after, self.infinite = 0, fail_after, infinite

    def latent_frames(self, num_frames):
        if (num_frames - 1) % 4:
            raise InputError(f"{num_frames} frames: nearest legal counts {num_frames // 4 * 4 + 1}")
        return 1 + (num_frames - 1) // 4

    def encode(self, video):
        self.calls += 1
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        video = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], dim=2)
        latent = torch.nn.functional.avg_pool3d(video, (4, 8, 8))
        return latent / 0 if self.calls in self.infinite else latent


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    save_tiny_text_encoder(path, width=16)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source")
    for number in range(6):
        add_clip(path, f"clip{number}", number)
    return path


def add_clip(path, name, seed=0, frames=7, size=(32, 48), fps=12.0, caption=None):
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (3, frames, size[0] // 4, size[1] // 4), generator=generator).float()
    video = torch.nn.functional.interpolate(video, size=size).to(torch.uint8)
    write_mp4(path / "videos" / f"{name}.mp4", video, fps)
    (path / "metas").mkdir(exist_ok=True)
    (path / "metas" / f"{name}.txt").write_text(f"caption {name}" if caption is None else caption, encoding="utf-8")


PLAN = WindowPlan(frames=5, size=(32, 32))


def run(source, out, encoder_folder, *, tokenizer=None, plan=PLAN, embeddings=False, **options):
    return prepare(
        find_clips(source, use_embeddings=embeddings),
        out,
        tokenizer=tokenizer or MeanTokenizer(),
        plan=plan,
        text_encoder=None if embeddings else lambda: load_text_encoder(encoder_folder),
        text_encoder_name=recorded_encoder(source) if embeddings else text_encoder_name(encoder_folder),
        **{"samples_per_shard": 2, **options},
    )


def contents(out):
    return [encode_sample(sample) for sample in ShardDataset(out, verify="full")]


def test_sample_holds_what_tokenizer_and_encoder_give(source, tmp_path, encoder_folder):
    result = run(source, tmp_path / "o", encoder_folder, latent_dtype="float32")
    assert (result.written, result.already_done, result.skipped) == (6, 0, [])
    dataset = ShardDataset(tmp_path / "o")
    sample = dataset[3]
    frames = read_frames(source / "videos/clip3.mp4", 0, 5, (32, 32))
    assert torch.equal(sample.latent, MeanTokenizer().encode(frames[None].float() / 127.5 - 1)[0])
    text = load_text_encoder(encoder_folder).encode_trimmed(["caption clip3"])[0]
    assert torch.equal(sample.text, text.half())
    assert (sample.key, sample.caption, sample.num_frames) == ("clip3", "caption clip3", 5)
    assert sample.fps == pytest.approx(12) and sample.image_size == (32, 32, 32, 48)
    assert sample.padding_mask is None and sample.source == "videos/clip3.mp4"
    manifest = dataset.manifest
    assert manifest.samples == 6 and len(manifest.shards) == 3 and manifest.latent_shape == (3, 2, 4, 4)
    assert manifest.settings["frames"] == 5 and manifest.text_encoder == text_encoder_name(encoder_folder)


def test_worker_processes_change_nothing(source, tmp_path, encoder_folder):
    run(source, tmp_path / "a", encoder_folder, workers=0)
    run(source, tmp_path / "b", encoder_folder, workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_interrupted_run_goes_on(source, tmp_path, encoder_folder):
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "o", encoder_folder, tokenizer=MeanTokenizer(fail_after=4))
    assert len(list((tmp_path / "o").glob("*.tar"))) == 1 and not (tmp_path / "o/manifest.json").exists()
    (tmp_path / "o" / ".shard-0000-000001.tar.abc.tmp").write_bytes(b"left by a kill")
    tokenizer = MeanTokenizer()
    result = run(source, tmp_path / "o", encoder_folder, tokenizer=tokenizer)
    assert (result.already_done, result.written, tokenizer.calls) == (2, 4, 4)
    assert not list((tmp_path / "o").glob(".*"))
    run(source, tmp_path / "whole", encoder_folder)
    assert contents(tmp_path / "o") == contents(tmp_path / "whole")
    again = MeanTokenizer()
    assert run(source, tmp_path / "o", encoder_folder, tokenizer=again).written == 0 and again.calls == 0


def rank_main(rank, port, source, out, encoder_folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="3")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    result = run(source, out, encoder_folder)
    assert result.written == 6 and len(result.skipped) == 1
    dist.destroy_process_group()


def test_ranks_write_the_same_samples(source, tmp_path, encoder_folder):
    for folder in ("videos", "metas"):
        (tmp_path / "s" / folder).mkdir(parents=True)
        for file in (source / folder).iterdir():
            (tmp_path / "s" / folder / file.name).write_bytes(file.read_bytes())
    (tmp_path / "s/videos/broken.mp4").write_bytes(b"x" * 1000)
    (tmp_path / "s/metas/broken.txt").write_text("broken")
    run(source, tmp_path / "one", encoder_folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    arguments = (port, tmp_path / "s", tmp_path / "three", encoder_folder)
    ranks = [context.Process(target=rank_main, args=(rank, *arguments)) for rank in range(3)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert {p.name[:10] for p in (tmp_path / "three").glob("*.tar")} == {"shard-0000", "shard-0001", "shard-0002"}
    assert [s["clip"] for s in ShardDataset(tmp_path / "three").manifest.skipped] == ["videos/broken.mp4"]


def test_bad_clips_are_left_out_and_counted(tmp_path, encoder_folder):
    source = tmp_path / "s"
    add_clip(source, "good")
    add_clip(source, "short", frames=4)
    add_clip(source, "latin")
    (source / "metas/latin.txt").write_bytes(b"gr\xfc\xdfe")
    for name, content in (("empty", b""), ("garbage", b"abc" * 100)):
        (source / f"videos/{name}.mp4").write_bytes(content)
        (source / f"metas/{name}.txt").write_text(name)
    result = run(source, tmp_path / "o", encoder_folder)
    assert ShardDataset(tmp_path / "o").keys == ["good"]
    reasons = {failure.clip: failure.reason for failure in result.skipped}
    assert set(reasons) == {"videos/short.mp4", "videos/latin.mp4", "videos/empty.mp4", "videos/garbage.mp4"}
    assert "too short" in reasons["videos/short.mp4"] and "empty" in reasons["videos/empty.mp4"]
    assert "UTF-8" in reasons["videos/latin.mp4"]
    assert ShardDataset(tmp_path / "o").manifest.skipped[0]["clip"] == "videos/empty.mp4"


def test_no_usable_clip_is_an_error_and_leaves_nothing(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "short", frames=3)
    with pytest.raises(InputError, match=r"none of 1 clips .*short\.mp4 is too short"):
        run(tmp_path / "s", tmp_path / "o", encoder_folder)
    assert not (tmp_path / "o").exists()


def test_captions_of_any_text(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "empty", caption="")
    add_clip(tmp_path / "s", "emoji", caption="🤖 grüße\n")
    run(tmp_path / "s", tmp_path / "o", encoder_folder)
    emoji, empty = ShardDataset(tmp_path / "o")
    assert emoji.caption == "🤖 grüße" and empty.caption == "" and empty.text.shape == (1, 16)


def test_portrait_clip_in_bars_has_a_padding_mask(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "tall", size=(64, 32))
    run(tmp_path / "s", tmp_path / "o", encoder_folder, plan=WindowPlan(5, (32, 32), fit="pad"))
    sample = ShardDataset(tmp_path / "o")[0]
    assert sample.padding_mask[0, 0].tolist() == [1, 0, 0, 1] and sample.image_size == (32, 32, 64, 32)


def test_windows_of_long_clips(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "long", frames=16)
    plan = WindowPlan(5, (32, 32), stride=4)
    run(tmp_path / "s", tmp_path / "o", encoder_folder, plan=plan, latent_dtype="float32")
    dataset = ShardDataset(tmp_path / "o")
    assert dataset.keys == ["long-f000000", "long-f000004", "long-f000008"]
    frames = read_frames(tmp_path / "s/videos/long.mp4", 8, 5, (32, 32))
    assert torch.equal(dataset[2].latent, MeanTokenizer().encode(frames[None].float() / 127.5 - 1)[0])
    assert run(tmp_path / "s", tmp_path / "o", encoder_folder, plan=plan, latent_dtype="float32").written == 0


def test_step_and_rate_are_recorded(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "c", frames=16)
    run(tmp_path / "s", tmp_path / "a", encoder_folder, plan=WindowPlan(5, (32, 32), step=3))
    run(tmp_path / "s", tmp_path / "b", encoder_folder, plan=WindowPlan(5, (32, 32), fps=4))
    one, other = ShardDataset(tmp_path / "a")[0], ShardDataset(tmp_path / "b")[0]
    assert one.fps == pytest.approx(4) and other.fps == 4
    assert torch.equal(one.latent, other.latent)


def test_ready_embeddings_are_taken_as_they_are(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "a")
    add_clip(tmp_path / "s", "b")
    name = text_encoder_name(encoder_folder)
    list(embed_captions(tmp_path / "s", lambda: load_text_encoder(encoder_folder), encoder_name=name))
    run(tmp_path / "s", tmp_path / "pickles", encoder_folder, embeddings=True)
    run(tmp_path / "s", tmp_path / "encoded", encoder_folder)
    one, other = ShardDataset(tmp_path / "pickles"), ShardDataset(tmp_path / "encoded")
    torch.testing.assert_close(one[0].text, other[0].text, atol=1e-3, rtol=1e-3)
    assert one.manifest.text_encoder == name
    (tmp_path / "s/t5_xxl/b.pickle").write_bytes(b"\x80\x04cos\nsystem\n.")
    result = run(tmp_path / "s", tmp_path / "o", encoder_folder, embeddings=True)
    assert result.written == 1 and "was not loaded" in result.skipped[0].reason


def test_infinite_latents_are_left_out(source, tmp_path, encoder_folder):
    result = run(source, tmp_path / "o", encoder_folder, tokenizer=MeanTokenizer(infinite=(2,)))
    assert result.written == 5 and "not finite" in result.skipped[0].reason


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (WindowPlan(6, (32, 32)), "nearest legal"),
        (WindowPlan(5, (40, 32)), r"size 40x32.*multiples of 16.*32x32"),
        (WindowPlan(5, (32, 32), fit="squeeze"), "squeeze"),
        (WindowPlan(5, (32, 32), stride=-1), "stride=-1"),
        (WindowPlan(5, (32, 32), fps=0.0), "fps=0"),
    ],
)
def test_wrong_settings_write_nothing(source, tmp_path, encoder_folder, plan, words):
    with pytest.raises(InputError, match=words):
        run(source, tmp_path / "o", encoder_folder, plan=plan)
    assert not (tmp_path / "o").exists()


def test_output_of_other_settings_or_other_files_is_refused(source, tmp_path, encoder_folder):
    run(source, tmp_path / "o", encoder_folder)
    with pytest.raises(InputError, match=r"prepared with size=\[32, 32\], now it is \[48, 32\]"):
        run(source, tmp_path / "o", encoder_folder, plan=WindowPlan(5, (48, 32)))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/thesis.txt").write_text("x")
    with pytest.raises(InputError, match="other files"):
        run(source, tmp_path / "x", encoder_folder)


def test_what_a_kill_left_before_the_first_file_is_nobodys(source, tmp_path, encoder_folder):
    (tmp_path / "o").mkdir()
    for name in (".prepare.json.t9qoxf60.tmp", ".prepare.lock"):
        (tmp_path / "o" / name).touch()
    assert run(source, tmp_path / "o", encoder_folder).written > 0
    assert not list((tmp_path / "o").glob(".*.tmp"))


def test_full_disk(source, tmp_path, encoder_folder, monkeypatch):
    real, written = writing._HashingFile.write, 0

    def write_until_full(self, data):
        nonlocal written
        written += len(data)
        if written > 15_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(writing._HashingFile, "write", write_until_full)
    with pytest.raises(InputError, match="no space left"):
        run(source, tmp_path / "o", encoder_folder)
    monkeypatch.undo()
    result = run(source, tmp_path / "o", encoder_folder)
    assert result.already_done > 0 and len(ShardDataset(tmp_path / "o", verify="full")) == 6


def test_small_shared_memory_is_explained(source, tmp_path, encoder_folder, monkeypatch):
    monkeypatch.setattr(decode_module.shutil, "disk_usage", lambda path: Usage())
    with pytest.raises(InputError, match="--shm-size"):
        run(source, tmp_path / "o", encoder_folder, workers=2)


class Usage:
    free = 1000


def test_progress_counts_every_clip(tmp_path, encoder_folder):
    add_clip(tmp_path / "s", "a")
    add_clip(tmp_path / "s", "short", frames=2)
    seen = []
    run(
        tmp_path / "s",
        tmp_path / "o",
        encoder_folder,
        plan=WindowPlan(5, (32, 32), stride=1),
        on_progress=lambda p: seen.append((p.clips, p.samples, p.skipped, p.total)),
    )
    assert seen == [(0, 1, 0, 2), (0, 2, 0, 2), (0, 3, 0, 2), (1, 3, 0, 2), (2, 3, 1, 2)]


def test_clips_that_cannot_be_shown_whole_are_left_out_with_the_reason(tmp_path, encoder_folder):
    source = tmp_path / "s"
    add_clip(source, "good", frames=20)
    pictures = [numbered(n) for n in range(40)]
    whole = encode(tmp_path / "whole.mkv", pictures, options={**LOSSLESS, "g": "20", "bf": "0"})
    remux(whole, source / "videos/lost.mp4", keep=lambda n: n not in (7, 8, 9))
    remux(whole, source / "videos/cut.mp4", hide=1.2)  # 4 frames are left
    for name in ("lost", "cut"):
        (source / f"metas/{name}.txt").write_text(name)
    result = run(source, tmp_path / "o", encoder_folder, plan=WindowPlan(9, (32, 32)))
    reasons = {failure.clip: failure.reason for failure in result.skipped}
    assert set(reasons) == {"videos/lost.mp4", "videos/cut.mp4"}
    assert "lost.mp4 is damaged at 0.23 s" in reasons["videos/lost.mp4"] and "too short" in reasons["videos/cut.mp4"]
    # Whole windows before the damage are used; the rest is named.
    result = run(source, tmp_path / "w", encoder_folder, plan=WindowPlan(5, (32, 32), stride=2))
    assert {k for k in ShardDataset(tmp_path / "w").keys if k.startswith("lost")} == {"lost-f000000", "lost-f000002"}
    assert [failure.clip for failure in result.skipped] == ["videos/cut.mp4", "videos/lost.mp4"]
    result = run(source, tmp_path / "k", encoder_folder, plan=WindowPlan(9, (32, 32), keep_damaged=True))
    assert ShardDataset(tmp_path / "k").keys == ["good", "lost"]
    assert ShardDataset(tmp_path / "k").manifest.settings["keep_damaged"] is True
