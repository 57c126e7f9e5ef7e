"""Held-out reconstruction quality of a tokenizer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule
from nemo_cosmos.models.tokenizer.metrics import code_usage, frechet_distance, lpips, psnr, ssim
from nemo_cosmos.models.tokenizer.weights import load_jit
from nemo_cosmos.pixels import to_uint8
from nemo_cosmos.training.tokenizer.config import TokenizerValidationConfig
from nemo_cosmos.training.tokenizer.perceptual import Vgg16Features, frames_of, read_tensors


class Validator:
    """Metrics of a module on fixed clips.

    Args:
        clips: (3, T, H, W) in [−1, 1].
        config: which extra metrics.
        vgg_weights: VGG16 weights for LPIPS, as in :class:`Vgg16Features`.
        precision: "bf16" runs the network under autocast.
    """

    def __init__(
        self,
        clips: list[Tensor],
        config: TokenizerValidationConfig,
        *,
        device: torch.device,
        vgg_weights: str,
        precision: str,
    ) -> None:
        self.clips, self.device, self.precision = clips, device, precision
        self.heads: list[Tensor] | None = None
        if config.lpips_weights is not None:
            self.heads = _lpips_heads(Path(config.lpips_weights))
            self.vgg: nn.Module = Vgg16Features(vgg_weights).to(device)
        self.fvd = _load_fvd(config.fvd_network).to(device) if config.fvd_network is not None else None
        self.example: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, module: TokenizerModule, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """psnr, ssim and, where available, lpips, rfvd, code_usage and perplexity.

        Args:
            stop: asked before each clip; once it says so, the rest is left out and nothing is given.
        """
        was_training = module.training
        module.eval()
        sums: dict[str, float] = {}
        indices: list[Tensor] = []
        features: tuple[list[Tensor], list[Tensor]] = ([], [])
        for number, clip in enumerate(self.clips):
            if stop():
                module.train(was_training)
                return {}
            video = clip.unsqueeze(0).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                output = module(video)
            fake = output.reconstruction.float()
            values = {"psnr": psnr(video, fake), "ssim": ssim(video, fake)}
            if self.heads is not None:
                maps = self.vgg(frames_of(video)), self.vgg(frames_of(fake.clamp(-1.0, 1.0)))
                values["lpips"] = lpips(*maps, self.heads)
            if self.fvd is not None:
                features[0].append(self.fvd(video).float().cpu())
                features[1].append(self.fvd(fake.clamp(-1.0, 1.0)).float().cpu())
            if output.indices is not None:
                indices.append(output.indices.flatten().cpu())
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            if number == 0:
                self.example = (video[0].cpu(), fake[0].cpu())
        result = {name: value / len(self.clips) for name, value in sums.items()}
        if indices:
            result["code_usage"], result["perplexity"] = code_usage(torch.cat(indices), module.config.codebook_size)
        if self.fvd is not None:
            result["rfvd"] = frechet_distance(torch.cat(features[0]), torch.cat(features[1]))
        module.train(was_training)
        return result


def _load_fvd(path: str) -> torch.jit.ScriptModule:
    if not Path(path).is_file():
        raise InputError(f"validation.fvd_network={path}: no such file")
    try:
        network = load_jit(path)
    except InputError as error:
        raise InputError(f"validation.fvd_network={error}") from error
    return network


def _lpips_heads(path: Path) -> list[Tensor]:
    state = read_tensors(path)
    keys = [f"lin{i}.model.1.weight" for i in range(5)]
    if any(key not in state for key in keys):
        raise InputError(f"{path}: not LPIPS' linear heads for VGG16; expected the keys {keys[0]} … {keys[-1]}")
    return [state[key].flatten().float() for key in keys]


def comparison_gif(video: Tensor, reconstruction: Tensor, fps: int = 8) -> bytes:
    """Animated GIF, input left and reconstruction right, of two (3, T, H, W) clips in [−1, 1]."""
    from PIL import Image

    both = to_uint8(torch.cat([video, reconstruction], dim=3)).permute(1, 2, 3, 0).numpy()
    images = [Image.fromarray(frame) for frame in both]
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)
    return buffer.getvalue()


def write_animation(writer: object, tag: str, step: int, video: Tensor, reconstruction: Tensor) -> None:
    """Put an input | reconstruction animation into a TensorBoard SummaryWriter.

    Its ``add_video`` needs moviepy, which nothing else here does; the record it would write is made directly.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    assert isinstance(writer, SummaryWriter)
    image = Summary.Image(
        height=video.shape[2],
        width=2 * video.shape[3],
        colorspace=3,
        encoded_image_string=comparison_gif(video, reconstruction),
    )
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
