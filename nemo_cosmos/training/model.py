"""The denoising objective around the network, and its NeMo module."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state
from megatron.core.enums import ModelType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import ensure_metadata_has_dp_cp_group
from megatron.core.utils import make_sharded_tensor_for_checkpoint
from nemo.lightning.megatron_parallel import MegatronLossReduction
from torch import Tensor

from nemo_cosmos.config import ObjectiveConfig
from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.data.sample import LatentBatch, PackedBatch
from nemo_cosmos.diffusion.conditioning import DenoiserInput
from nemo_cosmos.diffusion.noise import TrainingDraw
from nemo_cosmos.diffusion.objectives import Objective
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, LayerOptions, build_dit
from nemo_cosmos.models.dit.lora import LoraSpec, add_adapters
from nemo_cosmos.models.dit.packing import Arguments
from nemo_cosmos.parallel.groups import ParallelGroups
from nemo_cosmos.training.objective import training_objective

METRICS = Objective.metric_names


@dataclass(frozen=True)
class Evaluation:
    """A batch with all that was drawn for it, and what the network is given."""

    keys: list[str]
    draw: TrainingDraw
    clean: Tensor
    inputs: DenoiserInput
    told: NetworkInputs


class DenoisingModel(MegatronModule):
    """One pipeline stage of the network with, on the last one, the log-variance head and the loss.

    Noise is drawn on every rank for the whole latent from generators keyed by (seed, global sample position), so all
    ranks of one sample see the same numbers and the loss is computed alike on each of them.
    """

    def __init__(self, net: CosmosDiT, objective: ObjectiveConfig, seed: int) -> None:
        super().__init__(net.config)
        self.net = net
        self.objective = training_objective(objective, net.dit_config)
        self.seed = seed
        self.vp_stage = net.vp_stage
        self.pre_process, self.post_process = net.pre_process, net.post_process
        # Megatron's schedules ask for both: nothing is tied, and there is one stack of layers.
        self.share_embeddings_and_output_weights = False
        self.model_type = ModelType.encoder_or_decoder
        self.logvar = self.objective.log_variance_head(seed) if self.post_process else None
        self.finite: Tensor | None = None
        """On the last stage: whether every loss since :meth:`forget_step` was finite."""
        self.drawn: list[tuple[list[str], Tensor]] = []
        """On the last stage: keys and noise levels of the samples since then."""

    def set_input_tensor(self, input_tensor: Tensor | list[Tensor]) -> None:
        self.net.set_input_tensor(input_tensor)

    def forward(self, batch: LatentBatch | PackedBatch) -> Tensor:
        """The objective's metrics on the last stage, (loss, ...); the hidden state on the others.

        Those of a packed batch are means over its samples of what each has alone.
        """
        packed, parts = (True, batch.samples) if isinstance(batch, PackedBatch) else (False, [batch])
        evaluations = [self._prepare(part) for part in parts]
        outputs: Any = self._evaluate(evaluations, packed=packed)
        if not self.post_process:
            return outputs
        metrics = [self._metrics(*pair) for pair in zip(evaluations, outputs, strict=True)]
        return torch.stack(metrics).mean(0) if packed else metrics[0]

    def _prepare(self, batch: LatentBatch) -> Evaluation:
        latent, objective = batch.latent, self.objective
        draw = objective.draw(
            batch.position.tolist(),
            latent.shape[1:],
            seed=self.seed,
            device=latent.device,
            num_views=batch.num_views,
        )
        clean = objective.clean(latent)
        inputs = objective.training_input(clean, draw)
        told = batch.network_inputs(
            text=batch.text * (~draw.drop_text)[:, None, None], condition_mask=inputs.condition_mask
        )
        return Evaluation(batch.keys, draw, clean, inputs, told)

    def _evaluate(self, evaluations: list[Evaluation], *, packed: bool) -> Any:
        if not packed:
            (one,) = evaluations
            output = one.told.feed(self.net, one.inputs.sample, one.inputs.timesteps)
            return [output] if self.post_process else output
        return self.net.forward_packed(
            [Arguments(e.inputs.sample, e.inputs.timesteps, e.told.text, **e.told.options()) for e in evaluations]
        )

    def _metrics(self, evaluation: Evaluation, output: Tensor) -> Tensor:
        draw, objective = evaluation.draw, self.objective
        log_variance = None
        if self.logvar is not None:
            # Every context rank computes the whole head; its gradients are summed over them.
            time = objective.preconditioning.c_noise(draw.sigma)
            log_variance = scale_gradient(self.logvar(time), 1 / self.net.groups.context_size)
        result = objective.loss(evaluation.inputs, output, evaluation.clean, draw, log_variance)
        finite = torch.isfinite(result.loss.detach())
        self.finite = finite if self.finite is None else self.finite & finite
        self.drawn.append((evaluation.keys, draw.sigma))
        return objective.metrics(result)

    def forget_step(self) -> None:
        """Begin to look at the next step."""
        self.finite, self.drawn = None, []

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        out = self.net.sharded_state_dict(f"{prefix}net.", sharded_offsets, metadata)
        if self.logvar is not None:
            group = ensure_metadata_has_dp_cp_group(metadata)["dp_cp_group"]
            for name, tensor in self.logvar.state_dict(prefix=f"{prefix}logvar.", keep_vars=True).items():
                out[name] = make_sharded_tensor_for_checkpoint(
                    tensor, name, tp_group=self.net.groups.tensor, dp_cp_group=group
                )
        return out


def stages(wrapped: Iterable[Any]) -> list[DenoisingModel]:
    """This rank's (virtual) pipeline stages, out of the wrappers of NeMo and Megatron."""
    out = []
    for chunk in wrapped:
        module = chunk.module
        while not isinstance(module, DenoisingModel):
            module = module.module
        out.append(module)
    return out


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x with its gradient multiplied by ``factor``."""
    return x if factor == 1.0 else x * factor + (x * (1 - factor)).detach()


class LossReduction(MegatronLossReduction):
    """Mean over micro batches and data-parallel ranks.

    All micro batches of a step have equally many samples, which weigh alike: this is the mean over the global batch.
    """

    def forward(self, batch: LatentBatch | PackedBatch, forward_out: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return forward_out[0].clone(), {"metrics": forward_out.detach()}

    def reduce(self, losses_reduced_per_micro_batch: Any) -> dict[str, Tensor]:
        metrics = torch.stack([out["metrics"] for out in losses_reduced_per_micro_batch]).mean(0)
        group = parallel_state.get_data_parallel_group()
        torch.distributed.all_reduce(metrics, group=group)
        return dict(zip(METRICS, metrics / group.size(), strict=True))


@dataclass(frozen=True)
class NetworkOptions:
    """What a stage of the network is built from."""

    dit: DiTConfig
    objective: ObjectiveConfig
    layer: LayerOptions
    seed: int
    initialise: bool
    """Draw initial weights; false where weights are loaded next."""
    lora: LoraSpec | None = None
    """Adapters that are trained instead of the weights."""


class CosmosModule(pl.LightningModule):
    """NeMo's view of one (virtual) pipeline stage; its schedules call the step functions below."""

    def __init__(self, options: NetworkOptions, config: TransformerConfig) -> None:
        super().__init__()
        self.options = options
        self.config = config
        self.vp_stage: int | None = None
        self.data_wait_seconds = 0.0

    def reinit(self) -> CosmosModule:
        """Another stage of the same network; NeMo asks for it with virtual pipeline stages."""
        return CosmosModule(self.options, self.config)

    def configure_model(self, vp_stage: int | None = None) -> None:
        """Build this rank's stage; called by Lightning, and by NeMo for further virtual stages."""
        if hasattr(self, "module"):
            return
        if vp_stage is None and self.config.virtual_pipeline_model_parallel_size:
            vp_stage = 0
        self.vp_stage = vp_stage
        net = build_dit(
            self.options.dit,
            transformer=self.config,
            groups=ParallelGroups.current(sequence=self.config.sequence_parallel),
            options=self.options.layer,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
            vp_stage=vp_stage,
            seed=self.options.seed if self.options.initialise else None,
        )
        if self.options.lora is not None:
            add_adapters(net, self.options.lora, self.options.seed)
        self.module = DenoisingModel(net, self.options.objective, self.options.seed)
        if self.options.lora is not None and self.module.logvar is not None:
            self.module.logvar.requires_grad_(False)

    def forward(self, batch: LatentBatch | PackedBatch) -> Tensor:
        return self.module(batch)

    def data_step(self, dataloader_iter: Iterator[Any]) -> LatentBatch | PackedBatch:
        """The next micro batch, on this rank's device; readers give it as it is stored."""
        start = time.perf_counter()
        item = next(dataloader_iter)
        self.data_wait_seconds += time.perf_counter() - start
        batch: LatentBatch | PackedBatch = item[0] if isinstance(item, tuple) else item
        moved = batch.to(torch.cuda.current_device() if torch.cuda.is_available() else "cpu")
        return moved.to(dtype=torch.float32)

    def forward_step(self, batch: LatentBatch | PackedBatch) -> Tensor:
        return self(batch)

    def training_step(self, batch: LatentBatch | PackedBatch, batch_idx: int | None = None) -> Tensor:
        return self.forward_step(batch)

    @property
    def training_loss_reduction(self) -> LossReduction:
        return LossReduction()
