"""A gallery of shards as one HTML file: what was stored, and what the network will be given."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nemo_cosmos.atomic import write_bytes
from nemo_cosmos.data.manifest import Manifest
from nemo_cosmos.data.resize import resize
from nemo_cosmos.data.sample import TEXT_LENGTH, LatentSample, TokenizerIdentity, collate
from nemo_cosmos.data.shards import ShardDataset
from nemo_cosmos.data.video import write_mp4
from nemo_cosmos.errors import InputError
from nemo_cosmos.pixels import to_uint8
from nemo_cosmos.precision import shown_dtype

TEMPLATE = Path(__file__).with_name("preview_template.html")
SIGMA_DATA = 0.5
"""Factor between stored latents and the network's clean input (EDM, Predict1)."""
SIGMA_DATA_OF = {"Wan2.1-VAE": 1.0}
"""By tokenizer, where its networks have another (rectified flow, Predict2)."""
PATCH = 2
LONG_SIDE = 320
"""Pixels of the longer side of shown videos: a page of 24 clips stays at a few megabytes."""
STRIP_FRAMES = 6


class Decoder(Protocol):
    """What is needed of a ``VideoTokenizer``."""

    @property
    def identity(self) -> TokenizerIdentity: ...
    def decode(self, latent: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class CardView:
    """What one camera shows; pictures and video are data URIs. The title is empty for a single camera."""

    title: str
    caption: str
    video: str
    strip: str
    mask: str


@dataclass(frozen=True)
class Card:
    """One sample of the gallery; pictures are data URIs."""

    key: str
    caption: str
    source: str
    views: list[CardView]
    latents: str
    stored: list[tuple[str, str]]
    fed: list[tuple[str, str]]


def preview(
    path: str | Path,
    out: str | Path,
    tokenizer: Decoder,
    *,
    limit: int = 24,
    text_length: int = TEXT_LENGTH,
    on_sample: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the gallery of up to ``limit`` samples spread over the shards; gives their number.

    Raises:
        InputError: unreadable shards, or a tokenizer that did not make them.
    """
    from jinja2 import Environment, StrictUndefined

    if limit < 1:
        raise InputError(f"limit={limit}: expected at least 1")
    dataset = ShardDataset(path, verify="size")
    dataset.manifest.require_tokenizer(tokenizer.identity, path)
    count = min(limit, len(dataset))
    cards = []
    for number in range(count):
        cards.append(make_card(dataset[number * len(dataset) // count], tokenizer, text_length))
        on_sample(number + 1, count)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(name=Path(path).resolve().name, facts=_facts(dataset.manifest), cards=cards)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, page.encode("utf-8", "replace"))
    return count


def make_card(sample: LatentSample, tokenizer: Decoder, text_length: int = TEXT_LENGTH) -> Card:
    """Decode one sample and put in words what is stored and what the network is given."""
    batch = collate([(0, sample)], text_length)
    assert batch.padding_mask is not None and batch.fps is not None
    channels, latent_frames, height, width = sample.latent.shape
    tokens = latent_frames * (height // PATCH) * (width // PATCH)
    sigma_data = SIGMA_DATA_OF.get(tokenizer.identity.name, SIGMA_DATA)
    scaled = batch.latent * sigma_data
    padded = int(batch.padding_mask.sum())
    rows, columns, source_rows, source_columns = sample.image_size
    views = f"{sample.num_views} views of " if sample.view_ids is not None else ""
    stored = [
        ("video", f"{views}{sample.num_frames} frames at {sample.fps:g} fps, {sample.num_frames / sample.fps:.2f} s"),
        ("pixels", f"{rows} x {columns}, from {source_rows} x {source_columns}"),
        ("latent", f"{_shape(sample.latent)} {_dtype(sample.latent)}"),
        ("text", f"{sample.text.shape[-2]} tokens, {len(sample.caption)} characters, {_dtype(sample.text)}"),
    ]
    fed = [
        ("x0", f"{_shape(batch.latent)} = latent x {sigma_data:g}; mean {scaled.mean():.3f}, std {scaled.std():.3f}"),
        ("sequence", f"{tokens} tokens: {latent_frames} x {height // PATCH} x {width // PATCH}"),
        (
            "crossattn_emb",
            f"{_shape(batch.text)}; rows {sample.text.shape[-2]} to {text_length - 1} are zero; "
            f"std of the tokens {sample.text.float().std(unbiased=False):.3f}",
        ),
        ("fps", f"{batch.fps.item():g}"),
        ("padding_mask", f"{_shape(batch.padding_mask)}, {padded} of {batch.padding_mask.numel()} cells padded"),
    ]
    fed += [
        (name, f"{value[0].tolist()}")
        for name in ("view_ids", "frame_repeat")
        if (value := getattr(batch, name)) is not None
    ]
    told = [item[0] for item in fed]
    fed += [(name, _shape(value)) for name, value in batch.items() if value is not None and name not in told]
    latents = sample.latent[:3].float()
    shown = to_uint8(latents / 3)
    if channels < 3:
        shown = shown[:1].expand(3, -1, -1, -1)
    return Card(
        key=sample.key,
        caption=sample.caption,
        source=sample.source,
        views=_views(sample, tokenizer, batch.padding_mask[0]),
        latents=_picture_uri(_strip(shown, latent_frames), "PNG"),
        stored=stored,
        fed=fed,
    )


def _views(sample: LatentSample, tokenizer: Decoder, masks: Tensor) -> list[CardView]:
    """Decode each camera alone, as it was encoded."""
    views = []
    for number, latent in enumerate(sample.latent.float().chunk(sample.num_views, dim=1)):
        small = _shrink(to_uint8(tokenizer.decode(latent.unsqueeze(0))[0].cpu()))
        title = caption = ""
        if sample.view_ids is not None:
            name = sample.cameras[number] if len(sample.cameras) == sample.num_views else "view"
            title = f"{name}, id {int(sample.view_ids[number])}"
            caption = sample.captions[number] if len(sample.captions) == sample.num_views else ""
        mask = 255 - masks[number if len(masks) > 1 else 0] * 200
        views.append(
            CardView(
                title=title,
                caption=caption,
                video=_video_uri(small, sample.fps),
                strip=_picture_uri(_strip(small, STRIP_FRAMES), "JPEG"),
                mask=_picture_uri(mask.to(torch.uint8).expand(3, -1, -1), "PNG"),
            )
        )
    return views


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    size = sum(shard.bytes for shard in manifest.shards)
    return [
        ("samples", f"{manifest.samples} in {len(manifest.shards)} shards, {size / 1e6:.1f} MB"),
        ("skipped clips", str(len(manifest.skipped))),
        ("tokenizer", str(manifest.tokenizer)),
        ("text encoder", manifest.text_encoder),
        ("latents", ", ".join(f"{tuple(shape)}" for shape in manifest.latent_shapes)),
        ("settings", ", ".join(f"{name}={value}" for name, value in manifest.settings.items())),
    ]


def _shrink(frames: Tensor) -> Tensor:
    height, width = frames.shape[2:]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2))
    return torch.stack([resize(frame, size, "stretch") for frame in frames.unbind(1)], dim=1)


def _strip(frames: Tensor, count: int) -> Tensor:
    """(3, T, H, W) -> ``count`` frames from first to last, side by side."""
    total = frames.shape[1]
    count = min(count, total)
    picks = [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]
    return torch.cat([frames[:, i] for i in picks], dim=2)


def _picture_uri(picture: Tensor, kind: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _video_uri(frames: Tensor, fps: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_mp4(file, frames, fps, quality=20)
        return f"data:video/mp4;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _shape(value: Any) -> str:
    return str(tuple(value.shape))


def _dtype(value: Tensor) -> str:
    return shown_dtype(value.dtype)
