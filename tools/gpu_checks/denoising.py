"""Denoising steps with guidance of our network and of diffusers' pipeline, on the same weights in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from gpu_checks.machine import GIB, NAN
from nemo_cosmos.checkpoint import load_network
from nemo_cosmos.checkpoint.diffusers import build_transformer, diffusers_form
from nemo_cosmos.checkpoint.files import read_tensors
from nemo_cosmos.data.network_inputs import NetworkInputs
from nemo_cosmos.inference.config import GenerationConfig
from nemo_cosmos.inference.sampling import SamplingInputs, sample_latent
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.attention import ATTENTION_BACKENDS

GUIDANCE = 7.0
TEXT_TOKENS = 512
FPS = 24
"""At which diffusers' time positions are those of the released networks, which take no frame rate."""
EAGER_STEPS, COMPILED_STEPS = 2, 3
"""diffusers' steps in either form; the first of each warms up."""
CELL, COMPRESSION = 8, 4
"""Pixels per latent cell, pixel frames per latent frame of the Wan VAE."""


@dataclass(frozen=True)
class Scene:
    """What is denoised, by which weights, where; a rehearsal compiles nothing."""

    dit: DiTConfig
    weights: Path
    vae: Path
    latent: tuple[int, int, int]
    device: str
    rehearse: bool

    @property
    def tokens(self) -> int:
        return self.dit.token_grid(*self.latent).num_tokens

    def normal(self, *shape: int, seed: int) -> Tensor:
        """Standard normal numbers, the same on every device."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def text(self) -> Tensor:
        return self.normal(1, TEXT_TOKENS, self.dit.text_width, seed=1)


@dataclass
class Found:
    """Median seconds of a step, and the most GiB that PyTorch allocated."""

    seconds: float
    gib: float


@dataclass
class Stamps:
    """When steps ended, the GPU's work included."""

    device: str
    times: list[float] = field(default_factory=list)

    def add(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter())

    def median(self) -> float:
        """Seconds between two of them."""
        return statistics.median(after - before for before, after in zip(self.times, self.times[1:], strict=False))


@contextmanager
def on_device(scene: Scene) -> Iterator[None]:
    """Kernels go to the scene's GPU, and what was allocated there is free again afterwards."""
    if scene.device == "cpu":
        yield
        return
    with torch.cuda.device(scene.device):
        forget_peak(scene)
        yield
        torch.cuda.empty_cache()


def forget_peak(scene: Scene) -> None:
    if scene.device != "cpu":
        torch.cuda.reset_peak_memory_stats(scene.device)


def peak_gib(scene: Scene) -> float:
    return NAN if scene.device == "cpu" else torch.cuda.max_memory_allocated(scene.device) / GIB


def time_ours(scene: Scene) -> Found:
    """The sampler that the command `generate` runs, from one given latent frame; the first evaluation compiles."""
    with on_device(scene):
        network, stamps = load_network(scene.weights, device=scene.device, dtype=torch.bfloat16), Stamps(scene.device)
        height, width = scene.latent[1:]
        inputs = SamplingInputs(
            shape=(scene.dit.in_channels, *scene.latent),
            network=NetworkInputs(
                text=scene.text(),
                fps=torch.full((1,), float(FPS)),
                padding_mask=torch.zeros(1, 1, height, width),
            ),
            negative_text=torch.zeros(1, TEXT_TOKENS, scene.dit.text_width),
            seed=1,
            condition=scene.normal(1, scene.dit.in_channels, 1, height, width, seed=2),
        )
        config = GenerationConfig(num_steps=2, guidance=GUIDANCE)
        sample_latent(network, scene.dit, inputs, config, progress=lambda done, total: stamps.add())
        return Found(stamps.median(), peak_gib(scene))


