"""From raw folders to shards: sources, decoding, offline tokenizing, text embeddings, rendered sample clips.

The package itself can be called, ``nemo_cosmos.prepare(source, out, ...)``: that is ``dataset.prepare_dataset``.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemo_cosmos.prepare.encode import PrepareResult


class _CallableModule(ModuleType):
    """The Python interface calls the verb ``nc.prepare``, and Python sets every imported folder of a package as its
    attribute: the folder of that name has to be both."""

    def __call__(self, *args: Any, **options: Any) -> PrepareResult:
        """Tokenize a dataset offline, once; see ``nemo_cosmos.prepare.dataset.prepare_dataset`` for arguments."""
        from nemo_cosmos.prepare.dataset import prepare_dataset

        return prepare_dataset(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """What a notebook shows."""
        from nemo_cosmos.prepare.dataset import prepare_dataset

        return inspect.signature(prepare_dataset)


sys.modules[__name__].__class__ = _CallableModule
