"""RAFT-large optical flow (Teed & Deng 2020, arXiv:2003.12039).

Modules carry the names that give the state dict the keys and shapes of torchvision's ``raft_large``, so that its
published weights load as they are. Differentiable with respect to both images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemo_cosmos.errors import InputError
from nemo_cosmos.training.tokenizer.perceptual import read_tensors

WEIGHTS_URL = "https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth"
STRIDE = 8
"""Pixels between two positions of the feature maps, in which the flow is refined before it is upsampled."""
NUM_LEVELS = 4
RADIUS = 4
"""Correlations are looked up in windows of 2·RADIUS + 1 positions on each of NUM_LEVELS levels."""
MIN_SIZE = STRIDE * 2 ** (NUM_LEVELS - 1)
"""Smallest height and width, pixels: below it the coarsest level has no position left."""
HIDDEN = 128
CONTEXT = 128

Norm = Callable[[int], nn.Module]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, norm: Norm | None = None) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)]
    if norm is not None:
        layers.append(norm(outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.convnormrelu1 = _conv(inputs, outputs, 3, stride, norm)
        self.convnormrelu2 = _conv(outputs, outputs, 3, 1, norm)
        self.downsample = nn.Sequential()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.downsample(x) + self.convnormrelu2(self.convnormrelu1(x)))


class Encoder(nn.Module):
    """(N, 3, H, W) images to (N, 256, H/8, W/8) features."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.convnormrelu = _conv(3, 64, 7, 2, norm)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1, norm), ResidualBlock(64, 64, 1, norm))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2, norm), ResidualBlock(96, 96, 1, norm))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, 2, norm), ResidualBlock(128, 128, 1, norm))
        self.conv = nn.Conv2d(128, HIDDEN + CONTEXT, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.layer3(self.layer2(self.layer1(self.convnormrelu(x)))))


class CorrelationPyramid:
    """Scaled dot products of all pairs of positions of two (N, C, h, w) feature maps, in fp32.

    Level k averages the second map's positions over 2^k × 2^k.
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        batch, channels, height, width = first.shape
        with torch.autocast(first.device.type, enabled=False):
            volume = first.float().flatten(2).transpose(1, 2) @ second.float().flatten(2) / channels**0.5
        self.levels = [volume.view(batch * height * width, 1, height, width)]
        while len(self.levels) < NUM_LEVELS:
            self.levels.append(F.avg_pool2d(self.levels[-1], 2))
        offset = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32, device=first.device)
        # The x offset varies slowest: the published weights expect the window's channels in this order.
        self.window = torch.stack(torch.meshgrid(offset, offset, indexing="ij"), dim=2)

    def lookup(self, position: Tensor) -> Tensor:
        """(N, 4·81, h, w) correlations around ``position`` (N, 2, h, w: x, y in the second map), zero outside it."""
        batch, _, height, width = position.shape
        centre = position.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found = []
        for index, level in enumerate(self.levels):
            # With align_corners=False, −1 and 1 are half a position outside: defined for a side of one position too.
            size = position.new_tensor([level.shape[3], level.shape[2]])
            grid = (2.0 * (centre / 2**index + self.window) + 1.0) / size - 1.0
            values = F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            found.append(values.view(batch, height, width, -1))
        return torch.cat(found, dim=3).permute(0, 3, 1, 2)


class MotionEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convcorr1 = _conv(NUM_LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convcorr2 = _conv(256, 192, 3)
        self.convflow1 = _conv(2, 128, 7)
        self.convflow2 = _conv(128, 64, 3)
        self.conv = _conv(192 + 64, 128 - 2, 3)

    def forward(self, correlation: Tensor, flow: Tensor) -> Tensor:
        motion = torch.cat([self.convcorr2(self.convcorr1(correlation)), self.convflow2(self.convflow1(flow))], dim=1)
        return torch.cat([self.conv(motion), flow], dim=1)


class ConvGru(nn.Module):
    def __init__(self, inputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz = nn.Conv2d(HIDDEN + inputs, HIDDEN, kernel, padding=padding)
        self.convr = nn.Conv2d(HIDDEN + inputs, HIDDEN, kernel, padding=padding)
        self.convq = nn.Conv2d(HIDDEN + inputs, HIDDEN, kernel, padding=padding)

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([hidden, x], dim=1)
        update, reset = torch.sigmoid(self.convz(both)), torch.sigmoid(self.convr(both))
        candidate = torch.tanh(self.convq(torch.cat([reset * hidden, x], dim=1)))
        return (1.0 - update) * hidden + update * candidate


class RecurrentBlock(nn.Module):
    """A 5 × 5 GRU separated into a row and a column one."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convgru1 = ConvGru(inputs, (1, 5))
        self.convgru2 = ConvGru(inputs, (5, 1))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        return self.convgru2(self.convgru1(hidden, x), x)


class FlowHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(hidden)))


class UpdateBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.motion_encoder = MotionEncoder()
        self.recurrent_block = RecurrentBlock(CONTEXT + 128)
        self.flow_head = FlowHead()

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The new hidden state and the change of the flow."""
        hidden = self.recurrent_block(hidden, torch.cat([context, self.motion_encoder(correlation, flow)], dim=1))
        return hidden, self.flow_head(hidden)


class MaskPredictor(nn.Module):
    """Logits (N, 9·64, h, w) of the upsampling weights; the factor balances the gradients, as in the publication."""

    def __init__(self) -> None:
        super().__init__()
        self.convrelu = _conv(HIDDEN, 256, 3)
        self.conv = nn.Conv2d(256, 9 * STRIDE**2, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return 0.25 * self.conv(self.convrelu(hidden))


def convex_upsample(flow: Tensor, logits: Tensor) -> Tensor:
    """(N, 2, h, w) flow to (N, 2, 8h, 8w), in pixels there: each a convex combination of its 3 × 3 neighbourhood."""
    batch, _, height, width = flow.shape
    weights = logits.float().view(batch, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
    neighbours = F.unfold(STRIDE * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    fine = (weights * neighbours).sum(dim=2)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, STRIDE * height, STRIDE * width)


class RaftLarge(nn.Module):
    """RAFT-large: a flow that starts at zero and is refined by a recurrent network.

    Parameters may be fp32 or bf16, with or without autocast; correlations and flow are fp32 always.

    Args:
        iterations: refinements.
    """

    def __init__(self, iterations: int = 12) -> None:
        super().__init__()
        self.iterations = iterations
        self.feature_encoder = Encoder(nn.InstanceNorm2d)
        self.context_encoder = Encoder(nn.BatchNorm2d)
        self.update_block = UpdateBlock()
        self.mask_predictor = MaskPredictor()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The fp32 flow (N, 2, H, W) from first to second (N, 3, H, W), x and y in pixels.

        Args:
            first, second: images in [−1, 1]; a size that 8 does not divide is filled up by repeating the border.

        Raises:
            InputError: the images have fewer than 64 pixels a side.
        """
        height, width = first.shape[2:]
        check_size(height, width)
        down, right = -height % STRIDE, -width % STRIDE
        top, left = down // 2, right // 2
        padding = (left, right - left, top, down - top)
        dtype = self.feature_encoder.conv.weight.dtype
        first, second = (F.pad(image, padding, mode="replicate").to(dtype) for image in (first, second))

        pyramid = CorrelationPyramid(*self.feature_encoder(torch.cat([first, second])).chunk(2))
        hidden, context = self.context_encoder(first).split([HIDDEN, CONTEXT], dim=1)
        hidden, context = torch.tanh(hidden), F.relu(context)
        ys, xs = (torch.arange(n, dtype=torch.float32, device=first.device) for n in hidden.shape[2:])
        origin = torch.stack(torch.meshgrid(xs, ys, indexing="xy"))
        flow = origin.new_zeros(first.shape[0], *origin.shape)
        for _ in range(self.iterations):
            # Each refinement takes the flow so far as given; gradients reach earlier ones through the hidden state.
            flow = flow.detach()
            correlation = pyramid.lookup(origin + flow)
            hidden, change = self.update_block(hidden, context, correlation.to(dtype), flow.to(dtype))
            flow = flow + change.float()
        full = convex_upsample(flow, self.mask_predictor(hidden))
        return full[:, :, top : top + height, left : left + width]


def check_size(height: int, width: int) -> None:
    """InputError when frames are too small for the correlation pyramid."""
    if min(height, width) < MIN_SIZE:
        raise InputError(
            f"loss.flow.estimator=raft takes frames of at least {MIN_SIZE} x {MIN_SIZE} pixels, not {height} x "
            f"{width}: make loss.flow.scale smaller or data.crop larger"
        )


def load_raft(weights: str = "hub", iterations: int = 12) -> RaftLarge:
    """RAFT-large with given weights, fp32, in evaluation mode and frozen.

    Args:
        weights: "hub" (torchvision's `raft_large_C_T_SKHT_V2`, kept in torch's hub folder), or a .pth or .safetensors
            file with the same keys.

    Raises:
        InputError: the file is missing or not RAFT-large's, or the published one cannot be fetched.
    """
    path = _download() if weights == "hub" else Path(weights)
    state = read_tensors(path)
    with torch.device("meta"):
        network = RaftLarge(iterations)
    expected = network.state_dict()
    wrong = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [key for key, own in expected.items() if key in state and state[key].shape != own.shape],
    }
    if any(wrong.values()):
        found = "; ".join(f"{len(keys)} {what}, the first is {keys[0]}" for what, keys in wrong.items() if keys)
        raise InputError(f"{path}: not the weights of RAFT-large ({found}); expected torchvision's raft_large .pth")
    network.load_state_dict({key: state[key].to(own.dtype) for key, own in expected.items()}, assign=True)
    return network.requires_grad_(False).eval()


def _download() -> Path:
    name = Path(urlparse(WEIGHTS_URL).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The published name ends with the first digits of the content's SHA-256.
            torch.hub.download_url_to_file(WEIGHTS_URL, str(path), hash_prefix=path.stem[-8:], progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the RAFT weights of {WEIGHTS_URL} cannot be fetched ({type(error).__name__}: {error}); "
                f"put the file at {path} or give a local one with loss.flow.weights=FILE"
            ) from error
    return path
