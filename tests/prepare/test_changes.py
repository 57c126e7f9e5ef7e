"""`prepare` into a folder that has samples: what changed is made again, what is gone goes, the rest is not touched."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from nemo_cosmos.atomic import write_json
from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.data.manifest import completed_shards
from nemo_cosmos.data.sample import TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset, encode_sample
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.data.windows import WindowPlan
from nemo_cosmos.errors import InputError
from nemo_cosmos.lock import LOCK_NAME, lock_folder
from nemo_cosmos.models.text import load_text_encoder, save_tiny_text_encoder
from nemo_cosmos.prepare.encode import prepare


class CountingTokenizer:
    """Latents are means over 4 x 8 x 8 blocks; counts the clips that it encodes."""

    identity = TokenizerIdentity("mean", "0" * 64, 4, 8, 3)

    def __init__(self):
        self.calls = 0

    def latent_frames(self, num_frames):
        return 1 + (num_frames - 1) // 4

    def encode(self, video):
        self.calls += 1
        video = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], dim=2)
        return torch.nn.functional.avg_pool3d(video, (4, 8, 8))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    save_tiny_text_encoder(path, width=16, num_layers=1)
    return load_text_encoder(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Five clips, one of them in a subfolder."""
    path = tmp_path_factory.mktemp("source")
    for number, name in enumerate(("a", "b", "c", "d", "sub/e")):
        write_clip(path, name, 40 * number)
    return path


@pytest.fixture
def source(original, tmp_path):
    shutil.copytree(original, tmp_path / "source")
    return tmp_path / "source"


def write_clip(path, name, level, fps=12):
    write_mp4(path / "videos" / f"{name}.mp4", torch.full((3, 6, 32, 32), level).to(torch.uint8), fps)
    caption = path / "metas" / f"{name}.txt"
    caption.parent.mkdir(parents=True, exist_ok=True)
    caption.write_text(f"caption {name}")


@pytest.fixture
def run(source, tmp_path, encoder):
    def call(**options):
        tokenizer = CountingTokenizer()
        result = prepare(
            find_clips(source, default_caption="none"),
            tmp_path / "out",
            tokenizer=tokenizer,
            text_encoder=lambda: encoder,
            text_encoder_name="tiny",
            **{"plan": WindowPlan(5, (32, 32)), "samples_per_shard": 2, **options},
        )
        assert not list((tmp_path / "out").glob(".*"))
        return result, tokenizer.calls

    return call


def samples(out):
    return {sample.key: encode_sample(sample) for sample in ShardDataset(out, verify="full")}


def test_an_untouched_dataset_is_not_encoded_again(run, tmp_path):
    run()
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("shard-*")}
    result, calls = run()
    assert (result.written, result.already_done, calls) == (0, 5, 0)
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").glob("shard-*")}


def test_each_record_knows_what_it_was_made_from(run, source, tmp_path):
    run(options={"text_length": 512})
    sample = ShardDataset(tmp_path / "out")[4]
    file = source / "videos/sub/e.mp4"
    assert (sample.key, sample.origin.name, sample.origin.bytes) == ("sub_e", "videos/sub/e.mp4", file.stat().st_size)
    assert sample.origin.options["text_length"] == 512 and sample.origin.options["size"] == [32, 32]
    index = next(index for index in completed_shards(tmp_path / "out") if "sub_e" in index.keys)
    assert index.origins[index.keys.index("sub_e")]["mtime_ns"] == file.stat().st_mtime_ns
    assert sample.origin.sha256 == index.origins[index.keys.index("sub_e")]["sha256"]


def test_a_changed_video_is_made_again_alone(run, source, tmp_path):
    run()
    before = samples(tmp_path / "out")
    write_clip(source, "c", 200)
    result, calls = run()
    assert result.changes.changed == {"videos/c.mp4": "video"} and calls == 1
    after = samples(tmp_path / "out")
    assert [key for key in before if before[key] != after[key]] == ["c"]
    latent = ShardDataset(tmp_path / "out")[2].latent.float()
    assert latent.mean().item() == pytest.approx(200 / 127.5 - 1, abs=0.03)


def test_a_video_of_the_same_size_and_time_is_still_found(run, source, tmp_path):
    run()
    for name in ("a", "b"):  # of one size, where the encoder gives it
        (source / f"videos/{name}.mp4").write_bytes((source / f"videos/{name}.mp4").read_bytes())
    file = source / "videos/a.mp4"
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result, calls = run()
    assert result.changes.changed == {"videos/a.mp4": "video"} and calls == 1


def test_an_edited_caption_is_embedded_again_and_a_touched_file_is_not(run, source, tmp_path):
    run()
    (source / "metas/b.txt").write_text("caption b, longer")
    os.utime(source / "videos/a.mp4")
    result, calls = run()
    assert result.changes.changed == {"videos/b.mp4": "caption"} and calls == 1
    assert ShardDataset(tmp_path / "out")[1].caption == "caption b, longer"


