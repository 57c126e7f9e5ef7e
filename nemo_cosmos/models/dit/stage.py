"""What loading, saving, adapters and the completion of gradients know of a network."""

from __future__ import annotations

from megatron.core.transformer.module import MegatronModule
from torch import Tensor, nn

from nemo_cosmos.models.dit.config import DiTConfig
from nemo_cosmos.models.dit.lora_spec import LoraSpec
from nemo_cosmos.parallel.groups import ParallelGroups


class Stage(MegatronModule):
    """This rank's part of a network: one (virtual) pipeline stage of it.

    Attributes:
        dit_config: of the whole network.
        groups: process groups that the network is split over.
        vp_stage: number of the virtual pipeline stage, None without these.
        layer_numbers: numbers in the whole network of ``layers``.
        position: learnable or fixed position tables, None where there are none.
        original_extras: buffers of a released file, by its names, that the network has no use for.
        lora: which adapters there are; set by :func:`~nemo_cosmos.models.dit.lora.add_adapters`.
    """

    dit_config: DiTConfig
    groups: ParallelGroups
    vp_stage: int | None
    layer_numbers: range
    layers: nn.ModuleList
    position: nn.Module | None
    original_extras: dict[str, Tensor]
    lora: LoraSpec | None
