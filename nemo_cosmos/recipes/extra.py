"""NeMo-Run is an extra: all but launching works without it."""

from __future__ import annotations

from importlib.util import find_spec

from nemo_cosmos.errors import InputError


def require_nemo_run(what: str) -> None:
    """InputError that names the extra where NeMo-Run is not installed.

    Args:
        what: begins the message: what needs it, in the plural.
    """
    if find_spec("nemo_run") is None:
        raise InputError(
            f"{what} need NeMo-Run, which is not installed: pip install 'nemo_cosmos[launch]' (in a checkout: "
            "pip install '.[launch]')"
        )
