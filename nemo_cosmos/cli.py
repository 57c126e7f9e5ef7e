"""The `nemo-cosmos` command: assembles the verbs of `nemo_cosmos.commands`.

Nothing heavy is imported here or at the top of a command's module, so that every `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nemo_cosmos.commands import (
    bench,
    camera,
    convert,
    demo,
    doctor,
    experiments,
    generate,
    launch,
    plan,
    prepare,
    preview,
    sample_data,
    tokenizer,
    train,
    validate,
)
from nemo_cosmos.ending import refuse, run_to_end
from nemo_cosmos.interrupts import ending_on_signals
from nemo_cosmos.version import __version__


class _Verbs(TyperGroup):
    """Mistakes in the options are one line like all others, and other exceptions come through as they are."""

    def main(self, args: Any = None, *rest: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        try:
            with self.make_context("nemo-cosmos", words) as context:
                self.invoke(context)
        except typer.Exit as ended:
            sys.exit(ended.exit_code)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            _refuse_usage(error)
        sys.exit(0)


def _refuse_usage(error: Any) -> None:
    """End with what typer found wrong with the words of the command line."""
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help())
        sys.exit(2)
    command = context.command_path if context else "nemo-cosmos"
    found = error.format_message().replace("Value error, ", "").rstrip(".")  # As typer prefixes refused choices.
    refuse(f"{found}; {command} --help shows what it takes")


app = typer.Typer(
    name="nemo-cosmos",
    cls=_Verbs,
    help="Post-trains NVIDIA Cosmos world models and their video tokenizers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# In the order in which a user meets them.
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command(no_args_is_help=True, cls=sample_data.ByKind)(sample_data.sample_data)
app.add_typer(tokenizer.app, name="tokenizer")
app.command(no_args_is_help=True)(prepare.prepare)
app.command(no_args_is_help=True)(validate.validate)
app.command(no_args_is_help=True)(preview.preview)
app.add_typer(camera.app, name="camera")
app.command(no_args_is_help=True)(plan.plan)
app.command(no_args_is_help=True)(train.train)
app.command(no_args_is_help=True)(launch.launch)
app.command(no_args_is_help=True)(generate.generate)
app.command(no_args_is_help=True)(convert.convert)
app.add_typer(experiments.app, name="experiments")
app.command()(bench.bench)


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
    run_to_end(_run)


def _run() -> None:
    sys.argv[1:] = _words()
    try:
        with ending_on_signals(whole_process=True):
            app()
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
    below = getattr(command, "commands", getattr(command, "kinds", {}))
    return own.union({"--help"}, *map(_options_of, below.values()))
