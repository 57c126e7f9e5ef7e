"""Predicted parameters, activations, memory and speed; which layouts are offered, and what an invalid one is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from nemo_cosmos.cli import app
from nemo_cosmos.commands.plan import RELEASED_LATENT, released_latent, workload_of
from nemo_cosmos.config import ParallelConfig, TrainConfig, experiment_names, load_config
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.dit import PRESETS, DiTConfig, LayerOptions, attention, build_dit, layer, transformer_config
from nemo_cosmos.models.dit.size import network_size
from nemo_cosmos.parallel.groups import ParallelGroups
from nemo_cosmos.parallel.layout import Layout, NetworkShape, validate_layout
from nemo_cosmos.planning.cost import NetworkSize, training_flops
from nemo_cosmos.planning.memory import RESERVE_BYTES, Workload, layer_activations, predict_memory
from nemo_cosmos.planning.plan import adapter_parameters, make_plans, parse_memory, recommended
from nemo_cosmos.planning.speed import predict_seconds
from tests.training.shards import write_shards

GIB = 2**30
SLICE = DiTConfig.preset("predict1-7b-video2world", num_layers=2)

# A 2-layer slice of the 7B at 56,320 tokens in bf16 on H200 GPUs with torch 2.11: docs/gpu_results.md.
# processes, global batch, settings, resident GiB, peak GiB, seconds of a step
MEASURED: dict[str, tuple[int, int, dict[str, Any], float, float, float]] = {
    "tp2": (2, 1, {"tensor": 2}, 6.98, 24.05, 0.528),
    "tp2+sp": (2, 1, {"tensor": 2, "sequence": True}, 6.98, 20.62, 0.532),
    "pp2": (2, 4, {"pipeline": 2}, 6.66, 32.94, 2.371),
    "cp2 all-to-all": (2, 1, {"context": 2, "context_backend": "all_to_all"}, 7.62, 21.70, 0.525),
    "cp2 all-gather": (2, 1, {"context": 2, "context_backend": "all_gather"}, 7.62, 21.92, 0.513),
    "dp2": (2, 2, {}, 7.62, 32.52, 0.957),
    "tp2+sp·cp2": (4, 1, {"tensor": 2, "sequence": True, "context": 2}, 4.45, 12.37, 0.281),
    "pp2·cp2": (4, 4, {"pipeline": 2, "context": 2}, 4.24, 19.06, 1.268),
    "tp2·pp2": (4, 4, {"tensor": 2, "pipeline": 2}, 4.16, 22.61, 1.285),
    "dp2·cp2": (4, 2, {"context": 2}, 5.44, 19.52, 0.514),
    "cp4": (4, 1, {"context": 4}, 5.44, 13.06, 0.278),
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURED)
def test_prediction_agrees_with_measurement(name: str) -> None:
    world, batch, settings, resident, peak, seconds = MEASURED[name]
    parallel, size = ParallelConfig(**settings), network_size(SLICE)
    layout = validate_layout(parallel, size, world_size=world, global_batch=batch)
    work = Workload(tokens=56_320, num_micro_batches=batch // layout.data)
    memory = predict_memory(size, layout, parallel, work)
    assert memory.resident / GIB == pytest.approx(resident, rel=0.01)
    assert memory.total / GIB == pytest.approx(peak, rel=0.10)
    assert predict_seconds(size, layout, parallel, work) == pytest.approx(seconds, rel=0.10)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_parameters_are_counted_exactly(preset: str) -> None:
    config = DiTConfig.preset(preset)
    with torch.device("meta"):
        network = build_dit(config)
    assert network_size(config).parameters == sum(parameter.numel() for parameter in network.parameters())


def test_flops_follow_the_published_convention() -> None:
    """NeMo's 519 TFLOP/s and 10,052 tokens/s of its 7B at 8,192 tokens are 51.6 GFLOP a token."""
    size = network_size(DiTConfig.preset("predict1-7b-text2world"))
    assert training_flops(size, 8192) / 8192 == pytest.approx(51.6e9, rel=0.003)


