"""Settings of a recipe: NeMo-Run's `run.Config`, which refuses unknown names as the command line does.

Imported where NeMo-Run is installed alone.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import nemo_run as run

from nemo_cosmos.errors import InputError


class Fields(run.Config):
    """The fields of one section; each is a value, a list or dictionary, or another section.

    Setting a name that the section does not have raises InputError. Values are checked when the recipe runs.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        schema = self.__fn_or_cls__
        names = [item.name for item in dataclasses.fields(schema)]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise InputError(f"{schema.__name__} has no setting {name!r}: {hint}")
        super().__setattr__(name, value)
