"""What post-training a tokenizer starts from: network and moving average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cosmos.config import load_config
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule, load_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.trainer import TokenizerTrainer, train
from tests.models.tokenizer.released import released_folder, training_checkpoint, two_kinds

PRESET = "CV4x8x8-360p"


def configure(folder: Path, start: Path, *overrides: str) -> TokenizerTrainConfig:
    clip = folder / "clip.mp4"
    if not clip.exists():
        frames = torch.arange(0, 256, 8).view(1, 1, 1, 32) + 10 * torch.arange(6).view(1, 6, 1, 1)
        write_mp4(clip, frames.expand(3, 6, 32, 32).clamp(0, 255).to(torch.uint8), 8.0)
    sizes = (
        "model.overrides={channels:4,channels_mult:[1,2,2],num_res_blocks:1,patch_size:2,z_channels:16,chunk_frames:5}"
    )
    data = (
        "data.num_frames=5",
        "data.crop=[16,16]",
        "data.num_workers=0",
        "data.global_batch=1",
        "data.micro_batch=1",
        "data.val=null",
    )
    steps = ("trainer.max_steps=1", "checkpoint.every_n_steps=1", "checkpoint.statistics_clips=0")
    return load_config(
        TokenizerTrainConfig,
        ["experiment=demo_tokenizer", f"data.train={clip}", f"output_dir={folder}/run", f"model.preset={PRESET}",
         "trainer.device=cpu", sizes, *data, *steps, f"model.init_from={start}", *overrides],
        root="tokenizer_train",
    )  # fmt: skip


def holds(trainer: TokenizerTrainer, network: TokenizerModule, average: TokenizerModule) -> bool:
    assert trainer.ema is not None
    pairs = ((dict(trainer.module.named_parameters()), network), (trainer.ema.shadow, average))
    return all(torch.equal(found[name], value) for found, module in pairs for name, value in module.named_parameters())


@pytest.mark.parametrize("what", ["folder", "file", "wrapped file"])
def test_the_average_starts_from_the_averaged_weights(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = ("encoder", "decoder") if what == "folder" else ()
    folder, regular, averaged = released_folder(tmp_path, PRESET, parts=pair)
    regular = regular.bfloat16().float()
    start = folder if what == "folder" else folder / "model.pt"
    if what == "wrapped file":
        model = {f"net.{n}": v for n, v in regular.named_parameters()} | {"net.x._extra_state": None}
        torch.save(model | {f"net_ema.{n}": v for n, v in averaged.named_parameters()}, start)
    with caplog.at_level("INFO", "nemo_cosmos"):
        trainer = TokenizerTrainer(configure(tmp_path, start, "ema.decay=0.9"))
    assert holds(trainer, regular, averaged)
    assert f"training starts from the regular weights of {folder}/model.pt" in caplog.text
    source = f"weights of {folder}/encoder.jit and" if what == "folder" else f"averaged weights of {folder}/model.pt"
    assert f"the moving average starts from the {source}" in caplog.text
    trainer.run()
    weights = dict(trainer.module.named_parameters())
    for name, value in averaged.named_parameters():
        expected = 0.9 * value + 0.1 * weights[name]
        torch.testing.assert_close(trainer.ema.shadow[name], expected, rtol=1e-5, atol=1e-6)
    written = load_tokenizer(tmp_path / "run" / "tokenizer").module
    assert all(torch.equal(v, trainer.ema.shadow[n]) for n, v in written.named_parameters())


@pytest.mark.parametrize("what", ["file", "pair"])
def test_one_kind_of_weights_serves_both(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    regular, averaged = two_kinds(PRESET)
    start = tmp_path / "start"
    start.mkdir()
    if what == "file":
        torch.save(training_checkpoint(regular, None)["model"], start / "model.pt")
        expected = regular.bfloat16().float()
    else:
        export_jit(averaged, {part: start / f"{part}.jit" for part in ("encoder", "decoder")})
        expected = averaged
    with caplog.at_level("INFO", "nemo_cosmos"):
        assert holds(TokenizerTrainer(configure(tmp_path, start)), expected, expected)
    assert "the moving average starts from the same weights" in caplog.text


def test_averaged_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder, *_ = released_folder(tmp_path, PRESET, parts=())
    content = torch.load(folder / "model.pt", weights_only=True)
    content["model"]["ema.network-quant_conv-conv3d-bias"] = torch.zeros(3)
    torch.save(content, folder / "model.pt")
    with pytest.raises(InputError, match=r"the averaged weights of .*model\.pt do not fit tokenizer .*quant_conv"):
        TokenizerTrainer(configure(tmp_path, folder))
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_what_it_started_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And with a moving average where it had none."""
    folder, *_ = released_folder(tmp_path, PRESET, parts=())
    train(configure(tmp_path, folder, "ema.enabled=false"))
    (folder / "model.pt").unlink()
    trainer = TokenizerTrainer(configure(tmp_path, folder, "trainer.max_steps=2"))
    assert trainer.step == 1 and holds(trainer, trainer.module, trainer.module)
    assert "iter_000000001.pt has no moving average: it starts from the regular weights" in caplog.text
