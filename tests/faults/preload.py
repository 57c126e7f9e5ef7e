"""Imported once by the fork server beside ``tests.parallel.preload``, so that every command begins at once."""

import nemo_cosmos.inference.job
import nemo_cosmos.inference.pipelines
import nemo_cosmos.prepare.encode
import nemo_cosmos.training.tokenizer.trainer  # noqa: F401
