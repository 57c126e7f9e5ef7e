"""What happens between building the network and the first step."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.config import TrainConfig
from nemo_cosmos.training.callbacks import EmaCallback, denoising_models
from nemo_cosmos.training.initial_weights import as_network, must_be_whole
from nemo_cosmos.training.saving import together

logger = logging.getLogger(__name__)


class SetUpCallback(pl.Callback):
    """Loads the weights to start from and begins the moving average, before a checkpoint is restored."""

    def __init__(self, cfg: TrainConfig, ema: EmaCallback | None, *, resuming: bool) -> None:
        # Lightning forgets the path of the checkpoint that it will restore.
        self.cfg, self.ema, self.resuming = cfg, ema, resuming

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer: Any = trainer.optimizers[0]
        if self.cfg.model.init_from is not None and not self.resuming:
            self.load_weights(trainer)
            # The optimizer's fp32 copies were made from uninitialised memory.
            optimizer.reload_model_params()
        if self.ema is not None:
            self.ema.attach(trainer.strategy, optimizer)

    def load_weights(self, trainer: pl.Trainer) -> None:
        """Into every stage of this rank, strictly unless ``model.strict_init`` is off; the report is printed.

        A run folder gives its regular weights. Weights of a network without camera rays get zero columns for them.
        """
        source = self.cfg.model.init_from
        assert source is not None
        # One process reads the content for all, in several threads.
        mode: Any = self.cfg.checkpoint.verify
        together(lambda: open_weights(source, weights="reg", verify_files=mode), ranks=1)
        found = open_weights(source, weights="reg", verify_files="size", lora_alpha=self.cfg.model.init_lora_alpha)
        state = found.state
        if trainer.is_global_zero and not found.verified:
            Console(highlight=False, soft_wrap=True).print(f"{source}: no checksums beside it, taken unverified")
        for model in denoising_models(trainer):
            whole = as_network(self.cfg, model.net.dit_config, state)
            report = model.net.load_original(whole, strict=must_be_whole(self.cfg))
            if model.logvar is not None:
                head = {k.removeprefix("logvar."): state[k] for k in state if k.startswith("logvar.")}
                if head:
                    model.logvar.load_state_dict(head)
                elif trainer.is_global_zero:
                    logger.warning("%s has no logvar.*: the head starts anew", self.cfg.model.init_from)
            if trainer.is_global_zero:
                Console(highlight=False).print(f"{self.cfg.model.init_from}: {report}")
