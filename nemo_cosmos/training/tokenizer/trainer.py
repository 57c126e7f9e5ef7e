"""The training loop of the video tokenizers: single process, or data parallel under torchrun."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from nemo_cosmos.data.record import refuse_other_data
from nemo_cosmos.data.workers import close_readers
from nemo_cosmos.errors import InputError
from nemo_cosmos.interrupts import WITH_SAVE, Interrupts, ending_on_signals
from nemo_cosmos.models.tokenizer import TokenizerModule, build_tokenizer, save_tokenizer
from nemo_cosmos.models.tokenizer.initialisation import initialise
from nemo_cosmos.models.tokenizer.metrics import code_usage, psnr
from nemo_cosmos.run_folder import alone_in
from nemo_cosmos.training.deterministic import deterministic_kernels
from nemo_cosmos.training.skipped_steps import SkippedSteps, all_finite
from nemo_cosmos.training.tokenizer import checkpoint as files
from nemo_cosmos.training.tokenizer.adversarial import PatchDiscriminator3D, discriminator_loss
from nemo_cosmos.training.tokenizer.clips import open_clips
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.data import COUNTS, PositionSampler, make_loader
from nemo_cosmos.training.tokenizer.distributed import Workers, join
from nemo_cosmos.training.tokenizer.graph import GraphedTokenizer, wants_graph
from nemo_cosmos.training.tokenizer.losses import LossTerms, TokenizerLoss
from nemo_cosmos.training.tokenizer.optimizer import Ema, lr_multiplier, make_optimizer, restore_optimizer
from nemo_cosmos.training.tokenizer.records import RunRecords, peak_memory
from nemo_cosmos.training.tokenizer.resume import Save, open_save
from nemo_cosmos.training.tokenizer.stats import latent_statistics
from nemo_cosmos.training.tokenizer.validation import Validator
from nemo_cosmos.upstream.compiler import allow_repeated_backward

logger = logging.getLogger(__name__)


def train(config: TokenizerTrainConfig) -> Path:
    """Train as configured; returns the tokenizer folder ``output_dir/tokenizer``.

    SIGTERM, SIGINT and SIGUSR1 end the process while it trains, after a save.

    Raises:
        InputError: a setting, file or clip is wrong, or another run is at work in the folder; said before the first
            step wherever that is possible.
    """
    with ending_on_signals() as interrupts, deterministic_kernels(config.trainer.deterministic):
        trainer = TokenizerTrainer(config, interrupts)
        try:
            with alone_in(trainer.output_dir):
                return trainer.run()
        finally:
            trainer.close()


class TokenizerTrainer:
    """One run: network, losses, data, optimizer, moving average, checkpoints."""

    def __init__(self, config: TokenizerTrainConfig, interrupts: Interrupts | None = None) -> None:
        self.config = config
        self.interrupts = interrupts or Interrupts()
        self.output_dir = Path(config.output_dir)
        self.checkpoints = self.output_dir / "checkpoints"
        self.workers: Workers = join(config.trainer.device)
        self.device = self.workers.device
        self.precision = config.trainer.precision
        if self.precision == "auto":  # Few CPUs have bf16 arithmetic; without it a step takes many times as long.
            self.precision = "bf16" if self.device.type == "cuda" else "fp32"
        torch.manual_seed(config.seed)

        saved = open_save(config)
        self.module = build_tokenizer(config.model.preset, **config.model.overrides)
        self.module.check_video(torch.empty(1, 3, config.data.num_frames, *_crop(config), device="meta"))
        self.dataset, clips, self.statistics_clips = open_clips(config, self.module.config, self.workers)
        self.resuming = saved is not None and not saved.of_another_run
        if self.resuming:
            refuse_other_data(self.output_dir, self.dataset.record, allow_change=config.data.allow_change)
        checkpointing = config.trainer.activation_checkpointing
        self.loss = TokenizerLoss(config.loss, self.module.config, checkpointing).to(self.device)
        self.loss.check_crop(*_crop(config))
        average: dict[str, Tensor] | None = None
        if config.model.init_from is None:
            initialise(self.module)
        elif not self.resuming:
            average = files.load_start(self.module, config.model.init_from)
        self.module.to(self.device)
        if self.device.type == "cuda":
            # Which kernel is fastest is another one from run to run.
            torch.backends.cudnn.benchmark = not config.trainer.deterministic
        self.module.enable_checkpointing(checkpointing)
        adversarial = config.loss.adversarial
        if adversarial.enabled and adversarial.adaptive:
            allow_repeated_backward()
        compiled = config.trainer.compile
        self.graphed = wants_graph(config, self.device, self.workers.world)
        if compiled or (compiled is None and self.device.type == "cuda" and not self.graphed):
            self.module.compile_blocks(dynamic=False)
            if self.loss.vgg is not None:
                self.loss.vgg.compile(dynamic=False)
        self.optimizer = make_optimizer(self.module, config.optimizer, self.device)
        self.ema = Ema(self.module, config.ema.decay) if config.ema.enabled else None
        if self.ema is not None and average is not None:
            self.ema.load(average)
        self.averaged: TokenizerModule | None = None
        self.discriminator: nn.Module | None = None
        if adversarial.enabled:
            self.discriminator = PatchDiscriminator3D(adversarial.channels, adversarial.num_layers).to(self.device)
            self.discriminator_optimizer = torch.optim.AdamW(
                self.discriminator.parameters(), lr=adversarial.lr, betas=(0.5, 0.9), weight_decay=0.0
            )
        self.step = 0
        self.resumed_from: Path | None = None
        self.passed_over: tuple[Path, ...] = ()
        self.skipped = SkippedSteps()
        self.loader: DataLoader[Tensor] | None = None
        if saved is not None:
            self._restore(saved)
            self.resumed_from = None if saved.of_another_run else saved.path
            self.passed_over = saved.passed_over
        del saved
        self.network: nn.Module = self._recorded() if self.graphed else self.module
        self.judge: nn.Module | None = self.discriminator
        if self.workers.world > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            # Buffers are constants: nothing to broadcast before every forward pass.
            self.network = DistributedDataParallel(self.module, device_ids=ids, broadcast_buffers=False)
            if self.discriminator is not None:
                self.judge = DistributedDataParallel(self.discriminator, device_ids=ids)
        self.saved_step: int | None = None
        self.validator: Validator | None = None
        if clips and self.workers.is_main:
            self.validator = Validator(
                list(clips),
                config.validation,
                device=self.device,
                vgg_weights=config.loss.perceptual.weights,
                precision=self.precision,
            )
        self.records: RunRecords | None = None

    def run(self) -> Path:
        """Train to ``trainer.max_steps`` and write the tokenizer folder."""
        from tqdm import tqdm

        config = self.config
        if self.workers.is_main:
            files.remove_unfinished(self.output_dir)
            files.go_on_from(self.resumed_from, self.passed_over)
            if self.resumed_from is not None:  # A kill may have come before the save's end.
                files.delete_old(self.checkpoints, self.step, config.checkpoint.keep)
            self.dataset.record.save(self.output_dir)
            COUNTS.save(self.output_dir)
            self.records = RunRecords(config, self.step, resuming=self.resuming)
        if self.step == 0 and config.validation.at_start:
            self._record({"step": 0} | self._validate())
        self.loader = make_loader(self.dataset, self.step, self.workers.rank, self.workers.world)
        batches = iter(self.loader)
        bar: Any = tqdm(
            total=config.trainer.max_steps,
            initial=self.step,
            desc=self.module.config.name,
            disable=not self.workers.is_main,
            mininterval=1.0,
        )
        # Closed on an error too: what is said about it begins a line of its own.
        with contextlib.closing(bar), self.interrupts.deferred(WITH_SAVE):
            while self.step < config.trainer.max_steps:
                record = self._train_step(batches)
                last = self.step == config.trainer.max_steps
                if self.step % config.validation.every_n_steps == 0 or last:
                    record |= self._validate()
                due = self.step % config.trainer.log_every_n_steps == 0 or self.skipped.current
                if due or last or "validation_psnr" in record:
                    self._record(record)
                    bar.set_postfix(loss=f"{record['loss']:.4f}", psnr=f"{record['psnr']:.2f}")
                self.skipped.tell(self.step, config.trainer.max_bad_steps, is_first=self.workers.is_main)
                if self.step % config.checkpoint.every_n_steps == 0 or last:
                    self._save()
                bar.update()
                self._end_if_asked(bar)
        target = self._write_tokenizer()
        if self.records is not None:
            self.records.close()
        return target

    def close(self) -> None:
        """End what the run has started: processes that read, the group of processes."""
        close_readers(self.loader)
        self.workers.leave()

    def _end_if_asked(self, bar: Any) -> None:
        """Collective: all processes end after a save when one has been asked to."""
        if number := self.interrupts.anywhere():
            if self.saved_step != self.step:
                self._save()
            bar.close()
            raise self.interrupts.ended_with_save(number, self.step, is_first=self.workers.is_main)

    def _train_step(self, batches: Iterator[Tensor]) -> dict[str, Any]:
        """One optimizer step over the global batch; returns its record (averaged over all processes)."""
        config, began = self.config, time.perf_counter()
        # Reseeding per step makes dropout and posterior sampling independent of where a run was interrupted.
        torch.manual_seed((config.seed << 24) + self.step * self.workers.world + self.workers.rank)
        lr = config.optimizer.lr * lr_multiplier(config.optimizer, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.module.train()
        micro_steps = config.data.global_batch // (config.data.micro_batch * self.workers.world)
        sums: dict[str, Tensor] = {}
        finite: list[Tensor] = []
        data_wait = 0.0
        for micro in range(micro_steps):
            waited = time.perf_counter()
            video = next(batches).to(self.device, non_blocking=True)
            data_wait += time.perf_counter() - waited
            with self._no_sync(micro + 1 < micro_steps):
                values = self._forward_backward(video, micro_steps)
            finite.append(values.pop("finite"))
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value / micro_steps
        limit = config.optimizer.clip_grad
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), limit if limit > 0 else float("inf"))
        self._examine(finite, norm)
        if not self.skipped.current:
            self.optimizer.step()
            if self._judging:
                self.discriminator_optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._judging:
            self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None and not self.skipped.current:
            self.ema.update(self.module)
        means = self.workers.mean(sums)
        seconds = time.perf_counter() - began
        frames = config.data.global_batch * config.data.num_frames
        return {
            "step": self.step,
            **means,
            "lr": lr,
            "grad_norm": float(norm),
            "seconds": seconds,
            "data_wait_seconds": data_wait,
            "frames_per_second": frames / seconds,
            "memory_bytes": peak_memory(self.device),
            "skipped_steps": self.skipped.total,
        }

    def _examine(self, finite: list[Tensor], norm: Tensor) -> None:
        """Skip a step of which a loss or gradient is not finite in any process; collective.

        Args:
            finite: whether the losses of each micro batch are.
            norm: of the gradients of the network.
        """
        norms = [norm]
        if self.discriminator is not None and self._judging:
            gradients = [p.grad for p in self.discriminator.parameters() if p.grad is not None]
            norms.append(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients])))
        fine = torch.stack([*finite, *map(torch.isfinite, norms)])
        self.skipped.count(self.workers.any(~fine.all()))
        if not self.skipped.current:
            return
        sampler = PositionSampler(self.config.data, self.step, self.workers.rank, self.workers.world)
        batches = list(zip(sampler.micro_batches(self.step), torch.stack(finite).tolist(), strict=True))
        windows = [(good, self.dataset.window_at(position)) for batch, good in batches for position in batch]
        found = self.workers.gather([f"{good:d}{file.name} frame {start}" for good, (file, start) in windows])
        # Where losses tell which samples it was, the others of the step are not named.
        self.skipped.samples = [name[1:] for name in found if name[0] == "0"] or [name[1:] for name in found]

    @property
    def _judging(self) -> bool:
        """Whether this step trains the discriminator."""
        return self.discriminator is not None and self.step >= self.config.loss.adversarial.start_step

    def _forward_backward(self, video: Tensor, micro_steps: int) -> dict[str, Tensor]:
        config = self.config.loss
        with self._autocast():
            output = self.network(video)
            terms: LossTerms = self.loss(
                self.step,
                video,
                output,
                reconstruct=lambda windows: self.network(windows).reconstruction,
                discriminator=self.discriminator,
                last_layer=self.module.last_layer(),
            )
        (terms.total / micro_steps).backward()
        values = {"loss": terms.total.detach(), "finite": terms.finite}
        values |= {f"loss_{name}": value.detach() for name, value in terms.raw.items()}
        values |= {f"loss_{name}_weighted": value.detach() for name, value in terms.weighted.items()}
        fake = output.reconstruction.detach()
        values["psnr"] = psnr(video, fake)
        if output.indices is not None:
            usage, perplexity = code_usage(output.indices, self.module.config.codebook_size)
            values["code_usage"] = torch.tensor(usage, device=self.device)
            values["perplexity"] = torch.tensor(perplexity, device=self.device)
        if self.judge is not None and self.step >= config.adversarial.start_step:
            with self._autocast():
                score, _ = self.judge(torch.cat([video, fake.to(video.dtype)]))
                real, generated = score.chunk(2)
                judged = discriminator_loss(real, generated)
            (judged / micro_steps).backward()
            values["loss_discriminator"] = judged.detach()
            values["finite"] = values["finite"] & torch.isfinite(judged.detach())
        return values

    def _autocast(self) -> torch.autocast:
        # A graph casts weights where they are used; a cache of it would outlive them.
        on, cached = self.precision == "bf16", not self.graphed
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on, cache_enabled=cached)

    def _recorded(self) -> GraphedTokenizer:
        data = self.config.data
        video = torch.zeros(data.micro_batch, 3, data.num_frames, *_crop(self.config), device=self.device)
        return GraphedTokenizer(self.module.train(), video, self.precision)

    @contextlib.contextmanager
    def _no_sync(self, active: bool) -> Iterator[None]:
        """Gradient all-reduce only on the last micro batch of a step."""
        with contextlib.ExitStack() as stack:
            for module in (self.network, self.judge):
                if active and isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
            yield

    def _restore(self, saved: Save) -> None:
        self.module.load_original(saved.weights.regular, strict=True)
        if self.ema is not None and saved.weights.averaged:
            self.ema.load(saved.weights.averaged)
        elif self.ema is not None:
            logger.warning("%s has no moving average: it starts from the regular weights", saved.path)
            self.ema = Ema(self.module, self.config.ema.decay)
        try:
            restore_optimizer(self.optimizer, saved.content["optimizer"])
            if self.discriminator is not None:
                self.discriminator.load_state_dict(saved.content["discriminator"])
                restore_optimizer(self.discriminator_optimizer, saved.content["discriminator_optimizer"])
        except InputError as error:
            raise InputError(f"{saved.path}: {error}") from error
        self.step = saved.step

    def _save(self) -> None:
        """Collective.

        Raises:
            InputError: some weights are not finite; the save before stays the newest.
        """
        weights = [*self.module.parameters(), *(self.ema.shadow.values() if self.ema is not None else ())]
        if self.discriminator is not None:
            weights += self.discriminator.parameters()
        if not bool(all_finite(weights)):
            raise InputError(
                f"step {self.step}: some weights are not finite and are not saved; the save before is whole. Start "
                "the run again with a lower optimizer.lr"
            )
        if self.workers.is_main:
            content: dict[str, Any] = {
                "config": self.module.config.as_dict(),
                "model": files.pack_model(self.module, self.ema.shadow if self.ema is not None else None),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": {"last_epoch": self.step},
                "grad_scaler": {},
                "iteration": self.step,
            }
            if self.discriminator is not None:
                content["discriminator"] = self.discriminator.state_dict()
                content["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
            exported = self._average() if self.config.checkpoint.export_jit else None
            files.save_checkpoint(self.checkpoints, self.step, content, self.config.checkpoint.keep, exported)
        self.saved_step = self.step
        self.workers.barrier()

    def _average(self) -> TokenizerModule:
        """A module with the averaged weights, or the network itself without EMA."""
        if self.ema is None:
            return self.module
        if self.averaged is None:
            self.averaged = copy.deepcopy(self.module).eval().requires_grad_(False)
        self.ema.copy_to(self.averaged)
        return self.averaged

    def _validate(self) -> dict[str, float]:
        """validation_* of the regular weights and validation_*_ema of the averaged ones; only on the main process."""
        result: dict[str, float] = {}
        if self.validator is not None and self.records is not None:
            found = self.validator(self.module, self._asked_to_end)
            result = {f"validation_{name}": value for name, value in found.items()}
            if self.ema is not None:
                found = self.validator(self._average(), self._asked_to_end)
                result |= {f"validation_{n}_ema": value for n, value in found.items()}
            if self.config.validation.video and self.validator.example is not None:
                self.records.add_animation(self.step, *self.validator.example)
        self.workers.barrier()
        return result

    def _record(self, values: dict[str, Any]) -> None:
        if self.records is not None:
            self.records.append(values)

    def _asked_to_end(self) -> bool:
        """Of this process alone: a save is more urgent than the numbers of a validation."""
        return bool(self.interrupts.received)

    def _write_tokenizer(self) -> Path:
        """The folder that `prepare` and `generate` take: averaged weights, configuration, latent statistics."""
        target = self.output_dir / "tokenizer"
        if self.workers.is_main:
            from tqdm import tqdm

            module = self._average()
            mean = std = None
            if self.statistics_clips:
                was_training = module.training
                module.eval()
                with contextlib.closing(tqdm(self.statistics_clips, desc="latent statistics")) as bar:
                    mean, std = latent_statistics(module, (clip.unsqueeze(0).to(self.device) for clip in bar))
                module.train(was_training)
            metadata = {"steps": self.step, "experiment": self.config.experiment, "ema": self.ema is not None}
            save_tokenizer(target, module, name=self.module.config.name, mean=mean, std=std, metadata=metadata)
        self.workers.barrier()
        return target


def _crop(config: TokenizerTrainConfig) -> tuple[int, int]:
    crop = config.data.crop
    if len(crop) != 2:
        raise InputError(f"data.crop={list(crop)}: expected [height, width]")
    return crop[0], crop[1]
