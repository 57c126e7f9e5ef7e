"""Shards: round trip, determinism, random access, damage."""

import errno
import json
import os
import pickle
import shutil

import pytest
import safetensors.torch
import torch
import webdataset

from nemo_cosmos.data.manifest import Manifest, completed_shards, merge_manifest, read_index, remove_unfinished
from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.data.shards import ShardDataset, ShardWriter, encode_sample, form, safe_key, writing
from nemo_cosmos.errors import InputError

IDENTITY = TokenizerIdentity("tiny", "0" * 64, 4, 8, 4)
OTHER = TokenizerIdentity("tiny", "1" * 64, 4, 8, 4)


def make_sample(number, **extra):
    generator = torch.Generator().manual_seed(number)
    return LatentSample(
        key=f"clip-{number:03d}",
        latent=torch.randn(4, 3, 4, 6, generator=generator).to(torch.bfloat16),
        text=torch.randn(2 + number % 3, 8, generator=generator),
        caption=f"grüße 🤖 {number}",
        fps=24.0 + number,
        num_frames=9,
        image_size=(32, 48, 64, 96),
        source=f"videos/{number}.mp4",
        **extra,
    )


def write(path, numbers, rank=0, per_shard=3, **options):
    with ShardWriter(
        path, tokenizer=IDENTITY, text_encoder="t5", rank=rank, samples_per_shard=per_shard, **options
    ) as writer:
        for number in numbers:
            writer.write(make_sample(number))


def assert_same(a, b):
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_samples_come_back_as_written(tmp_path):
    special = make_sample(
        9,
        padding_mask=torch.ones(1, 4, 6, dtype=torch.uint8),
        plucker=torch.randn(6, 3, 4, 6),
        view_ids=torch.arange(2),
        frame_repeat=torch.tensor([0.1, 0.2]),
    )
    special.text = torch.randn(2, 5, 8)
    with ShardWriter(tmp_path, tokenizer=IDENTITY, text_encoder="t5", samples_per_shard=4) as writer:
        for number in range(9):
            writer.write(make_sample(number))
        writer.write(special)
    dataset = ShardDataset(tmp_path, verify="full")
    assert len(dataset) == 10 and [s.samples for s in dataset.manifest.shards] == [4, 4, 2]
    for number in (8, 0, 5):  # any order
        assert_same(dataset[number], make_sample(number))
    assert_same(dataset[9], special)
    manifest = dataset.manifest
    assert manifest.tokenizer == IDENTITY and manifest.text_encoder == "t5"
    assert manifest.latent_shape == (4, 3, 4, 6) and manifest.text_width == 8 and manifest.num_frames == [9]
    with pytest.raises(IndexError):
        dataset[10]


def test_content_and_order_do_not_depend_on_ranks(tmp_path):
    write(tmp_path / "one", range(10))
    for rank in range(3):
        write(tmp_path / "three", range(rank, 10, 3), rank=rank, per_shard=2, write_manifest=False)
    merge_manifest(tmp_path / "three")
    one, three = ShardDataset(tmp_path / "one"), ShardDataset(tmp_path / "three")
    assert one.keys == three.keys and len(three.manifest.shards) == 6
    for a, b in zip(one, three, strict=True):
        assert encode_sample(a) == encode_sample(b)


def test_shard_bytes_are_reproducible(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, range(7))
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == 3 + 3 + 1
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_webdataset_reads_the_shards(tmp_path):
    write(tmp_path, range(5))
    urls = [str(p) for p in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == [f"clip-{n:03d}" for n in range(5)]
    assert samples[3]["json"]["caption"] == "grüße 🤖 3"
    assert torch.equal(safetensors.torch.load(samples[3]["safetensors"])["latent"], make_sample(3).latent)


def test_dataset_works_in_loader_workers_and_after_pickling(tmp_path):
    write(tmp_path, range(6))
    dataset = ShardDataset(tmp_path)
    assert dataset[0].key == "clip-000"  # a file is open when the workers fork
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    assert [s.key for s in loader] == dataset.keys
    assert_same(pickle.loads(pickle.dumps(dataset))[4], make_sample(4))


def test_damaged_byte_is_found_when_opening_and_when_reading(tmp_path):
    write(tmp_path, range(6))
    shard = tmp_path / "shard-0000-000001.tar"
    content = bytearray(shard.read_bytes())
    content[read_index(tmp_path / "shard-0000-000001.index.json").tensors[1][0] + 200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"shard-0000-000001\.tar"):
        ShardDataset(tmp_path)
    dataset = ShardDataset(tmp_path, verify="size")
    dataset[0]
    with pytest.raises(InputError, match=r"clip-00\d.*shard-0000-000001.tar"):
        for number in range(6):
            dataset[number]


@pytest.mark.parametrize("damage", ["truncate", "delete", "index", "manifest"])
def test_damage_is_named(tmp_path, damage):
    write(tmp_path, range(2))
    file = tmp_path / {"index": "shard-0000-000000.index.json", "manifest": "manifest.json"}.get(
        damage, "shard-0000-000000.tar"
    )
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "index":
        file.write_text(file.read_text().replace("clip-000", "clip-009"))
    else:
        file.unlink()
    with pytest.raises(InputError, match=file.name):
        ShardDataset(tmp_path, verify="size")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(samples=7),
        lambda values: (values["shards"][0].update(samples=1), values["shards"][1].update(samples=5)),
        lambda values: values["shards"].pop(),
    ],
    ids=["sum", "each", "one less"],
)
def test_samples_are_counted_shard_by_shard(tmp_path, change):
    write(tmp_path, range(6))
    file = tmp_path / "manifest.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"manifest\.json"):
        ShardDataset(tmp_path, verify="size")


