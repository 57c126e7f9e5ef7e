"""What a tokenizer run writes down while it goes: its configuration, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_cosmos.run_folder import METRICS, append_metrics, finite_or_none, forget_later_steps, write_config
from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig
from nemo_cosmos.training.tokenizer.validation import write_animation


class RunRecords:
    """Opened by the first process alone; metrics.jsonl is cut back to the step that the run starts at.

    Args:
        step: where the run goes on.
        resuming: settings that differ from those of the last start are logged.
    """

    def __init__(self, config: TokenizerTrainConfig, step: int, *, resuming: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(config.output_dir)
        self.metrics = folder / METRICS
        write_config(folder, config, resuming=resuming)
        # A run that starts anew measures step 0 again, too.
        forget_later_steps(self.metrics, step or -1)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def append(self, values: dict[str, Any]) -> None:
        """One line of metrics, and the same numbers in TensorBoard."""
        append_metrics(self.metrics, values)
        for name, value in values.items():
            if name != "step" and finite_or_none(value) is not None:
                self.writer.add_scalar(name, value, values["step"])

    def add_animation(self, step: int, video: Tensor, reconstruction: Tensor) -> None:
        """Input and reconstruction, (3, T, H, W) in [−1, 1], side by side in TensorBoard."""
        write_animation(self.writer, "validation/input_reconstruction", step, video, reconstruction)

    def close(self) -> None:
        """Write out what is buffered."""
        self.writer.close()


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: allocated on the GPU, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