def time_diffusers(scene: Scene, report: Callable[[str, Found], None]) -> None:
    """Its Video2World pipeline as shipped, then with its blocks compiled and cuDNN's attention asked for, as ours.

    ``report`` is called when each is known, with what it is. Five steps in all, which is enough: they all cost alike.
    """
    with on_device(scene), ExitStack() as stack:
        pipeline, stamps = build_pipeline(scene), Stamps(scene.device)
        frames, height, width = scene.latent

        def after_step(pipe: Any, step: int, timestep: Tensor, values: dict[str, Any]) -> dict[str, Any]:
            stamps.add()
            if step + 1 == EAGER_STEPS:
                report("as shipped", Found(stamps.median(), peak_gib(scene)))
                stack.enter_context(sdpa_kernel(ATTENTION_BACKENDS, set_priority=True))
                for block in pipe.transformer.transformer_blocks:
                    block.compile(dynamic=False, backend="eager" if scene.rehearse else "inductor")
            elif step == EAGER_STEPS:
                # That step compiled.
                stamps.times = stamps.times[-1:]
                forget_peak(scene)
            return {}

        pipeline(
            video=torch.zeros(1, 1, 3, height * CELL, width * CELL),
            height=height * CELL, width=width * CELL, num_frames=1 + (frames - 1) * COMPRESSION, fps=FPS,
            num_inference_steps=EAGER_STEPS + COMPILED_STEPS, guidance_scale=GUIDANCE, output_type="latent",
            prompt_embeds=scene.text().bfloat16(), negative_prompt_embeds=torch.zeros_like(scene.text()).bfloat16(),
            generator=torch.Generator(scene.device).manual_seed(0), callback_on_step_end=after_step,
        )  # fmt: skip
        report("with compiled blocks", Found(stamps.median(), peak_gib(scene)))


def build_pipeline(scene: Scene) -> Any:
    """diffusers' pipeline in bf16 around a released file's weights, without text encoder and guardrail."""
    from diffusers import AutoencoderKLWan, Cosmos2VideoToWorldPipeline, FlowMatchEulerDiscreteScheduler

    vae = AutoencoderKLWan.from_pretrained(scene.vae).to(scene.device, torch.bfloat16)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.register_to_config(**diffusers_form(scene.dit).scheduler_settings)
    pipeline = Cosmos2VideoToWorldPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=diffusers_network(scene, torch.bfloat16),
        vae=vae,
        scheduler=scheduler,
        safety_checker=NoGuardrail(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class NoGuardrail:
    """In the place of cosmos_guardrail, which diffusers' pipelines insist on; all texts and videos are ours."""

    def to(self, device: object) -> None:
        pass

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: object) -> object:
        return video


def diffusers_network(scene: Scene, dtype: torch.dtype) -> nn.Module:
    """CosmosTransformer3DModel with a released file's weights."""
    replace_torchvision()
    return build_transformer(scene.dit, read_tensors(scene.weights)).to(scene.device, dtype)


def replace_torchvision() -> None:
    """diffusers resizes the padding mask with torchvision; where there is none, with the same rule of PyTorch."""
    from diffusers.models.transformers import transformer_cosmos
    from diffusers.utils import is_torchvision_available

    if is_torchvision_available():
        return
    functional = SimpleNamespace(
        resize=lambda mask, size, interpolation: nn.functional.interpolate(mask, size, mode="nearest")
    )
    modes = SimpleNamespace(NEAREST="nearest")
    transformer_cosmos.transforms = SimpleNamespace(functional=functional, InterpolationMode=modes)


@dataclass(frozen=True)
class Rounding:
    """Norm-relative differences of one output: of either network in bf16 from fp32, and between them."""

    ours: float
    theirs: float
    between: float


@torch.no_grad()
def rounding(scene: Scene) -> Rounding:
    """One evaluation in bf16 of each network beside diffusers' in fp32, all on the same bf16 weights and input.

    In fp32 the two are equal to 1e-5, which a test holds, so either could be the reference.
    """
    frames, height, width = scene.latent
    x = scene.normal(1, scene.dit.in_channels, *scene.latent, seed=3).bfloat16()
    times = torch.full((1, frames), 0.5, device=scene.device)
    times[:, :1] = 1e-4
    mask = torch.zeros(1, 1, *scene.latent, device=scene.device)
    mask[:, :, :1] = 1
    padding = torch.zeros(1, 1, height, width, device=scene.device)

    def of_diffusers(dtype: torch.dtype) -> Tensor:
        network = diffusers_network(scene, dtype)
        values = [value.to(dtype) for value in (x, times[:, None, :, None, None], scene.text().bfloat16())]
        options = {"condition_mask": mask.to(dtype), "padding_mask": padding.to(dtype), "return_dict": False}
        return network(*values, fps=FPS, **options)[0].float()

    with on_device(scene):
        reference, theirs = of_diffusers(torch.float32), of_diffusers(torch.bfloat16)
        network = load_network(scene.weights, device=scene.device, dtype=torch.bfloat16)
        told = NetworkInputs(
            text=scene.text().bfloat16(),
            fps=torch.full((1,), float(FPS), device=scene.device),
            padding_mask=padding.bfloat16(),
            condition_mask=mask.bfloat16(),
        )
        ours = told.feed(network, x, times).float()

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / b.norm())

    return Rounding(apart(ours, reference), apart(theirs, reference), apart(ours, theirs))
