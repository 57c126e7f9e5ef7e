"""From prompts to embeddings: checked, upsampled, encoded, before anything else is done."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, WeightDefaults
from nemo_cosmos.inference.inputs import read_input
from nemo_cosmos.inference.models import Models
from nemo_cosmos.inference.requests import GenerationRequest
from nemo_cosmos.models.text import TextEncoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedText:
    """Embeddings of one request, true tokens only, on the CPU.

    Of several views, embeddings are (V, n, width) with zero rows after the tokens of each.
    ``text`` is None for a prompt that the guardrail refused. ``prompt`` is the final text, upsampled where that is on.
    """

    prompt: str
    text: Tensor | None
    negative_text: Tensor


@dataclass(frozen=True)
class TextPreparation:
    """What the prompts of a job go through.

    Attributes:
        models: of which text encoder, upsampler and guardrail are used.
        config: the user's settings.
        defaults: what the weights were trained with.
        word_limit: prompts of more words are not upsampled; None upsamples all.
    """

    models: Models
    config: GenerationConfig
    defaults: WeightDefaults
    word_limit: int | None = None

    def prepare(self, requests: list[GenerationRequest]) -> list[PreparedText]:
        """One result per request, in order.

        Raises:
            InputError: a request without prompt that nothing writes one for, or an encoder that does not fit.
        """
        prompts, refused = self._final_prompts(requests)
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            if not prompt and not request.has_prompt and index not in refused:
                raise InputError(f"{request.name}: no prompt; only with a prompt upsampler may it be left out")
        with self.models.text_encoder.use() as encoder:
            self._check_encoder(encoder)
            negative = self.negative()
            for name, prompt in [*zip((r.name for r in requests), prompts, strict=True), *self._negative()]:
                if (count := encoder.token_count(prompt)) > encoder.max_length:
                    logger.warning("%s: only the first %d of %d text tokens are used", name, encoder.max_length, count)
            # One prompt at a time: a batch would round differently for every set of neighbours.
            texts = [
                None if index in refused else encoder.encode_trimmed([prompt])[0].float().cpu()
                for index, prompt in enumerate(prompts)
            ]
        return [PreparedText(prompt, text, negative) for prompt, text in zip(prompts, texts, strict=True)]

    def negative(self) -> Tensor:
        """(n, width) embedding of the unconditional branch, no rows without a negative prompt."""
        if not self.config.negative_prompt:
            return torch.zeros(0, self.models.dit.text_width)
        with self.models.text_encoder.use() as encoder:
            self._check_encoder(encoder)
            return encoder.encode_trimmed([self.config.negative_prompt])[0].float().cpu()

    def _final_prompts(self, requests: list[GenerationRequest]) -> tuple[list[str], set[int]]:
        """Prompts, upsampled where that is on, and the places of those that the guardrail refused."""
        prompts = [request.prompt for request in requests]
        refused = {index for index, prompt in enumerate(prompts) if not self._allows(prompt)}
        if self.models.upsampler is None:
            return prompts, refused
        for index, request in enumerate(requests):
            limit = self.word_limit
            if index in refused or (limit is not None and len(request.prompt.split()) > limit):
                continue
            prompts[index] = self._upsample(request)
            logger.info("%s: prompt upsampled to: %s", request.name, prompts[index])
            if not self._allows(prompts[index]):
                refused.add(index)
        return prompts, refused

    def _check_encoder(self, encoder: TextEncoder) -> None:
        if encoder.width != self.models.dit.text_width:
            raise InputError(
                f"text encoder {encoder.name} gives embeddings of width {encoder.width}, the network takes "
                f"{self.models.dit.text_width}: name the text encoder it was trained with"
            )
        if self.defaults.text_encoder and encoder.name != self.defaults.text_encoder:
            logger.warning(
                "text encoder %s, but the weights were trained with embeddings of %s",
                encoder.name,
                self.defaults.text_encoder,
            )

    def _negative(self) -> list[tuple[str, str]]:
        return [("negative prompt", self.config.negative_prompt)] if self.config.negative_prompt else []

    def _allows(self, prompt: str) -> bool:
        if self.models.guardrail is None or not prompt:
            return True
        with self.models.guardrail.use() as guardrail:
            return guardrail.allows_prompt(prompt)

    def _upsample(self, request: GenerationRequest) -> str:
        assert self.models.upsampler is not None
        image = None
        if request.given is not None:
            size = (self.config.height or self.defaults.size[0], self.config.width or self.defaults.size[1])
            image = read_input(request.given, size, self.config, self.defaults, 1).frames[:, -1]
        with self.models.upsampler.use() as upsampler:
            return upsampler.upsample(request.prompt, image)
