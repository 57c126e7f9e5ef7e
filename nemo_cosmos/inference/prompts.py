"""Prompts: the upsampler that expands short ones, and the default negative prompt of the example scripts."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.errors import InputError

_INSTRUCTION = (
    "You write prompts for a model that generates videos of the physical world. Expand the user's text into one "
    "paragraph in English of at most {words} words that describes a single continuous shot: the subject and how it "
    "looks, the place and the light, what moves and how, and the camera. Keep every fact of the user's text and add "
    "only what fits it. Answer with the paragraph alone."
)
_WITH_IMAGE = " The image is the first moment of the video: describe what it shows and what plausibly happens next."
_NO_TEXT = "Describe the video that starts with this image."


def default_negative_prompt() -> str:
    """This project's own wording of common defects of generated video."""
    text = files("nemo_cosmos.inference").joinpath("negative_prompt.json").read_text(encoding="utf-8")
    return str(json.loads(text)["negative_prompt"])


def released_negative_prompt() -> str:
    """The negative prompt that the released Predict2 command lines use for videos by default, as diffusers ships it.

    Raises:
        InputError: the installed diffusers has it no longer.
    """
    try:
        from diffusers.pipelines.cosmos.pipeline_cosmos2_video2world import DEFAULT_NEGATIVE_PROMPT
    except ImportError as error:
        raise InputError(
            f"the released negative prompt is part of diffusers, which does not give it ({error}): install "
            "diffusers 0.34 or later, or give a negative prompt"
        ) from error
    return str(DEFAULT_NEGATIVE_PROMPT).strip()


class PromptUpsampler:
    """Any image-text-to-text model of transformers with a chat template, as a writer of long prompts."""

    def __init__(
        self, path_or_repo: str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        """Loads the model and its processor.

        Args:
            path_or_repo: folder or repository of a model for ``AutoModelForImageTextToText``.
            dtype: of the weights; None takes the one they are stored in.

        Raises:
            InputError: it is no such model, or has no chat template.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self.processor = AutoProcessor.from_pretrained(path_or_repo)
            self.model = AutoModelForImageTextToText.from_pretrained(path_or_repo, dtype=dtype or "auto")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"prompt upsampler {path_or_repo!r} does not load as a transformers image-text-to-text model: {error}"
            ) from error
        if getattr(self.processor, "chat_template", None) is None:
            raise InputError(
                f"prompt upsampler {path_or_repo!r} has no chat template: name an instruction-tuned model"
            )
        self.model.eval().requires_grad_(False)
        self.to(device)

    def to(self, device: torch.device | str) -> PromptUpsampler:
        self.model.to(device)
        self.device = torch.device(device)
        return self

    @torch.no_grad()
    def upsample(
        self, prompt: str, image: Tensor | None = None, *, max_words: int = 120, max_tokens: int = 512
    ) -> str:
        """The prompt, expanded. Decoding is greedy: the same input gives the same text.

        Args:
            prompt: the user's text, may be empty with an image.
            image: (3, H, W) uint8, the frame the video starts from.

        Raises:
            InputError: neither was given, or the model answered nothing.
        """
        if not prompt and image is None:
            raise InputError("the prompt upsampler needs a prompt or an input frame")
        instruction = _INSTRUCTION.format(words=max_words) + (_WITH_IMAGE if image is not None else "")
        content: list[dict[str, Any]] = []
        if image is not None:
            content.append({"type": "image", "image": _as_pil(image)})
        content.append({"type": "text", "text": f"{instruction}\n\n{prompt or _NO_TEXT}"})
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        answer = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        cleaned = clean_answer(answer)
        if not cleaned:
            raise InputError(f"the prompt upsampler answered nothing for {prompt!r}: use the prompt as it is")
        return cleaned


def clean_answer(answer: str) -> str:
    """One line without list markers, surrounding quotes and repeated blanks."""
    lines = [re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line) for line in answer.splitlines()]
    return re.sub(r"\s+", " ", " ".join(lines)).strip().strip("\"'“”").strip()


def _as_pil(image: Tensor) -> Any:
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    picture.thumbnail((1024, 1024))
    return picture
