"""Every shipped experiment: its network at full size, and a training step of it at tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_cosmos.checkpoint.files import save_tensors
from nemo_cosmos.config import TrainConfig, experiment_names, load_config
from nemo_cosmos.models.dit import DiTConfig, build_dit
from nemo_cosmos.models.dit.lora import LoraSpec, add_adapters
from nemo_cosmos.training.optimizer import learning_rate
from nemo_cosmos.training.run import train
from tests.parallel.processes import run_processes
from tests.parallel.runs import SMALL, losses
from tests.training.shards import write_shards

PARAMETERS = {
    "predict1-7b-text2world": 7_236_192_256,
    "predict1-7b-video2world": 7_236_208_640,
    "predict1-7b-video2world-camera": 7_236_208_640 + 4096 * 4 * 6,  # six channels of rays in patches of 2 x 2
    "predict1-14b-text2world": 14_267_149_312,
    "predict1-14b-video2world": 14_267_169_792,
    "predict1-7b-text2world-multiview": 7_234_783_280,
    "predict1-7b-video2world-multiview": 7_234_799_664,
    "predict2-2b-text2image": 1_956_405_248,
    "predict2-2b-video2world": 1_956_413_440,
    "predict2-2b-multiview": 1_956_470_833,
    "predict2-14b-text2image": 14_265_265_152,
    "predict2-14b-video2world": 14_265_285_632,
    "predict1-tiny-video2world": 3_950_016,
    "predict1-tiny-text2world": 1_322_112,
    "predict2-tiny-video2world": 1_865_600,
    "predict2-tiny-text2image": 1_275_008,
}
"""Of the released networks; those of nemo-cosmos-tiny fill their part of 24 MB."""

RELEASED = [
    name
    for name in experiment_names()
    if not load_config(TrainConfig, [f"experiment={name}"]).model.preset.startswith("tiny-")
]


def spec(config: TrainConfig) -> LoraSpec:
    lora = config.lora
    return LoraSpec(lora.rank, lora.alpha, tuple(lora.targets), tuple(lora.also_train))


@pytest.mark.parametrize("name", RELEASED)
def test_full_size(name: str) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    with torch.device("meta"):
        net = build_dit(DiTConfig.preset(config.model.preset, **config.model.overrides))
        count = sum(parameter.numel() for parameter in net.parameters())
        if config.lora.enabled:
            add_adapters(net, spec(config), config.seed)
    assert count == PARAMETERS[config.model.preset]
    if config.lora.enabled:
        trained = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
        width, text, layers = net.dit_config.hidden_size, net.dit_config.text_width, net.dit_config.num_layers
        whole = width * net.dit_config.patch_features if config.lora.also_train else 0
        assert trained == layers * config.lora.rank * (24 * width + 2 * text) + whole


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", shape=(3, 4, 6))


@pytest.fixture(scope="module")
def shards_with_rays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "rays", shape=(3, 4, 6), plucker=True)


@pytest.fixture(scope="module")
def shards_of_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "views", shape=(2, 4, 6), rigs=[[4, 5, 0, 1, 2]])


@pytest.mark.parametrize("name", experiment_names())
def test_tiny_step(name: str, shards: Path, shards_with_rays: Path, shards_of_views: Path, tmp_path: Path) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    if DiTConfig.preset(config.model.preset).plucker_channels:
        shards = shards_with_rays
    elif DiTConfig.preset(config.model.preset).multiview:
        shards = shards_of_views
    overrides = [
        f"experiment={name}", f"model.overrides={SMALL}", f"data.path={shards}", f"output_dir={tmp_path / 'run'}",
        "parallel.tensor=1", "parallel.sequence=false", "parallel.pipeline=1", "parallel.context=1",
        "data.tokenizer=null", "data.micro_batch=1", "data.global_batch=2", "data.num_workers=0", "data.text_length=8",
        "trainer.precision=fp32", "trainer.max_steps=1",
    ]  # fmt: skip
    tiny = load_config(TrainConfig, overrides)
    if config.model.init_from is not None:
        net = build_dit(DiTConfig.preset(tiny.model.preset, **tiny.model.overrides), seed=1)
        save_tensors(tmp_path / "model.pt", net.to_original())
        tiny.model.init_from = str(tmp_path / "model.pt")
    run_processes(1, train, tiny, log=tmp_path / "logs")
    assert len(losses(tmp_path / "run")) == 1
    saved = tmp_path / "run" / "checkpoints"
    if config.checkpoint.export_layout == "joint" and not config.lora.enabled:
        assert (saved / "model" / "iter_000000001.pt").is_file()
        return
    kind = "lora/adapter_model.safetensors" if config.lora.enabled else "model.pt"
    for weights in ("reg", "ema"):
        assert (saved / f"iter_000000001_{weights}_{kind}").is_file()


PREDICT2 = {
    "text2image_training_2b": (2**-15, 0.1, 0.17, 1.0, 0.0, "text2image/2b_cosmos_nemo_assets"),
    "text2image_training_14b": (2**-14.5, 0.2, 0.4, 1.0, 0.0, "text2image/14b_cosmos_nemo_assets"),
    "video2world_training_2b": (2**-14.5, 0.1, 0.6, 24**0.5, 0.05, "video2world/2b_cosmos_nemo_assets"),
    "video2world_training_14b": (2**-14.5, 0.2, 0.25, 24**0.5, 0.05, "video2world/14b_cosmos_nemo_assets"),
    "video2world_lora_training_2b": (2**-14.5, 0.1, 0.6, 24**0.5, 0.05, "video2world_lora/2b_cosmos_nemo_assets"),
    "video2world_lora_training_14b": (2**-14.5, 0.2, 0.25, 24**0.5, 0.05, "video2world_lora/14b_cosmos_nemo_assets"),
}
"""Learning rate, decay, f_max, factor on sigma, share of high sigma, and the end of the output folder."""


@pytest.mark.parametrize("name", PREDICT2)
def test_predict2_experiments_have_the_released_values(name: str) -> None:
    config = load_config(TrainConfig, [f"experiment=predict2_{name}_cosmos_nemo_assets"])
    lr, decay, f_max, multiplier, high, folder = PREDICT2[name]
    optimizer, objective = config.optimizer, config.objective
    assert optimizer.lr == pytest.approx(lr, rel=1e-12)
    assert (optimizer.weight_decay, optimizer.f_max, optimizer.f_min) == (decay, f_max, 0.0)
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.clip_grad) == (0.9, 0.99, 1e-8, 1.0)
    assert (optimizer.warmup_steps, optimizer.cycle_steps, config.trainer.max_steps) == (0, 1000, 1000)
    assert objective.name == "rectified_flow" and objective.text_dropout == 0.2
    assert objective.sigma_multiplier == pytest.approx(multiplier) and objective.high_sigma_probability == high
    assert (objective.condition.min_frames, objective.condition.max_frames) == (1, 2)
    assert config.ema.enabled and config.ema.rate == 0.1
    assert config.output_dir.endswith(f"/posttraining/{folder}")
    assert config.lora.enabled is ("lora" in name)
    assert config.checkpoint.every_n_steps == (200 if "lora" in name else 500)


MULTIVIEW = {
    "training_2b_720p": ("2b_720p", 8, False),
    "lora_training_2b_720p": ("lora_2b_720p", 8, True),
    "training_2b_480p": ("2b_480p", 2, False),
    "lora_training_2b_480p": ("lora_2b_480p", 2, True),
}
"""Beginning of the run's name, context-parallel size, and whether adapters are trained."""


