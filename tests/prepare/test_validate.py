"""Every kind of damage is found and named; sound shards pass."""

import json

import pytest
import torch

from nemo_cosmos.data.manifest import Manifest, merge_manifest
from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.data.shards import ShardWriter
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.validate import validate

IDENTITY = TokenizerIdentity("tiny", "0" * 64, 4, 8, 4)


def make_sample(number, **changes):
    generator = torch.Generator().manual_seed(number)
    values = {
        "key": f"clip{number}",
        "latent": torch.randn(4, 3, 4, 6, generator=generator),
        "text": torch.randn(3, 8, generator=generator),
        "caption": f"caption {number}",
        "fps": 24.0,
        "num_frames": 9,
        "image_size": (32, 48, 64, 96),
    }
    return LatentSample(**{**values, **changes})


def write(path, *changes):
    with ShardWriter(path, tokenizer=IDENTITY, text_encoder="t5", samples_per_shard=2) as writer:
        for number, change in enumerate(changes):
            writer.write(make_sample(number, **change))
    return path


def test_sound_shards_have_no_errors_and_true_figures(tmp_path):
    seen = []
    report = validate(write(tmp_path / "s", *[{}] * 5), lambda done, total: seen.append((done, total)))
    assert report.errors == [] and report.warnings == [] and report.samples == 5 and seen[-1] == (5, 5)
    latents = torch.stack([make_sample(n).latent for n in range(5)]).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(report.latents.mean, latents.mean(dim=1))
    torch.testing.assert_close(report.latents.std, latents.std(dim=1, unbiased=False))
    assert report.tokens == {3: 5} and report.distinct_captions == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent": torch.full((4, 3, 4, 6), torch.nan)}, "latent has 288 numbers that are not finite"),
        ({"latent": torch.zeros(4, 3, 4, 5)}, "does not fit frames of 32x48"),
        ({"latent": torch.zeros(4, 2, 4, 6)}, "does not fit 9 frames"),
        ({"latent": torch.zeros(4, 3, 4, 6, dtype=torch.int32)}, "int32"),
        ({"text": torch.zeros(0, 8)}, "text (0, 8)"),
        ({"text": torch.zeros(513, 8)}, "text (513, 8)"),
        ({"text": torch.full((2, 8), torch.inf)}, "text has 16 numbers"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"padding_mask": torch.ones(1, 4, 6, dtype=torch.uint8)}, "covers the whole frame"),
        ({"padding_mask": torch.full((1, 4, 6), 2, dtype=torch.uint8)}, "values 0 and 1"),
        ({"plucker": torch.zeros(6, 3, 4, 4)}, "plucker (6, 3, 4, 4)"),
    ],
)
def test_a_bad_sample_is_named(tmp_path, change, words):
    report = validate(write(tmp_path / "s", {}, change, {}))
    assert len(report.errors) == 1
    assert "'clip1'" in report.errors[0] and words in report.errors[0]


VIEWS = {
    "latent": torch.randn(4, 6, 4, 6, generator=torch.Generator().manual_seed(9)),
    "text": torch.ones(2, 3, 8),
    "view_ids": torch.tensor([4, 0]),
    "cameras": ["left", "front"],
    "captions": ["a", ""],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"view_ids": torch.tensor([4, 4])}, "view_ids [4, 4]: expected different numbers"),
        ({"text": torch.cat([torch.zeros(1, 3, 8), torch.ones(1, 3, 8)])}, "views [4] have a caption and no text"),
        ({"captions": ["a"]}, "1 captions for 2 views"),
        ({"cameras": ["a", "b", "c"]}, "3 cameras for 2 views"),
        ({"frame_repeat": torch.zeros(3)}, "frame_repeat (3,)"),
        ({"padding_mask": torch.zeros(3, 4, 6, dtype=torch.uint8)}, "3 masks for 2 views"),
        ({"padding_mask": torch.stack([torch.zeros(4, 6), torch.ones(4, 6)]).byte()}, "covers the whole frame"),
        ({"latent": torch.randn(4, 5, 4, 6)}, "does not fit 9 frames"),
    ],
)
def test_a_bad_view_is_named(tmp_path, change, words):
    report = validate(write(tmp_path / "s", VIEWS, {**VIEWS, **change}))
    assert len(report.errors) == 1
    assert "'clip1'" in report.errors[0] and words in report.errors[0]


