"""Safety checks of prompts and videos through the ``cosmos_guardrail`` package, where it is installed."""

from __future__ import annotations

import importlib.util
import logging
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.errors import InputError

logger = logging.getLogger(__name__)
PACKAGE = "cosmos_guardrail"


class Guardrail(Protocol):
    """A check of text before generation and of frames after it."""

    def allows_prompt(self, prompt: str) -> bool: ...

    def filter_video(self, frames: Tensor) -> Tensor | None: ...

    def to(self, device: torch.device | str) -> Guardrail: ...


class CosmosGuardrail:
    """NVIDIA's text and video guardrails: keyword blocklist and Llama Guard for text; a content classifier for frames,
    which blocks a video, and a face detector, which blurs faces."""

    def __init__(self, device: torch.device | str) -> None:
        from cosmos_guardrail import CosmosSafetyChecker

        self.checker = CosmosSafetyChecker()
        self.to(device)

    def allows_prompt(self, prompt: str) -> bool:
        return bool(self.checker.check_text_safety(prompt))

    def filter_video(self, frames: Tensor) -> Tensor | None:
        """(3, T, H, W) uint8 -> the same with faces blurred, None when the content is not allowed."""
        array = np.ascontiguousarray(frames.permute(1, 2, 3, 0).cpu().numpy())
        checked = self.checker.check_video_safety(array)
        return None if checked is None else torch.from_numpy(np.asarray(checked)).permute(3, 0, 1, 2).contiguous()

    def to(self, device: torch.device | str) -> CosmosGuardrail:
        self.checker.to(device)
        return self


def guardrail_wanted(choice: bool | None) -> bool:
    """Whether the guardrails run: None runs them where the package is installed. The decision is logged.

    Raises:
        InputError: they were asked for and the package is missing.
    """
    installed = importlib.util.find_spec(PACKAGE) is not None
    if choice and not installed:
        raise InputError(f"guardrails were asked for, but {PACKAGE} is not installed: pip install {PACKAGE}")
    if choice is False:
        logger.warning("guardrails: off by request; prompts and videos are not checked")
    elif not installed:
        logger.warning("guardrails: %s is not installed; prompts and videos are not checked", PACKAGE)
    else:
        logger.info("guardrails: %s checks prompts before and videos after generation", PACKAGE)
    return installed and choice is not False
