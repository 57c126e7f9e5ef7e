"""A tiny Text2Image network learns eight images by heart, and makes each of them from its caption."""

from __future__ import annotations

from pathlib import Path

import torch

from nemo_cosmos.checkpoint.load import load_network
from nemo_cosmos.config import TrainConfig, load_config
from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.data.sample import pad_text
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.sampling import SamplingInputs, sample_latent
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import losses
from tests.training.shards import write_shards

STEPS = 1000


def test_eight_images_are_learnt_by_heart(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(1, 4, 4))
    words = [
        "experiment=predict2_text2image_training_2b_cosmos_nemo_assets", "model.preset=tiny-predict2-text2image",
        "model.overrides={num_layers: 2, text_width: 16, max_height: 32, max_width: 32}", "model.init_from=null",
        f"data.path={shards}", "data.tokenizer=null", "data.micro_batch=8", "data.global_batch=8",
        "data.num_workers=0", "data.text_length=8", "trainer.log_every_n_steps=10",
        f"output_dir={tmp_path / 'run'}", "trainer.precision=fp32",
        f"trainer.max_steps={STEPS}", f"optimizer.cycle_steps={STEPS}", "optimizer.lr=5e-3", "optimizer.f_max=1",
        "optimizer.f_min=0.05", "optimizer.warmup_steps=20", "optimizer.weight_decay=0", "objective.text_dropout=0",
        "objective.p_mean=1", "objective.p_std=1.6",
        "checkpoint.every_n_steps=10000",
    ]  # fmt: skip
    run_processes(1, train, load_config(TrainConfig, words), log=tmp_path / "logs")
    found = losses(tmp_path / "run")
    assert sum(found[-5:]) / 5 < 0.2 * found[0]

    network = load_network(tmp_path / "run", weights="reg")
    samples = list(ShardDataset(shards))
    truth = torch.stack([sample.latent for sample in samples]).float()
    errors = []
    for number, sample in enumerate(samples):
        text = pad_text(sample.text, 8)[None]
        inputs = SamplingInputs(
            (16, 1, 4, 4), NetworkInputs(text=text, fps=torch.tensor([24.0])), torch.zeros_like(text), seed=number
        )
        made = sample_latent(network, network.dit_config, inputs, GenerationConfig(num_steps=20, guidance=0))
        distances = (truth - made).square().mean(dim=(1, 2, 3, 4))
        assert int(distances.argmin()) == number
        errors.append(float(distances[number]))
    assert max(errors) < 0.1 * float(truth.var())