def test_sound_views_are_counted(tmp_path):
    report = validate(write(tmp_path / "s", VIEWS, {**VIEWS, "view_ids": torch.tensor([0, 4])}))
    assert report.errors == [] and report.views == {(4, 0): 1, (0, 4): 1}
    assert "samples have different views" in validate(write(tmp_path / "t", VIEWS, {})).warnings


def test_videos_of_several_chunks_fit(tmp_path):
    sample = {"num_frames": 18, "latent": torch.randn(4, 6, 4, 6)}  # two chunks of 9 frames
    assert validate(write(tmp_path / "s", sample, sample)).errors == []


def test_duplicate_keys_are_found(tmp_path):
    write(tmp_path / "s", {}, {})
    with ShardWriter(tmp_path / "s", tokenizer=IDENTITY, text_encoder="t5", rank=1, write_manifest=False) as writer:
        writer.write(make_sample(0))
    with pytest.raises(InputError, match="clip0"):
        merge_manifest(tmp_path / "s")
    with ShardWriter(tmp_path / "other", tokenizer=IDENTITY, text_encoder="t5", rank=1) as writer:
        writer.write(make_sample(0))
    manifest, extra = Manifest.load(tmp_path / "s"), Manifest.load(tmp_path / "other")
    for suffix in (".tar", ".index.json"):
        (tmp_path / "other" / f"shard-0001-000000{suffix}").replace(tmp_path / "s" / f"shard-0001-000000{suffix}")
    manifest.shards += extra.shards
    manifest.samples += 1
    manifest.save(tmp_path / "s")
    assert validate(tmp_path / "s").errors == ["sample key 'clip0' occurs 2 times"]


def test_damaged_bytes_are_found_and_the_rest_is_still_checked(tmp_path):
    write(tmp_path / "s", *[{}] * 6)
    shard = tmp_path / "s/shard-0000-000000.tar"
    content = bytearray(shard.read_bytes())
    index = json.loads((tmp_path / "s/shard-0000-000000.index.json").read_text())
    content[index["tensors"][0][0] + 100] ^= 1  # within a tensor
    shard.write_bytes(content)
    (tmp_path / "s/shard-0000-000002.tar").unlink()
    report = validate(tmp_path / "s")
    assert report.samples == 3 and len(report.errors) == 3
    assert "'clip0' in shard" in report.errors[0] and "shard-0000-000002.tar is missing" in report.errors[1]


def test_damage_outside_the_members_is_found(tmp_path):
    write(tmp_path / "s", {})
    shard = tmp_path / "s/shard-0000-000000.tar"
    content = bytearray(shard.read_bytes())
    content[3] ^= 1  # in a tar header
    shard.write_bytes(content)
    report = validate(tmp_path / "s")
    assert len(report.errors) == 1 and "checksum of shard" in report.errors[0]


def test_oddities_are_warnings(tmp_path):
    report = validate(write(tmp_path / "a", {"caption": ""}, {"caption": ""}))
    assert report.errors == []
    assert report.warnings == ["2 samples have an empty caption", "all samples have the same caption"]
    latent = torch.randn(4, 3, 4, 6)
    latent[0], latent[1] = 5.0, latent[1] * 10
    report = validate(write(tmp_path / "b", {"latent": latent}))
    assert report.warnings[0] == "latent channels [0] are constant"
    assert "1 of 4 latent channels are far from mean 0" in report.warnings[1] and "(1: " in report.warnings[1]
    (tmp_path / "b/shard-0007-000000.tar").write_bytes(b"")
    assert "shard-0007-000000.tar" in validate(tmp_path / "b").warnings[0]


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json is missing"):
        validate(tmp_path)
