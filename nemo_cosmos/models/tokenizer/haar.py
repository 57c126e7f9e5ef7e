"""Three-dimensional Haar wavelet patcher of the Cosmos tokenizers.

One level splits every 2×2×2 block of voxels into eight subbands; ``log2(patch_size)`` levels follow each other, each
seeing all channels of the one before. With h = 1/√2, low = h·a + h·b and high = h·a − h·b along time, then height,
then width, and a division by 2√2, so that the lowest subband is the plain mean of the block.

All levels together are one linear map of a p×p×p block of voxels. Its entries are ±1/p³, exact in every dtype, so the
block is gathered in one pass over the video and mapped by one matrix product. The released networks filter in several
rounded steps instead; in bf16 their 1/√2 is 0.70703, which makes their subbands smaller by 0.07 % for p = 4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_cosmos.models.fusion import fused


def haar_signs(num_levels: int, channels: int, like: Tensor) -> Tensor:
    """(8^L·C, 8^L·C) matrix of ±1 and, between different channels, 0, in ``like``'s dtype and device.

    Rows are subbands: level (coarsest first), then t, h, w, then channel. Columns are the voxels of a block: t, h, w,
    then channel. The transform is this matrix over 8^L, its inverse is the transposed matrix.
    """
    voxels = torch.arange(1 << (3 * num_levels), device=like.device)
    # A column's bits are (t: coarse … fine, h: …, w: …), a row's are (coarsest: t, h, w), …, (finest: t, h, w).
    order: list[int] = []
    for level in range(num_levels):  # TorchScript knows no nested comprehension.
        order += [level, num_levels + level, 2 * num_levels + level]
    subbands = voxels.reshape([2] * (3 * num_levels)).permute(order).reshape(-1)
    parity = subbands.unsqueeze(1) & voxels.unsqueeze(0)
    for shift in (8, 4, 2, 1):
        parity = parity ^ (parity >> shift)
    signs = (1 - 2 * (parity & 1)).to(like.dtype)
    return torch.kron(signs, torch.eye(channels, dtype=like.dtype, device=like.device))


def _gather_blocks(x: Tensor, patch: int) -> Tensor:
    """(B, C, T, H, W) to (B, 1 + (T−1)/p, H/p, W/p, p·p·p·C), frame 0 repeated to fill its block."""
    first = x[:, :, :1].expand(-1, -1, patch - 1, -1, -1)
    x = torch.cat([first, x], dim=2)
    x = x.unflatten(2, [-1, patch]).unflatten(4, [-1, patch]).unflatten(6, [-1, patch])
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)


def _scatter_blocks(x: Tensor, patch: int) -> Tensor:
    """Inverse of :func:`_gather_blocks`."""
    x = x.unflatten(4, [patch, patch, patch, -1])
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return x[:, :, patch - 1 :].contiguous()


_gather_blocks_fused = fused(_gather_blocks)
_scatter_blocks_fused = fused(_scatter_blocks)


def _map(x: Tensor, matrix: Tensor) -> Tensor:
    """Matrix product in x's own precision, also under autocast: pixels rounded to bf16 would lose the fine bands."""
    if torch.jit.is_scripting():
        return F.linear(x, matrix)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, matrix)


class HaarPatcher3D(nn.Module):
    """(B, C, T, H, W) video to (B, C·p³, 1 + (T−1)/p, H/p, W/p) subbands; frame 0 alone fills the first patch.

    Channel order is subband-major: ``subband * C + channel`` with subbands (t, h, w) lll, llh, lhl, lhh, hll, hlh,
    hhl, hhh. T must be 1 + k·p, H and W multiples of p. The result is in channels_last_3d order.
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.num_levels = int(math.log2(patch_size))
        self.num_bands = patch_size**3
        # The buffers are part of the released state dicts; nothing is computed with them.
        self.register_buffer("wavelets", torch.tensor([1.0, 1.0]) / math.sqrt(2.0))
        self.register_buffer("_arange", torch.arange(2))
        self.register_buffer("patch_size_buffer", torch.tensor([patch_size], dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            blocks = _gather_blocks(x, self.patch_size)
        else:
            blocks = _gather_blocks_fused(x, self.patch_size)
        matrix = haar_signs(self.num_levels, x.shape[1], x) / self.num_bands
        return _map(blocks, matrix).permute(0, 4, 1, 2, 3)


class HaarUnpatcher3D(nn.Module):
    """Inverse of :class:`HaarPatcher3D`: (B, C·p³, t, h, w) to (B, C, 1 + (t−1)·p, h·p, w·p)."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.num_levels = int(math.log2(patch_size))
        self.num_bands = patch_size**3
        self.register_buffer("wavelets", torch.tensor([1.0, 1.0]) / math.sqrt(2.0))
        self.register_buffer("_arange", torch.arange(2))

    def forward(self, x: Tensor) -> Tensor:
        matrix = haar_signs(self.num_levels, x.shape[1] // self.num_bands, x)
        blocks = _map(x.permute(0, 2, 3, 4, 1), matrix.transpose(0, 1))
        if torch.jit.is_scripting():
            return _scatter_blocks(blocks, self.patch_size)
        return _scatter_blocks_fused(blocks, self.patch_size)
