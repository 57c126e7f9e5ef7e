"""View dropout: some training steps see a random part of the cameras of each sample.

How many views a step sees is drawn for the step, so that its samples have one shape on every rank; which ones, for
each sample. Both are keyed by the seed of the run and the number of the step or the position, so a resumed run and
one in another layout drop the same views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.data.network_inputs import RULES, SHARED, STORED
from nemo_cosmos.data.positions import LatentShape
from nemo_cosmos.data.sample import LatentSample
from nemo_cosmos.diffusion.noise import sample_generator


def select_views(sample: LatentSample, views: Sequence[int]) -> LatentSample:
    """The sample with these of its views alone, by their places in it, in the order given."""
    assert sample.view_ids is not None, "a sample of one view has none to choose from"
    kept, per_view = torch.tensor(views), sample.latent.shape[1] // sample.num_views
    frames = (kept[:, None] * per_view + torch.arange(per_view)).flatten()

    def cut(name: str) -> Tensor | None:
        value: Tensor | None = getattr(sample, name)
        for number, axis in enumerate(RULES[name].axes):
            if value is None or axis not in ("views", "frames", SHARED) or (axis == SHARED and len(value) == 1):
                continue
            value = value.index_select(number, frames if axis == "frames" else kept)
        return value

    def named(texts: list[str]) -> list[str]:
        return [texts[view] for view in views] if texts else []

    changed: dict[str, Any] = {name: cut(name) for name in STORED}
    return replace(
        sample,
        latent=sample.latent.index_select(1, frames),
        text=sample.text[kept],
        cameras=named(sample.cameras),
        captions=named(sample.captions),
        **changed,
    )


@dataclass(frozen=True)
class ViewDropout:
    """Which views a step sees.

    Attributes:
        probability: of a step that sees fewer than all views: 1 to V - 1 of them, each number alike.
        seed: of the run.
        global_batch: positions of a step.
    """

    probability: float
    seed: int
    global_batch: int

    def kept(self, step: int, num_views: int) -> int:
        """How many of its views each sample of a step keeps."""
        generator = sample_generator(self.seed, step, stream="view_dropout")
        chance, share = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if num_views < 2 or chance >= self.probability:
            return num_views
        return 1 + int(share * (num_views - 1))

    def shape(self, step: int, shape: LatentShape, num_views: int) -> LatentShape:
        """That of a latent of ``num_views`` views as the step sees it."""
        channels, frames, height, width = shape
        return channels, frames // num_views * self.kept(step, num_views), height, width

    def __call__(self, position: int, sample: LatentSample) -> LatentSample:
        """The sample at a position as its step sees it; views keep their order."""
        count = self.kept(position // self.global_batch, sample.num_views)
        if count == sample.num_views:
            return sample
        generator = sample_generator(self.seed, position, stream="dropped_views")
        chosen = torch.randperm(sample.num_views, generator=generator)[:count]
        return select_views(sample, sorted(chosen.tolist()))


@dataclass(frozen=True)
class DroppingViews:
    """``gather`` of samples with view dropout before it; a reading process can be given it."""

    dropout: ViewDropout
    gather: Callable[[Sequence[tuple[int, LatentSample]]], Any]

    def __call__(self, samples: Sequence[tuple[int, LatentSample]]) -> Any:
        return self.gather([(position, self.dropout(position, sample)) for position, sample in samples])
