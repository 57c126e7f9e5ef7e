"""Whether a generated video follows its trajectory: a small network learns rooms, and is asked for ways it never saw.

The network, its objective, the rays and the sampler are those of the package. A clip begins with its true first
frame; the rest is generated once with its own poses, once with those of a clip of another room, from the same noise.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from camera_check.codec import COMPRESSION, BlockCodec
from camera_check.rooms import CAMERA, FRAMES, HEIGHT, WIDTH, Clips, draw_clips
from nemo_cosmos.camera.rays import Cameras, normalise
from nemo_cosmos.camera.stored import stored_rays
from nemo_cosmos.config import ConditionConfig, ObjectiveConfig
from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.sampling import SamplingInputs, sample_latent
from nemo_cosmos.models.dit import CosmosDiT, DiTConfig, build_dit
from nemo_cosmos.training.objective import training_objective

FPS, TEXT_WIDTH = 7.0, 16


@dataclass(frozen=True)
class Size:
    """How much of everything; ``width`` and ``layers`` of the network, ``each`` clips of every room."""

    rooms: int
    each: int
    held_out: int
    width: int
    layers: int
    batch: int
    steps: int
    sampling_steps: int


SIZES = {
    "smoke": Size(rooms=2, each=2, held_out=1, width=32, layers=1, batch=2, steps=2, sampling_steps=2),
    "cpu": Size(rooms=2, each=150, held_out=6, width=128, layers=4, batch=16, steps=2000, sampling_steps=12),
    "gpu": Size(rooms=2, each=600, held_out=16, width=256, layers=6, batch=32, steps=3000, sampling_steps=20),
}


@dataclass(frozen=True)
class Controllability:
    """PSNR in dB of the frames after the first, means over the held-out clips; and the error of the margin's mean."""

    true_poses: float
    other_poses: float
    margin: float
    margin_error: float
    frozen: float
    codec: float
    clips: int

    def __str__(self) -> str:
        return (
            f"{self.clips} held-out trajectories: {self.true_poses:.2f} dB with the true poses, "
            f"{self.other_poses:.2f} dB with another scene's poses, margin {self.margin:.2f} "
            f"+- {self.margin_error:.2f} dB (first frame repeated {self.frozen:.2f} dB, "
            f"codec alone {self.codec:.2f} dB)"
        )


def measure(size: Size, device: str, workers: int) -> Controllability:
    """Renders, trains, generates and compares; prints a line now and then."""
    start = time.perf_counter()
    train, held_out = (
        draw_clips(size.rooms, each, seed, workers) for seed, each in ((0, size.each), (1, size.held_out))
    )
    codec = BlockCodec(torch.from_numpy(train.frames))
    print(f"{len(train.frames)} clips rendered in {time.perf_counter() - start:.0f} s", flush=True)
    dit = DiTConfig.preset(
        "tiny-video2world-camera", hidden_size=size.width, num_layers=size.layers, num_attention_heads=4,
        adaln_lora_dim=32, text_width=TEXT_WIDTH, max_frames=16, max_height=16, max_width=16,
    )  # fmt: skip
    net = build_dit(dit, seed=0).to(device)
    _learn(net, codec.encode(torch.from_numpy(train.frames)), _rays(train), _texts(train), size, start)
    return _compare(net, codec, held_out, size)


def _rays(clips: Clips) -> Tensor:
    """(N, 6, t, h, w)."""
    intrinsics = torch.tensor([CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy], dtype=torch.float64).repeat(FRAMES, 1)
    latent = (1 + (FRAMES - 1) // COMPRESSION, HEIGHT // 8, WIDTH // 8)
    found = []
    for poses in clips.poses:
        chunk, _ = normalise(Cameras(torch.from_numpy(poses), intrinsics, (HEIGHT, WIDTH)))
        found.append(stored_rays(chunk.poses, chunk.intrinsics, chunk.size, latent, "last"))
    return torch.stack(found)


def _texts(clips: Clips) -> Tensor:
    """(N, 4, width) embeddings that name the rooms."""
    rooms = torch.randn(1 + int(clips.rooms.max()), 4, TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    return rooms[torch.from_numpy(clips.rooms)]


def _learn(net: CosmosDiT, latents: Tensor, rays: Tensor, texts: Tensor, size: Size, start: float) -> None:
    device = next(net.parameters()).device
    settings = ObjectiveConfig(text_dropout=0.0, condition=ConditionConfig(min_frames=1, max_frames=1))
    objective = training_objective(settings, net.dit_config)
    head = objective.log_variance_head(0)
    assert head is not None
    parameters = [*net.parameters(), *head.to(device).parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.1)
    latents, rays, texts = (tensor.to(device) for tensor in (latents, rays, texts))
    errors: list[Tensor] = []
    for step in range(size.steps):
        chosen = torch.from_numpy(np.random.default_rng(step).integers(0, len(latents), size.batch)).to(device)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 30) * (1 - 0.95 * step / size.steps)
        clean = objective.clean(latents[chosen])
        positions = list(range(step * size.batch, (step + 1) * size.batch))
        draw = objective.draw(positions, clean.shape[1:], seed=0, device=device)
        inputs = objective.training_input(clean, draw)
        told = NetworkInputs(
            text=texts[chosen], fps=torch.full((size.batch,), FPS, device=device), plucker=rays[chosen],
            condition_mask=inputs.condition_mask,
        )  # fmt: skip
        log_variance = head(objective.preconditioning.c_noise(draw.sigma))
        result = objective.loss(inputs, told.feed(net, inputs.sample, inputs.timesteps), clean, draw, log_variance)
        optimizer.zero_grad()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        errors.append(objective.metrics(result).detach()[1])
        if (step + 1) % 250 == 0:
            mean = float(torch.stack(errors[-100:]).mean())
            print(f"step {step + 1}: error {mean:.4f}, {time.perf_counter() - start:.0f} s", flush=True)


def _compare(net: CosmosDiT, codec: BlockCodec, clips: Clips, size: Size) -> Controllability:
    frames = torch.from_numpy(clips.frames)
    truth, latents = frames.float() / 127.5 - 1, codec.encode(frames)
    rays, texts, count = _rays(clips), _texts(clips), len(frames)
    net.eval()

    def generated(clip: int, way: int) -> float:
        inputs = SamplingInputs(
            shape=tuple(latents.shape[1:]),  # type: ignore[arg-type]
            network=NetworkInputs(text=texts[[clip]], fps=torch.tensor([FPS]), plucker=rays[[way]]),
            negative_text=torch.zeros_like(texts[[clip]]),
            seed=clip,
            condition=latents[[clip], :, :1],
        )
        config = GenerationConfig(num_steps=size.sampling_steps, guidance=0.0)
        return psnr(codec.decode(sample_latent(net, net.dit_config, inputs, config).cpu())[0, 1:], truth[clip, 1:])

    # Clips are ordered by room: half of them on is a clip of another one.
    pairs = np.array([[generated(i, i), generated(i, (i + count // 2) % count)] for i in range(count)])
    margins = pairs[:, 0] - pairs[:, 1]
    return Controllability(
        *pairs.mean(0).tolist(),
        float(margins.mean()),
        float(margins.std() / math.sqrt(count)),
        float(np.mean([psnr(clip[:1].expand_as(clip)[1:], clip[1:]) for clip in truth])),
        float(np.mean([psnr(made[1:], clip[1:]) for made, clip in zip(codec.decode(latents), truth, strict=True)])),
        count,
    )


def psnr(found: Tensor, expected: Tensor) -> float:
    """Of values from -1 to 1, in dB."""
    return 10 * math.log10(4 / float((found - expected).square().mean()))