def compile_partition(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs on CUDA, without generated code: the same choice of tensors kept for the backward pass."""
    return torch.compile(function.__wrapped__, backend="aot_eager_decomp_partition", dynamic=False)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    for module, names in (
        (layer, ("add_position_modulated_norm", "gated_add", "gated_add_modulated_norm", "modulated_norm")),
        (attention, ("rms_norm", "split_heads_norm_rotate")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, compile_partition(getattr(module, name)))


def kept_bytes(num_layers: int, recompute: str) -> int:
    """Bytes of distinct tensors that autograd holds after the forward pass of a small bf16 network."""
    config = DiTConfig.preset(
        "tiny-video2world", num_layers=num_layers, hidden_size=128, num_attention_heads=4, text_width=16,
        adaln_lora_dim=4,
    )  # fmt: skip
    network = build_dit(
        config, transformer=transformer_config(config, dtype=torch.bfloat16), groups=ParallelGroups(),
        options=LayerOptions(recompute=recompute),
    )  # fmt: skip
    network.train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(1, 16, 8, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(x, torch.zeros(1), torch.randn(1, 4, 16), fps=torch.full((1,), 24.0))
    assert output.requires_grad
    return sum(storages.values())


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_activations_are_what_autograd_keeps(recompute: str) -> None:
    size = NetworkSize(
        num_layers=1, num_attention_heads=4, hidden_size=128, text_width=16, adaln_lora_dim=4, patch_features=72,
        output_features=64, position=True, position_parameters=0,
    )  # fmt: skip
    predicted = layer_activations(
        size, Layout(1, 1, 1, 1), ParallelConfig(recompute=recompute), Workload(tokens=2048, text_tokens=4)
    )
    per_layer = (kept_bytes(4, recompute) - kept_bytes(2, recompute)) / 2
    assert per_layer == pytest.approx(getattr(predicted, recompute), rel=0.05)


def plans_of(preset: str = "predict1-7b-video2world", gpus: int = 16, gigabytes: float = 80, **work: Any) -> list:
    return make_plans(
        network_size(DiTConfig.preset(preset)), Workload(tokens=56_320, **work), ParallelConfig(), gpus=gpus,
        gpu_memory=gigabytes * 1e9, global_batch=16,
    )  # fmt: skip


def test_every_plan_is_a_valid_layout() -> None:
    shape = network_size(DiTConfig.preset("predict1-7b-video2world"))
    plans = plans_of()
    assert len({tuple(plan.overrides[:-1]) for plan in plans}) == len(plans) > 20
    for plan in plans:
        assert validate_layout(plan.parallel, shape, world_size=16, global_batch=plan.global_batch) == plan.layout
        if plan.fits:
            assert plan.chosen.total < 80e9


def test_recomputation_is_used_only_where_memory_asks_for_it() -> None:
    small, large = plans_of(gigabytes=80), plans_of(gigabytes=1000)
    assert {plan.parallel.recompute for plan in large} == {"none"}
    assert {plan.parallel.recompute for plan in small if plan.fits} >= {"none", "selective"}
    for plan in small:
        totals = [plan.memory[mode].total for mode in ("none", "selective", "full")]
        assert totals == sorted(totals, reverse=True)


def test_recommended_fits_and_keeps_the_batch() -> None:
    plans = plans_of()
    best = recommended(plans, 16)
    assert best is not None
    assert best.fits
    assert best.global_batch == 16
    assert best.tflops >= 0.98 * max(plan.tflops for plan in plans if plan.fits)
    assert recommended(plans_of(gigabytes=4), 16) is None


def test_optimizer_and_ema_fall_with_replicas_weights_do_not() -> None:
    size, work = network_size(SLICE), Workload(tokens=2048)
    one = predict_memory(size, Layout(1, 1, 1, 1), ParallelConfig(), work)
    four = predict_memory(size, Layout(1, 1, 1, 4), ParallelConfig(), work)
    assert four.weights == one.weights
    assert four.gradients == one.gradients
    assert four.optimizer == one.optimizer / 4
    assert four.ema == one.ema / 4
    whole = predict_memory(size, Layout(1, 1, 1, 4), ParallelConfig(distributed_optimizer=False), work)
    assert whole.optimizer == one.optimizer


def test_a_token_of_several_views_attends_to_the_text_of_its_own() -> None:
    size = network_size(DiTConfig.preset("predict2-2b-multiview"))
    one, seven = training_flops(size, 197_120, 512), training_flops(size, 197_120, 7 * 512, 7)
    keys_and_values = 3 * 28 * 4 * 6 * 512 * 1024 * 2048
    assert seven - one == pytest.approx(keys_and_values, rel=1e-3)
    assert seven == pytest.approx(28.6e15, rel=0.01)


MULTIVIEW = "experiment=predict2_multiview_training_2b_720p_10fps_7views_29frames_waymo5views"


@pytest.mark.parametrize(
    "words, tokens, shown",
    [
        ([], "197,120", "56×88×160, 7 views"),
        (["views=5"], "140,800", "40×88×160, 5 views"),
        (["latent=40x60x106", "views=5"], "63,600", "40×60×106, 5 views"),
        (["latent=84x44x80", "views=12", "model.overrides.num_views=12"], "73,920", "84×44×80, 12 views"),
    ],
)
def test_plan_counts_the_frames_of_all_views(words: list[str], tokens: str, shown: str) -> None:
    result = CliRunner().invoke(app, ["plan", MULTIVIEW, *words])
    assert result.exit_code == 0, result.output
    assert f"{tokens} tokens a sample" in result.output and shown in result.output


@pytest.mark.parametrize(
    "words, message",
    [
        (["views=8"], "views=8: the network has 7"),
        (["latent=41x60x106", "views=5"], "41 frames do not divide into 5 views"),
        (["views=0"], "views=0: expected a number"),
    ],
)
def test_plan_refuses_views_that_cannot_be(words: list[str], message: str) -> None:
    assert message in str(CliRunner().invoke(app, ["plan", MULTIVIEW, *words]).exception)


def test_plan_takes_the_views_of_the_shards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", shape=(8, 4, 6), rigs=[[4, 5, 0]], count=1)
    result = CliRunner().invoke(app, ["plan", MULTIVIEW, f"data.path={shards}"])
    assert result.exit_code == 0 and "24×4×6, 3 views" in result.output
    other = CliRunner().invoke(app, ["plan", MULTIVIEW, f"data.path={shards}", "views=5"])
    assert "have 3" in str(other.exception)


@pytest.mark.parametrize("name", [name for name in experiment_names() if "multiview" in name])
def test_shipped_layouts_of_several_views_fit_gpus_of_80_gb(name: str) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    latent = (40, 60, 106) if "480p" in name else released_latent(config)
    size, work = workload_of(config, latent, 5 if "480p" in name else None)
    split = config.parallel.tensor, config.parallel.pipeline, config.parallel.context
    memory = predict_memory(size, Layout(*split, data=1), config.parallel, work)
    assert memory.total + RESERVE_BYTES <= parse_memory("80GB")


def test_adapters_need_little_memory_beside_the_weights() -> None:
    size = network_size(DiTConfig.preset("predict1-7b-video2world"))
    count = adapter_parameters(size, 8, ["to_q", "to_k", "to_v", "to_out.0"])
    memory = predict_memory(
        size, Layout(1, 1, 1, 1), ParallelConfig(), Workload(tokens=2048, adapter_parameters=count)
    )
    assert memory.gradients + memory.optimizer + memory.ema < 0.03 * memory.weights


@pytest.mark.parametrize(("text", "expected"), [("80GB", 80e9), ("139GiB", 139 * GIB), ("1.5 tb", 1.5e12)])
def test_memory_sizes(text: str, expected: float) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["80", "GB", "80 cows"])
def test_memory_without_unit_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a number with a unit"):
        parse_memory(text)


def test_the_verb_prints_a_table_and_a_recommendation() -> None:
    arguments = ["plan", "experiment=video2world_7b_example_hdvila", "gpus=16", "gpu_memory=80GB"]
    result = CliRunner().invoke(app, [*arguments, "data.global_batch=16"])
    assert result.exit_code == 0, result.output
    assert "7.24 billion parameters, 56,320 tokens" in result.output
    assert "Recommended: parallel.tensor=" in result.output
    small = CliRunner().invoke(app, [*arguments[:2], "gpus=1", "gpu_memory=24GB"])
    assert small.exit_code == 1
    assert "None fits" in small.output


RELEASED = [name for name in experiment_names() if "example_hdvila" in name]


@pytest.mark.parametrize("name", RELEASED)
def test_shipped_layout_fits_gpus_of_80_gb(name: str) -> None:
    """As many GPUs as the experiment splits its network over hold it, at 121 frames of 704 x 1280 pixels."""
    config = load_config(TrainConfig, [f"experiment={name}"])
    size, work = workload_of(config, RELEASED_LATENT)
    split = config.parallel.tensor, config.parallel.pipeline, config.parallel.context
    memory = predict_memory(size, Layout(*split, data=1), config.parallel, work)
    assert memory.total + RESERVE_BYTES <= parse_memory("80GB")


@pytest.mark.parametrize("name", [name for name in RELEASED if name.endswith("_lora")])
def test_adapters_train_on_any_number_of_gpus(name: str) -> None:
    config = load_config(TrainConfig, [f"experiment={name}"])
    dit = DiTConfig.preset(config.model.preset)
    for gpus in (1, 2, 4, 8):
        layout = validate_layout(
            config.parallel, NetworkShape(dit.num_layers, dit.num_attention_heads), world_size=gpus,
            micro_batch=config.data.micro_batch, global_batch=config.data.global_batch,
        )  # fmt: skip
        assert layout.data == gpus


def test_plan_names_the_smallest_machine_of_every_experiment() -> None:
    result = CliRunner().invoke(app, ["plan", "--experiments"])
    assert result.exit_code == 0, result.output
    machines = dict(re.findall(r"(\w+)\s+│\s+(\d+ × 80 GB|a CPU)", result.output))
    assert set(machines) == set(experiment_names())
    assert machines["video2world_7b_example_hdvila_lora"] == machines["text2world_14b_example_hdvila_lora"]
    assert machines["video2world_14b_example_hdvila_lora"] == "1 × 80 GB"
    assert machines["video2world_7b_example_hdvila"] == "4 × 80 GB"
    # One size smaller does not do.
    config = load_config(TrainConfig, ["experiment=video2world_7b_example_hdvila"])
    size, work = workload_of(config, RELEASED_LATENT)
    plans = make_plans(size, work, config.parallel, gpus=2, gpu_memory=parse_memory("80GB"), global_batch=1)
    assert not any(plan.fits for plan in plans)


def test_plan_of_experiments_takes_no_settings() -> None:
    result = CliRunner().invoke(app, ["plan", "--experiments", "gpus=4"])
    assert isinstance(result.exception, InputError)
