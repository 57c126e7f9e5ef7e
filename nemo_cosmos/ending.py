"""How every command ends: what a user got wrong in one line, anything else in one line too, with a report in a file.

Exit status: 2 for a mistake in the input or a place that cannot be read or written, 1 for an error of this program,
130 for Ctrl-C, 141 for a reader that went away; what a command chooses itself stays.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nemo_cosmos.errors import InputError, explain_os_error, show_any_name
from nemo_cosmos.secrets import hide_secrets_in_logs, redact
from nemo_cosmos.version import __version__

DEBUG = "NEMO_COSMOS_DEBUG"
"""Environment variable: any value but 0 prints tracebacks instead of writing them to files."""
MISTAKE, INTERNAL, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 141
LONGEST_LINE = 4000
_NEEDED = {
    name: f"the package {package} is not installed, and {use} needs it; run pip install {package}"
    for name, package, use in (
        ("av", "av", "reading and writing videos"),
        ("PIL", "pillow", "reading and writing images"),
        ("diffusers", "diffusers", "this"),
    )
}
"""By module: what to say on a machine that was set up for training from shards alone."""
_NO_NEWS = (
    # Megatron-Core would prefer packages which this project does without on purpose.
    ".*Transformer Engine and Apex are not installed",
    "full scope is deprecated",
    "The pynvml package is deprecated",
)
_folder: Path | None = None


class Flags(argparse.ArgumentParser):
    """A parser whose refusals are InputError, so that they end as all others do."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help shows what it takes")


def report_to(folder: str | Path) -> None:
    """Reports of unexpected errors go to this folder from now on, if it exists then; else to the temporary folder."""
    global _folder
    _folder = Path(folder)


def run_to_end(command: Callable[[], object]) -> None:
    """Run a command; whatever goes wrong ends the process with one line on standard error and a status."""
    show_any_name()
    hide_secrets_in_logs()
    for said_on_import in _NO_NEWS:
        warnings.filterwarnings("ignore", message=said_on_import)
    try:
        try:
            command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _stop_printing()
        sys.exit(BROKEN_PIPE)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on where it can", "interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = _mistake(error)
        if message is not None:
            refuse(message)
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            raise
        _internal(error)


def refuse(message: str) -> NoReturn:
    """End with one ``error:`` line and the status of a mistake."""
    _stop_printing_to_a_full_disk()
    _say(f"error: {one_line(message)}", message)
    sys.exit(MISTAKE)


def one_line(message: str) -> str:
    """A message on one line, without secrets and without what would steer a terminal."""
    joined = "; ".join(line.strip().rstrip(";") for line in message.splitlines() if line.strip())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in redact(joined))
    return shown if len(shown) <= LONGEST_LINE else f"{shown[:LONGEST_LINE]} …"


def _mistake(error: Exception) -> str | None:
    """What to say where the input or its place is at fault."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _NEEDED.get(error.name or "")
    return explain_os_error(error) if isinstance(error, OSError) else None


def _internal(error: Exception) -> NoReturn:
    """One line, and the traceback in a file."""
    kind = type(error).__name__
    file = _write_report(error)
    where = f"the traceback is in {file}" if file else f"set {DEBUG}=1 to see the traceback"
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        line = f"out of memory: {_first_line(error) or kind}; docs/oom.md says what takes less; {where}"
    else:
        line = f"internal: {kind}: {_first_line(error)}; {where}; please report it"
    # Other ranks fail after the first one because it is gone; their files tell, one line is enough.
    _stop_printing_to_a_full_disk()
    _say(f"error: {one_line(line)}", "internal")
    sys.exit(INTERNAL)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else ""


def _write_report(error: BaseException) -> Path | None:
    """The traceback in a new file: of the output folder, else of the temporary folder; None where neither takes it."""
    rank = os.environ.get("RANK", "0")
    text = redact(
        f"nemo_cosmos {__version__}, Python {platform.python_version()}, {platform.platform()}, rank {rank}\n"
        f"command: {' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}"
    )
    for folder in (_folder, Path(tempfile.gettempdir())):
        if folder is None or not folder.is_dir():
            continue
        stamp = time.strftime("%Y%m%d-%H%M%S")
        prefix = f"error-{stamp}-rank{rank}-" if folder == _folder else f"nemo-cosmos-error-{stamp}-rank{rank}-"
        with contextlib.suppress(OSError):
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=".txt", dir=folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return Path(name)
    return None


def _say(line: str, subject: str) -> None:
    """Print on standard error, unless a process of the same launcher on this machine has spoken of this."""
    if _first_to_say(subject):
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def _first_to_say(subject: str) -> bool:
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return True
    launch = f"{os.getppid()} {os.environ.get('TORCHELASTIC_RESTART_COUNT')} {os.environ.get('MASTER_PORT')} {subject}"
    digest = hashlib.sha256(launch.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    try:
        (Path(tempfile.gettempdir()) / f"nemo-cosmos-error-{digest}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def _stop_printing_to_a_full_disk() -> None:
    """What standard output cannot take would be tried again, and fail again, when Python ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _stop_printing()


def _stop_printing() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
