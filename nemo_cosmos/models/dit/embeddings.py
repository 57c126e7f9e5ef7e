"""What enters the layers: patches, time, positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_cosmos.models.dit.config import DiTConfig, TokenGrid
from nemo_cosmos.models.dit.ops import normalised_position, rms_norm


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, T, H, W) -> (T·H/p·W/p, B, C·p²); a feature is indexed (channel, row offset, column offset)."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // patch, patch, w // patch, patch)
    return x.permute(2, 3, 5, 0, 1, 4, 6).reshape(-1, b, c * patch * patch)


def unpatchify(tokens: Tensor, grid: TokenGrid, patch: int) -> Tensor:
    """(T·H'·W', B, p²·C) -> (B, C, T, H, W); here a feature is indexed (row offset, column offset, channel)."""
    b = tokens.shape[1]
    x = tokens.reshape(grid.frames, grid.rows, grid.columns, b, patch, patch, -1)
    return x.permute(3, 6, 0, 1, 4, 2, 5).reshape(b, x.shape[-1], grid.frames, grid.rows * patch, grid.columns * patch)


def resize_nearest(mask: Tensor, height: int, width: int) -> Tensor:
    """(B, N, H, W) -> (B, N, height, width) by plain nearest neighbours."""
    return F.interpolate(mask, size=(height, width), mode="nearest")


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """(...,) -> (..., width) in fp32: cosines first, then sines, of ``timestep · 10000^(-i / (width/2))``."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angle = timesteps.float().unsqueeze(-1) * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """The noise level: a normalised sinusoid, and the vector that all modulations share (AdaLN-LoRA)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.linear_1 = nn.Linear(width, width, bias=False)
        self.linear_2 = nn.Linear(width, 3 * width, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(width))

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """timesteps (B,) or (B, T) -> embedding (1 or T, B, D) and shared modulation (1 or T, B, 3D).

        The embedding is the normalised sinusoid itself; the two linear maps make the shared modulation only.
        """
        if timesteps.dim() == 1:
            timesteps = timesteps.unsqueeze(1)
        wave = sinusoid(timesteps, self.norm_weight.shape[0]).transpose(0, 1).to(self.linear_1.weight.dtype)
        return rms_norm(wave, self.norm_weight), self.linear_2(F.silu(self.linear_1(wave)))


class LearnablePosition(nn.Module):
    """Sum of three learnable tables, scaled to unit root mean square, restarting in time at every view (Predict1)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.t = nn.Parameter(torch.empty(config.max_frames, width))
        self.h = nn.Parameter(torch.empty(config.max_height // config.patch_size, width))
        self.w = nn.Parameter(torch.empty(config.max_width // config.patch_size, width))

    def forward(self, grid: TokenGrid, num_views: int) -> Tensor:
        """(tokens, 1, D) in fp32."""
        frames = grid.frames // num_views
        one = normalised_position(self.t[:frames], self.h[: grid.rows], self.w[: grid.columns])
        return one if num_views == 1 else one.repeat(num_views, 1, 1)


class SinCosPosition(nn.Module):
    """Fixed sines and cosines of the three indices, restarting in time at every view (Predict1 multiview)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.width = config.hidden_size
        self.register_buffer("device_marker", torch.empty(0), persistent=False)

    def forward(self, grid: TokenGrid, num_views: int) -> Tensor:
        """(tokens, 1, D) in fp32: parts for time, height and width, each sines first."""
        spatial = self.width // 6 * 2

        def table(count: int, width: int) -> Tensor:
            device = self.get_buffer("device_marker").device
            omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64, device=device) / (width / 2))
            angle = torch.arange(count, dtype=torch.float64, device=device)[:, None] * omega
            return torch.cat((angle.sin(), angle.cos()), dim=-1).float()

        frames, rows, columns = grid.frames // num_views, grid.rows, grid.columns
        parts = (
            table(frames, self.width - 2 * spatial)[:, None, None].expand(-1, rows, columns, -1),
            table(rows, spatial)[None, :, None].expand(frames, -1, columns, -1),
            table(columns, spatial)[None, None, :].expand(frames, rows, -1, -1),
        )
        return torch.cat(parts, dim=-1).flatten(0, 2).repeat(num_views, 1).unsqueeze(1)


class RotaryTable(nn.Module):
    """Angles of the three-dimensional rotary embedding; no parameters."""

    BASE_FPS = 24.0

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        spatial = config.head_dim // 6 * 2
        self.sizes = (config.head_dim - 2 * spatial, spatial, spatial)
        self.ratio = config.rope_ratio
        self.uses_fps = config.rope_uses_fps
        self.dtype = torch.bfloat16 if config.rope_table_dtype == "bfloat16" else torch.float32

    def _frequencies(self, axis: int, device: torch.device) -> Tensor:
        size = self.sizes[axis]
        theta = 10000.0 * self.ratio[axis] ** (size / (size - 2)) if size > 2 else 10000.0
        exponent = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
        # The original holds exponents and base in the table's dtype and rounds after every operation.
        power = torch.pow(torch.tensor(theta, dtype=self.dtype).to(device), exponent.to(self.dtype))
        return 1.0 / power

    def forward(self, grid: TokenGrid, fps: Tensor | None, num_views: int, device: torch.device) -> tuple[Tensor, ...]:
        """cos and sin (tokens, 1 or B, 1, d/2) in fp32; fps (B,) is the frame rate of the pixels.

        Time positions count latent frames and restart at every view; with ``rope_uses_fps`` they are scaled to 24
        frames a second, and without fps they are not scaled (a single frame needs none).
        """
        frames = grid.frames // num_views
        counts = (frames, grid.rows, grid.columns)
        t, h, w = (torch.arange(count, dtype=torch.float32, device=device).to(self.dtype) for count in counts)
        t = t[:, None]
        if self.uses_fps and fps is not None:
            t = t / fps.to(device=device, dtype=self.dtype) * self.BASE_FPS
        angles_t = t[..., None] * self._frequencies(0, device)
        angles_h = h[:, None] * self._frequencies(1, device)
        angles_w = w[:, None] * self._frequencies(2, device)
        shape = (frames, grid.rows, grid.columns, t.shape[1], -1)
        parts = (
            angles_t[:, None, None].expand(shape),
            angles_h[None, :, None, None].expand(shape),
            angles_w[None, None, :, None].expand(shape),
        )
        angles = torch.cat(parts, dim=-1).float().flatten(0, 2).repeat(num_views, 1, 1).unsqueeze(2)
        return angles.cos(), angles.sin()


class ViewEmbedding(nn.Module):
    """The vector appended to the channels that says which camera a frame comes from (multiview)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.num_views = config.num_views
        self.weight = nn.Parameter(torch.empty(config.num_views, config.view_channels))
        self.frame_repeat = nn.Linear(1, config.view_channels) if config.frame_repeat else None

    def forward(self, view_ids: Tensor, frame_repeat: Tensor | None) -> Tensor:
        """view_ids (B, V), frame_repeat (B, V) or None (zeros) -> (B, V, view_channels)."""
        vector = F.embedding(view_ids.clamp(0, self.num_views - 1), self.weight)
        if self.frame_repeat is None:
            return vector
        if frame_repeat is None:
            frame_repeat = vector.new_zeros(vector.shape[:2])
        return vector + self.frame_repeat(frame_repeat.to(vector.dtype).unsqueeze(-1))
