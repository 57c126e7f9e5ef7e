"""The gallery: self-contained, truthful, safe against captions with markup."""

import base64
import re

import av
import pytest
import torch

from nemo_cosmos.camera.latent_frames import to_latent_frames
from nemo_cosmos.camera.presets import preset_cameras
from nemo_cosmos.camera.rays import normalise, plucker
from nemo_cosmos.data.sample import LatentSample, TokenizerIdentity
from nemo_cosmos.data.shards import ShardWriter
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.preview import preview

IDENTITY = TokenizerIdentity("tiny", "0" * 64, 4, 8, 4)


class Decoder:
    """Latents to frames by repetition."""

    def __init__(self, identity=IDENTITY):
        self.identity = identity

    def decode(self, latent):
        frames = latent[:, :3].repeat_interleave(4, dim=2)[:, :, 3:]
        return frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)


@pytest.fixture
def shards(tmp_path):
    mask = torch.zeros(1, 4, 6, dtype=torch.uint8)
    mask[..., :2] = 1
    with ShardWriter(tmp_path / "s", tokenizer=IDENTITY, text_encoder="t5") as writer:
        for number, caption in enumerate(["a disc moves left", "<script>alert(1)</script> 🤖", ""]):
            writer.write(
                LatentSample(
                    f"clip{number}",
                    torch.randn(4, 3, 4, 6),
                    torch.randn(3 + number, 8),
                    caption,
                    29.97,
                    9,
                    (32, 48, 64, 96),
                    padding_mask=mask if number == 2 else None,
                )
            )
    return tmp_path / "s"


def test_page_needs_nothing_else_and_says_what_is_fed(shards, tmp_path):
    assert preview(shards, tmp_path / "p/page.html", Decoder()) == 3
    page = (tmp_path / "p/page.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    for words in (
        "a disc moves left",
        "(empty caption)",
        "9 frames at 29.97 fps",
        "32 x 48, from 64 x 96",
        "(1, 4, 3, 4, 6) = latent x 0.5",
        "18 tokens: 3 x 2 x 3",
        "rows 3 to 511 are zero",
        "(1, 1, 4, 6), 8 of 24 cells padded",
        "tiny (000000000000)",
    ):
        assert words in page, words


def test_captions_are_text_not_markup(shards, tmp_path):
    preview(shards, tmp_path / "page.html", Decoder())
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "🤖" in page


def test_videos_of_the_page_play(shards, tmp_path):
    preview(shards, tmp_path / "page.html", Decoder())
    videos = re.findall(r"data:video/mp4;base64,([^\"]+)", (tmp_path / "page.html").read_text())
    assert len(videos) == 3
    (tmp_path / "x.mp4").write_bytes(base64.b64decode(videos[0]))
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9


def test_limit_spreads_over_the_dataset(shards, tmp_path):
    assert preview(shards, tmp_path / "page.html", Decoder(), limit=2) == 2
    page = (tmp_path / "page.html").read_text()
    assert "clip0" in page and "clip1" in page and "clip2" not in page
    with pytest.raises(InputError, match="limit=0"):
        preview(shards, tmp_path / "page.html", Decoder(), limit=0)


def test_another_tokenizer_is_refused(shards, tmp_path):
    other = TokenizerIdentity("tiny", "1" * 64, 4, 8, 4)
    with pytest.raises(InputError, match="made with tokenizer"):
        preview(shards, tmp_path / "page.html", Decoder(other))
    assert not (tmp_path / "page.html").exists()


def test_cameras_are_drawn_and_their_rays_shown(tmp_path):
    """Of samples with poses, with rays alone, and with neither; what the network is given is what is drawn."""
    cameras, _ = normalise(preset_cameras("orbit_left", 9, (32, 48)))
    rays = to_latent_frames(plucker(cameras, (4, 6)), "last", 4)
    poses = {"camera_poses": cameras.poses.float(), "camera_intrinsics": cameras.intrinsics.float()}
    given = {"a": poses, "b": {"plucker": rays}, "c": {}}
    latent, text = torch.randn(4, 3, 4, 6), torch.randn(3, 8)
    with ShardWriter(tmp_path / "s", tokenizer=IDENTITY, text_encoder="t5") as writer:
        for key, tensors in given.items():
            writer.write(LatentSample(key, latent, text, key, 7.0, 9, (32, 48, 64, 96), **tensors))
    preview(tmp_path / "s", tmp_path / "page.html", Decoder())
    page = (tmp_path / "page.html").read_text()
    assert page.count("trajectory with frusta") == 1 and page.count('alt="channel m z"') == 2
    first, second = re.findall(r'src="data:image/png;base64,([^"]+)" alt="channel d x"', page)
    assert first == second


def test_cameras_that_are_none_are_refused_by_the_samples_name(tmp_path):
    poses = torch.eye(4).repeat(9, 1, 1)
    poses[3, 0, 0] = 4
    with ShardWriter(tmp_path / "s", tokenizer=IDENTITY, text_encoder="t5") as writer:
        tensors = {"camera_poses": poses, "camera_intrinsics": torch.ones(9, 4)}
        sample = LatentSample("a", torch.randn(4, 3, 4, 6), torch.randn(3, 8), "", 7.0, 9, (32, 48, 64, 96), **tensors)
        writer.write(sample)
    with pytest.raises(InputError, match=r"sample 'a'.*pose 3 is no rotation"):
        preview(tmp_path / "s", tmp_path / "page.html", Decoder())
