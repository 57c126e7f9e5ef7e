"""Imported once by the fork server, so that each test process starts at once."""

import torch

from nemo_cosmos.parallel.cpu import enable_cpu

torch.set_num_threads(1)
enable_cpu()

import nemo_cosmos.training.callbacks  # noqa: E402
import nemo_cosmos.training.data  # noqa: E402
import nemo_cosmos.training.start  # noqa: E402, F401