def test_file_names_that_are_no_utf8_and_unreadable_names(run, source, tmp_path):
    odd = source / "videos" / os.fsdecode(b"odd\xff.mp4")
    shutil.copy(source / "videos" / "a.mp4", odd)
    (source / "videos" / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video")
    result, calls = run()
    assert calls == 6 and len(result.skipped) == 1
    assert run()[1] == 0
    os.replace(source / "videos" / "b.mp4", odd)
    result, calls = run()
    assert calls == 1 and list(result.changes.changed) == [f"videos/{odd.name}"]


def test_removed_clips_are_dropped_or_kept(run, source, tmp_path):
    run()
    (source / "videos/a.mp4").unlink()
    result, calls = run(keep_removed=True)
    assert result.changes.removed == ["videos/a.mp4"] and calls == 0 and len(ShardDataset(tmp_path / "out")) == 5
    result, calls = run()
    assert result.changes.removed == ["videos/a.mp4"] and calls == 0
    assert ShardDataset(tmp_path / "out", verify="full").keys == ["b", "c", "d", "sub_e"]


def test_another_dataset_does_not_replace_all_samples(run, source, tmp_path):
    run()
    shutil.rmtree(source / "videos")
    write_clip(source, "other", 90)
    with pytest.raises(InputError, match=r"none of which is in the dataset now.*videos/a\.mp4"):
        run()
    assert len(ShardDataset(tmp_path / "out")) == 5
    run(keep_removed=True)
    assert len(ShardDataset(tmp_path / "out")) == 6


def test_windows_of_a_changed_clip_all_go(run, source, tmp_path):
    run(plan=WindowPlan(1, (32, 32), stride=2))
    write_clip(source, "d", 250)
    _, calls = run(plan=WindowPlan(1, (32, 32), stride=2))
    assert calls == 3 and len(ShardDataset(tmp_path / "out", verify="full")) == 15


def test_an_interrupted_exchange_goes_on(run, source, tmp_path, monkeypatch):
    """The process dies when the new shard is written and the old one is still there."""
    run(samples_per_shard=5)
    write_clip(source, "c", 200)
    (source / "videos/a.mp4").unlink()

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "pathlib.Path.unlink",
        lambda self, missing_ok=False: stop() if self.suffix == ".json" and "index" in self.name else os.unlink(self),
    )
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2
    _, calls = run()
    assert calls == 1 and ShardDataset(tmp_path / "out", verify="full").keys == ["b", "c", "d", "sub_e"]


def test_all_other_options_are_listed_and_refused(run, tmp_path):
    run(options={"text_length": 512, "default_caption": "x"})
    before = samples(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"step=1, now it is 2; text_length=512, now it is 77; default_caption=x, now"
    ):
        run(plan=WindowPlan(3, (32, 32), step=2), options={"text_length": 77, "default_caption": "y"})
    assert samples(tmp_path / "out") == before
    run(options={"text_length": 512})  # no clip takes the default caption now


def test_folders_of_before_stay_readable_and_go_on(run, source, tmp_path):
    """Indices, records and prepare.json without what is recorded now."""
    run(options={"text_length": 512})
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    manifest.pop("fps")
    for file in out.glob("*.index.json"):
        values = json.loads(file.read_text())
        for name in ("origins", "fps"):
            values.pop(name)
        write_json(file, values)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        next(s for s in manifest["shards"] if s["file"] == values["shard"])["index_sha256"] = digest
    write_json(out / "manifest.json", manifest)
    settings = json.loads((out / "prepare.json").read_text())
    settings.pop("text_length")
    write_json(out / "prepare.json", settings)
    assert len(ShardDataset(out, verify="full")) == 5 and ShardDataset(out).manifest.fps == []
    write_clip(source, "f", 10)
    result, calls = run(options={"text_length": 512})
    assert (calls, result.changes.unknown, result.manifest.samples, result.manifest.fps) == (1, 5, 6, [])


def test_the_manifest_records_the_rates(run, source):
    result, _ = run()
    assert result.manifest.fps == [12.0]
    write_clip(source, "f", 10, fps=8)
    assert run()[0].manifest.fps == [8.0, 12.0]


HOLD = """
import os, sys, time
from pathlib import Path
from nemo_cosmos.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    holder = os.getpid()
    if not os.fork():
        while os.getppid() == holder:
            time.sleep(0.01)
        time.sleep(2)
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that is at work in the folder, with a worker that outlives it for two seconds."""
    (tmp_path / "out").mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_names_the_first_and_a_killed_one_hinders_nobody(holder, run, tmp_path):
    with pytest.raises(InputError, match=rf"out is being prepared by process {holder.pid} on .* since"):
        run()
    assert os.listdir(tmp_path / "out") == [LOCK_NAME]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_NAME).is_file()
    assert run()[0].written == 5


def test_a_lock_on_a_deleted_file_is_no_lock(tmp_path, monkeypatch):
    """Between opening and locking, the holder may delete the file and a third process make a new one."""
    made = []

    def flock(descriptor, how):
        if not made:
            made.append((tmp_path / LOCK_NAME).unlink())

    monkeypatch.setattr("nemo_cosmos.lock.fcntl.flock", flock)
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK_NAME).is_file()
    assert made and not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", ["file", "file/deeper"])
def test_a_folder_that_cannot_be_made_is_named(run, tmp_path, inside, encoder, source):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file"):
        prepare(
            find_clips(source),
            tmp_path / inside,
            tokenizer=CountingTokenizer(),
            plan=WindowPlan(5, (32, 32)),
            text_encoder=lambda: encoder,
            text_encoder_name="tiny",
        )


def test_a_folder_without_permission_is_named(run, tmp_path, monkeypatch):
    def forbid(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("nemo_cosmos.lock.os.open", forbid)
    with pytest.raises(InputError, match=r"out/\.prepare\.lock: Permission denied.*change its permissions"):
        run()