def test_links_stand_for_files_and_for_nothing_else(tmp_path):
    """Caches keep content elsewhere, with links to it; what they lead to is verified as any file is."""
    shards, store, linked = (tmp_path / name for name in ("shards", "store", "linked"))
    write(shards, range(4))
    shutil.copytree(shards, store)
    linked.mkdir()
    for file in store.iterdir():
        (linked / file.name).symlink_to(file)
    assert ShardDataset(linked).digest == ShardDataset(shards).digest
    tar = linked / "shard-0000-000001.tar"
    tar.unlink()
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path / "nothing", store):
        tar.unlink(missing_ok=True)
        tar.symlink_to(other)
        with pytest.raises(InputError, match=r"shard-0000-000001\.tar is missing"):
            ShardDataset(linked)
    tar.unlink()
    tar.symlink_to(store / "shard-0000-000000.tar")
    with pytest.raises(InputError, match=r"shard-0000-000001\.tar"):
        ShardDataset(linked)


def test_another_tokenizer_is_refused(tmp_path):
    write(tmp_path, range(2))
    manifest = Manifest.load(tmp_path)
    manifest.require_tokenizer(IDENTITY)
    with pytest.raises(InputError, match="made with tokenizer"):
        manifest.require_tokenizer(OTHER, tmp_path)


def test_merge_refuses_mixed_tokenizers_and_duplicates(tmp_path):
    write(tmp_path / "a", range(2), write_manifest=False)
    with ShardWriter(tmp_path / "a", tokenizer=OTHER, text_encoder="t5", rank=1, write_manifest=False) as writer:
        writer.write(make_sample(5))
    with pytest.raises(InputError, match=r"shard-0001-000000\.tar"):
        merge_manifest(tmp_path / "a")
    write(tmp_path / "b", range(2), write_manifest=False)
    write(tmp_path / "b", range(1), rank=1, write_manifest=False)
    with pytest.raises(InputError, match="clip-000"):
        merge_manifest(tmp_path / "b")


def test_failed_writer_keeps_finished_shards_and_nothing_else(tmp_path):
    with (
        pytest.raises(RuntimeError),
        ShardWriter(tmp_path, tokenizer=IDENTITY, text_encoder="t5", samples_per_shard=2) as writer,
    ):
        for number in range(3):
            writer.write(make_sample(number))
        raise RuntimeError("stopped")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard-0000-000000.index.json", "shard-0000-000000.tar"]
    write(tmp_path, [2])  # goes on with the next number
    assert [s.key for s in ShardDataset(tmp_path)] == ["clip-000", "clip-001", "clip-002"]


def test_full_disk_is_a_clear_error_and_counts_no_broken_shard(tmp_path, monkeypatch):
    real = writing._HashingFile.write
    written = 0

    def write_until_full(self, data):
        nonlocal written
        written += len(data)
        if written > 12_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(writing._HashingFile, "write", write_until_full)
    with pytest.raises(InputError, match="no space left"):
        write(tmp_path, range(20), per_shard=2)
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "manifest.json").exists()
    done = [key for index in completed_shards(tmp_path) for key in index.keys]
    assert 0 < len(done) < 20
    write(tmp_path, range(len(done), 20), per_shard=2)
    assert len(ShardDataset(tmp_path, verify="full")) == 20


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    write(tmp_path, range(2))
    (tmp_path / ".shard-0000-000001.tar.x.tmp").write_bytes(b"partial")
    (tmp_path / "shard-0000-000002.tar").write_bytes(b"no index")
    assert remove_unfinished(tmp_path) == [".shard-0000-000001.tar.x.tmp", "shard-0000-000002.tar"]
    assert len(ShardDataset(tmp_path)) == 2


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "x" * 91, "ü"])
def test_keys_that_webdataset_would_split_are_refused(tmp_path, key):
    sample = make_sample(0)
    sample.key = key
    writer = ShardWriter(tmp_path, tokenizer=IDENTITY, text_encoder="t5")
    with pytest.raises(InputError, match="key"):
        writer.write(sample)


def test_safe_key_keeps_good_names_and_separates_bad_ones():
    assert safe_key("27_a-B") == "27_a-B"
    names = ["a.b", "a_b.", "über", "🤖", "x" * 200, "x" * 201, "a b"]
    keys = [safe_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(form.KEY.fullmatch(key) for key in keys)


def test_latent_of_another_channel_count_is_refused(tmp_path):
    sample = make_sample(0)
    sample.latent = torch.zeros(5, 1, 2, 2)
    with (
        pytest.raises(InputError, match="4 channels"),
        ShardWriter(tmp_path, tokenizer=IDENTITY, text_encoder="t5") as writer,
    ):
        writer.write(sample)


def test_record_is_plain_json(tmp_path):
    record = json.loads(encode_sample(make_sample(1))[1])
    assert record["key"] == "clip-001" and record["image_size"] == [32, 48, 64, 96]
