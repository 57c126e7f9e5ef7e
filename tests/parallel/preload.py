"""Imported once by the fork server, so that each test process starts at once."""

import torch

from nemo_cosmos.upstream.run import adapted_upstream

torch.set_num_threads(1)

with adapted_upstream():
    import nemo_cosmos.training.callbacks
    import nemo_cosmos.training.data
    import nemo_cosmos.training.start  # noqa: F401