@pytest.mark.parametrize("name", MULTIVIEW)
def test_multiview_experiments_have_the_released_values(name: str) -> None:
    folder, context, lora = MULTIVIEW[name]
    config = load_config(TrainConfig, [f"experiment=predict2_multiview_{name}_10fps_7views_29frames_waymo5views"])
    optimizer, objective = config.optimizer, config.objective
    assert optimizer.lr == pytest.approx(2**-14.5, rel=1e-12)
    assert (optimizer.weight_decay, optimizer.f_max, optimizer.f_min) == (0.1, 0.25, 0.1)
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.clip_grad) == (0.9, 0.99, 1e-8, 1.0)
    assert (optimizer.warmup_steps, optimizer.cycle_steps, config.trainer.max_steps) == (2000, 40_000, 100_000)
    assert objective.name == "rectified_flow" and objective.text_dropout == 0.2
    assert objective.sigma_multiplier == pytest.approx(8**0.5) and objective.high_sigma_probability == 0.05
    assert (objective.condition.min_frames, objective.condition.max_frames) == (0, 1)
    assert config.ema.enabled and config.ema.rate == 0.1
    assert (config.lora.enabled, config.parallel.context, config.checkpoint.every_n_steps) == (lora, context, 500)
    assert not lora or (config.lora.rank, config.lora.alpha) == (16, 16)
    assert config.output_dir.endswith(f"/posttraining/multiview/{folder}_10fps_7views_29frames_waymo5views")


def test_the_rate_of_multiview_goes_on_beyond_its_cycle() -> None:
    name = "predict2_multiview_training_2b_720p_10fps_7views_29frames_waymo5views"
    optimizer = load_config(TrainConfig, [f"experiment={name}"]).optimizer
    rates = {step: learning_rate(optimizer, step) for step in (0, 2000, 21_000, 40_000, 40_001, 99_999)}
    assert rates[0] == pytest.approx(1e-6 * optimizer.lr)
    assert rates[2000] == pytest.approx(1.07896e-5, rel=1e-5)
    assert rates[21_000] == pytest.approx((rates[2000] + rates[40_000]) / 2)
    assert rates[40_000] == rates[40_001] == rates[99_999] == pytest.approx(4.31584e-6, rel=1e-5)


def test_the_original_words_turn_an_experiment_into_lora() -> None:
    for key in ("model.train_architecture", "model.config.train_architecture"):
        for size, rank in (("2b", 16), ("14b", 16)):
            experiment = f"experiment=predict2_text2image_training_{size}_cosmos_nemo_assets"
            lora = load_config(TrainConfig, [experiment, f"{key}=lora"]).lora
            assert lora.enabled and (lora.rank, lora.alpha) == (rank, rank)
