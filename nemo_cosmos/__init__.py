"""Post-training of NVIDIA Cosmos world models on NeMo and Megatron-Core.

The Python interface, frames in and frames out (docs/python.md)::

    import nemo_cosmos as nc

    nc.prepare("clips", "shards", tokenizer="tokenizer", text_encoder="google-t5/t5-11b")
    run = nc.train("video2world_7b_example_hdvila", {"trainer.max_steps": 1000})
    pipe = nc.Pipeline.from_pretrained(run, tokenizer="tokenizer", text_encoder="google-t5/t5-11b")
    video = pipe("A robot arm lifts a red cup.", image="first_frame.jpg")

Each name is loaded at its first use: importing this package imports neither torch nor anything else that is heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nemo_cosmos.version import __version__ as __version__

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig
    from nemo_cosmos.errors import InputError
    from nemo_cosmos.inference.pretrained import Pipeline
    from nemo_cosmos.interface import load_config, train
    from nemo_cosmos.prepare.dataset import prepare_dataset as prepare

__all__ = ["InputError", "Pipeline", "TrainConfig", "load_config", "prepare", "train"]

_PLACES = {
    "InputError": "nemo_cosmos.errors",
    "Pipeline": "nemo_cosmos.inference.pretrained",
    "TrainConfig": "nemo_cosmos.config",
    "load_config": "nemo_cosmos.interface",
    "train": "nemo_cosmos.interface",
}


def __getattr__(name: str) -> Any:
    if name == "prepare":
        # A folder of this package, which can be called; importing it sets it here as well.
        return importlib.import_module("nemo_cosmos.prepare")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
