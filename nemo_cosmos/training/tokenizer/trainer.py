"""The training loop of the video tokenizers: single process, or data parallel under torchrun."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nemo_cosmos.atomic import write_text
from nemo_cosmos.config import PREVIOUS, dump_config
from nemo_cosmos.data.record import refuse_other_data
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.fusion import allow_repeated_backward
from nemo_cosmos.models.tokenizer import TokenizerModule, build_tokenizer, save_tokenizer
from nemo_cosmos.models.tokenizer.initialisation import initialise
from nemo_cosmos.models.tokenizer.metrics import code_usage, psnr
from nemo_cosmos.models.tokenizer.state_dict import split_weights
from nemo_cosmos.training.metrics_file import forget_later_steps
from nemo_cosmos.training.tokenizer import checkpoint as files
from nemo_cosmos.training.tokenizer.adversarial import PatchDiscriminator3D, discriminator_loss
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.data import CenterClips, ClipDataset, make_loader, resolve_source
from nemo_cosmos.training.tokenizer.distributed import Workers, join
from nemo_cosmos.training.tokenizer.losses import LossTerms, TokenizerLoss
from nemo_cosmos.training.tokenizer.optimizer import Ema, lr_multiplier, make_optimizer
from nemo_cosmos.training.tokenizer.stats import latent_statistics
from nemo_cosmos.training.tokenizer.validation import Validator, write_animation

logger = logging.getLogger(__name__)


def train(config: TokenizerTrainConfig) -> Path:
    """Train as configured; returns the tokenizer folder ``output_dir/tokenizer``.

    Raises:
        InputError: a setting, file or clip is wrong; said before the first step wherever that is possible.
    """
    trainer = TokenizerTrainer(config)
    target = trainer.run()
    trainer.workers.leave()
    return target


class TokenizerTrainer:
    """One run: network, losses, data, optimizer, moving average, checkpoints."""

    def __init__(self, config: TokenizerTrainConfig) -> None:
        self.config = config
        self.output_dir = Path(config.output_dir)
        self.checkpoints = self.output_dir / "checkpoints"
        self.workers: Workers = join(config.trainer.device)
        self.device = self.workers.device
        self.precision = config.trainer.precision
        if self.precision == "auto":  # Few CPUs have bf16 arithmetic; without it a step takes many times as long.
            self.precision = "bf16" if self.device.type == "cuda" else "fp32"
        torch.manual_seed(config.seed)

        self.module = build_tokenizer(config.model.preset, **config.model.overrides)
        self.module.check_video(torch.empty(1, 3, config.data.num_frames, *_crop(config), device="meta"))
        self.dataset, clips, self.statistics_clips = self._open_data()
        checkpointing = config.trainer.activation_checkpointing
        self.loss = TokenizerLoss(config.loss, self.module.config, checkpointing).to(self.device)
        self.loss.check_crop(*_crop(config))
        average: dict[str, Tensor] | None = None
        if config.model.init_from is None:
            initialise(self.module)
        elif not (self.checkpoints / files.LATEST).is_file():
            average = files.load_start(self.module, config.model.init_from)
        self.module.to(self.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        self.module.enable_checkpointing(checkpointing)
        adversarial = config.loss.adversarial
        if adversarial.enabled and adversarial.adaptive:
            allow_repeated_backward()
        compiled = config.trainer.compile
        if compiled or (compiled is None and self.device.type == "cuda"):
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
        self._restore()
        self.network: nn.Module = self.module
        self.judge: nn.Module | None = self.discriminator
        if self.workers.world > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            # Buffers are constants: nothing to broadcast before every forward pass.
            self.network = DistributedDataParallel(self.module, device_ids=ids, broadcast_buffers=False)
            if self.discriminator is not None:
                self.judge = DistributedDataParallel(self.discriminator, device_ids=ids)
        self.validator: Validator | None = None
        if clips and self.workers.is_main:
            self.validator = Validator(
                list(clips),
                config.validation,
                device=self.device,
                vgg_weights=config.loss.perceptual.weights,
                precision=self.precision,
            )
        self.writer: Any = None

    def run(self) -> Path:
        """Train to ``trainer.max_steps`` and write the tokenizer folder."""
        from tqdm import tqdm

        config = self.config
        self._open_outputs()
        if self.step == 0 and config.validation.at_start:
            self._record({"step": 0, **self._validate()})
        loader = iter(make_loader(self.dataset, self.step, self.workers.rank, self.workers.world))
        bar = tqdm(
            total=config.trainer.max_steps,
            initial=self.step,
            desc=self.module.config.name,
            disable=not self.workers.is_main,
            mininterval=1.0,
        )
        while self.step < config.trainer.max_steps:
            record = self._train_step(loader)
            last = self.step == config.trainer.max_steps
            if self.step % config.validation.every_n_steps == 0 or last:
                record |= self._validate()
            if self.step % config.trainer.log_every_n_steps == 0 or last or "validation_psnr" in record:
                self._record(record)
                bar.set_postfix(loss=f"{record['loss']:.4f}", psnr=f"{record['psnr']:.2f}")
            if self.step % config.checkpoint.every_n_steps == 0 or last:
                self._save()
            bar.update()
        bar.close()
        target = self._write_tokenizer()
        if self.writer is not None:
            self.writer.close()
        return target

    def _train_step(self, loader: Iterator[Tensor]) -> dict[str, Any]:
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
        data_wait = 0.0
        for micro in range(micro_steps):
            waited = time.perf_counter()
            video = next(loader).to(self.device, non_blocking=True)
            data_wait += time.perf_counter() - waited
            with self._no_sync(micro + 1 < micro_steps):
                values = self._forward_backward(video, micro_steps)
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value / micro_steps
        limit = config.optimizer.clip_grad
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), limit if limit > 0 else float("inf"))
        if not bool(torch.isfinite(norm)):
            raise RuntimeError(f"the gradient norm is {norm.item()} at step {self.step}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.discriminator is not None and self.step >= config.loss.adversarial.start_step:
            self.discriminator_optimizer.step()
            self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.module)
        means = self.workers.mean(sums)
        seconds = time.perf_counter() - began
        frames = config.data.global_batch * config.data.num_frames
        on_cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            **means,
            "lr": lr,
            "grad_norm": float(norm),
            "seconds": seconds,
            "data_wait_seconds": data_wait,
            "frames_per_second": frames / seconds,
            "memory_bytes": torch.cuda.max_memory_allocated(self.device) if on_cuda else _peak_memory(),
        }

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
        terms.check_finite(self.step)
        (terms.total / micro_steps).backward()
        values = {"loss": terms.total.detach()}
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
        return values

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def _no_sync(self, active: bool) -> Iterator[None]:
        """Gradient all-reduce only on the last micro batch of a step."""
        with contextlib.ExitStack() as stack:
            for module in (self.network, self.judge):
                if active and isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
            yield

    def _open_data(self) -> tuple[ClipDataset, Sequence[Tensor], Sequence[Tensor]]:
        config = self.config
        source = resolve_source(config.data.train, config.data)
        dataset = ClipDataset(source, config.data, config.seed, progress=self.workers.is_main)
        clips: Sequence[Tensor] = []
        if config.data.val is not None:
            held_out = resolve_source(config.data.val, config.data)
            try:
                clips = CenterClips(held_out, config.data, config.validation.max_clips, progress=self.workers.is_main)
            except InputError as error:
                raise InputError(f"data.val={config.data.val}: {error}") from error
        elif config.validation.lpips_weights is not None or config.validation.fvd_network is not None:
            raise InputError("validation.lpips_weights and validation.fvd_network need data.val")
        statistics: Sequence[Tensor] = []
        if config.checkpoint.statistics_clips > 0 and not self.module.config.discrete and self.workers.is_main:
            frames = self.module.config.chunk_frames
            chunk = dataclasses.replace(config.data, num_frames=frames)
            try:
                statistics = CenterClips(source, chunk, config.checkpoint.statistics_clips)
            except InputError as error:
                raise InputError(
                    f"the latent statistics need training videos of {frames} frames (chunk_frames): there are none; "
                    f"set model.overrides.chunk_frames={config.data.num_frames} or checkpoint.statistics_clips=0"
                ) from error
        return dataset, clips, statistics

    def _restore(self) -> None:
        config = self.config
        latest, self.damaged = files.save_to_resume(
            self.checkpoints,
            config.checkpoint.verify,  # type: ignore[arg-type]
            previous=config.resume == PREVIOUS,
        )
        self.resumed_from = latest
        if latest is not None and not config.resume:
            raise InputError(
                f"{self.checkpoints} already holds {latest.name}: resume it, or choose another output_dir"
            )
        if latest is None:
            if not config.model.load_training_state:
                return
            if config.model.init_from is None or not Path(config.model.init_from).is_file():
                raise InputError("model.load_training_state needs model.init_from to be an iter_*.pt file")
            latest = Path(config.model.init_from)
        else:
            refuse_other_data(self.output_dir, self.dataset.record, allow_change=config.data.allow_change)
        content = files.read_checkpoint(latest)
        weights = split_weights(content, str(latest))
        self.module.load_original(weights.regular, strict=True)
        if self.ema is not None and weights.averaged:
            self.ema.load(weights.averaged)
        elif self.ema is not None:
            logger.warning("%s has no moving average: it starts from the regular weights", latest)
            self.ema = Ema(self.module, config.ema.decay)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except (ValueError, KeyError) as error:
            raise InputError(f"{latest}: its optimizer state is of another network or program ({error})") from error
        if self.discriminator is not None:
            if "discriminator" not in content:
                raise InputError(f"{latest} has no discriminator; continue it with loss.adversarial.enabled=false")
            self.discriminator.load_state_dict(content["discriminator"])
            self.discriminator_optimizer.load_state_dict(content["discriminator_optimizer"])
        self.step = int(content["iteration"])

    def _save(self) -> None:
        if self.workers.is_main:
            content: dict[str, Any] = {
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
            try:
                files.save_checkpoint(self.checkpoints, self.step, content, self.config.checkpoint.keep, exported)
            except (OSError, RuntimeError) as error:
                # torch's zip writer reports a full disk as a RuntimeError.
                files.remove_unfinished(self.output_dir)
                raise InputError(
                    f"{files.checkpoint_file(self.checkpoints, self.step)}: could not be written ({error}); the save "
                    "before is whole: free space, then start the run again"
                ) from error
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
        if self.validator is not None and self.workers.is_main:
            result = {f"validation_{name}": value for name, value in self.validator(self.module).items()}
            if self.ema is not None:
                result |= {f"validation_{n}_ema": value for n, value in self.validator(self._average()).items()}
            if self.config.validation.video and self.validator.example is not None:
                write_animation(self.writer, "validation/input_reconstruction", self.step, *self.validator.example)
        self.workers.barrier()
        return result

    def _open_outputs(self) -> None:
        """Folder, resolved configuration, TensorBoard, and metrics.jsonl cut back to the step the run starts at."""
        if not self.workers.is_main:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.output_dir / "config.yaml", dump_config(self.config))
        self.dataset.record.save(self.output_dir)
        files.remove_unfinished(self.output_dir)
        if self.resumed_from is not None:
            files.pass_over(self.damaged, self.resumed_from)
        # A run that starts anew measures step 0 again, too.
        forget_later_steps(self.output_dir / "metrics.jsonl", self.step or -1)
        self.writer = SummaryWriter(str(self.output_dir / "tensorboard"), purge_step=self.step + 1)

    def _record(self, values: dict[str, Any]) -> None:
        if not self.workers.is_main:
            return
        with open(self.output_dir / "metrics.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")
        for name, value in values.items():
            if name != "step":
                self.writer.add_scalar(name, value, values["step"])

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
                bar = tqdm(self.statistics_clips, desc="latent statistics")
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


def _peak_memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
