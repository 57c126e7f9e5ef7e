"""The `nemo-cosmos` command: assembles the verbs of `nemo_cosmos.commands`.

Nothing heavy is imported here or at the top of a command's module, so that every `--help` answers at once.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from nemo_cosmos import __version__
from nemo_cosmos.commands import (
    bench,
    convert,
    demo,
    doctor,
    experiments,
    generate,
    plan,
    prepare,
    preview,
    sample_data,
    tokenizer,
    train,
    validate,
)
from nemo_cosmos.errors import InputError, explain_os_error, show_any_name
from nemo_cosmos.interrupts import ending_on_signals

app = typer.Typer(
    name="nemo-cosmos",
    help="Post-trains NVIDIA Cosmos world models and their video tokenizers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# In the order in which a user meets them.
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command(no_args_is_help=True)(sample_data.sample_data)
app.add_typer(tokenizer.app, name="tokenizer")
app.command(no_args_is_help=True)(prepare.prepare)
app.command(no_args_is_help=True)(validate.validate)
app.command(no_args_is_help=True)(preview.preview)
app.command(no_args_is_help=True)(plan.plan)
app.command(no_args_is_help=True)(train.train)
app.command(no_args_is_help=True)(generate.generate)
app.command(no_args_is_help=True)(convert.convert)
app.add_typer(experiments.app, name="experiments")
app.command()(bench.bench)

_LEFT_OUT = {
    name: f"the package {package} is not installed, and {use} needs it; run pip install {package}"
    for name, package, use in (
        ("av", "av", "reading and writing videos"),
        ("PIL", "pillow", "reading and writing images"),
        ("diffusers", "diffusers", "this"),
    )
}
"""By module: what to say on a machine that was set up for training from shards alone."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nemo-cosmos {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line; a mistake of the user ends with one line on stderr and exit status 2."""
    # Megatron-Core says on import that it would prefer packages which this project does without on purpose.
    warnings.filterwarnings("ignore", message=".*Transformer Engine and Apex are not installed")
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    sys.argv[1:] = _words()
    show_any_name()
    try:
        with ending_on_signals(whole_process=True):
            app()
    except InputError as error:
        if _first_to_say(str(error)):
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in _LEFT_OUT:
            raise
        if _first_to_say(error.name):
            print(f"error: {_LEFT_OUT[error.name]}", file=sys.stderr, flush=True)
        sys.exit(2)
    except OSError as error:
        message = explain_os_error(error)
        if message is None:
            raise
        if _first_to_say(message):
            print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)
    finally:
        _end_children()


def _end_children() -> None:
    """Processes that read ahead for a command that has failed or was interrupted; a finished one has none left."""
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        readers = [child for child in active_children() if child.daemon]
        if readers:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # The DataLoader's handler would complain.
        for reader in readers:
            reader.kill()


def _words() -> list[str]:
    """The command line; what begins with a dash and exists is a path, unless a verb has an option of that name."""
    words = sys.argv[1:]
    if not any(word.startswith("-") and os.path.lexists(word) for word in words):
        return words
    from nemo_cosmos.data.listing import literal_paths

    return literal_paths(words, _options_of(typer.main.get_command(app)))


def _options_of(command: Any) -> set[str]:
    """Names of all options of a command and of those below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help"}, *map(_options_of, getattr(command, "commands", {}).values()))


def _first_to_say(message: str) -> bool:
    """Whether no other process that the same launcher started on this machine has said this already."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return True
    launch = f"{os.getppid()} {os.environ.get('TORCHELASTIC_RESTART_COUNT')} {os.environ.get('MASTER_PORT')} {message}"
    mark = Path(tempfile.gettempdir()) / f"nemo-cosmos-error-{hashlib.sha256(launch.encode()).hexdigest()[:16]}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
