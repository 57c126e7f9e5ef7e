"""The verb `launch`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nemo_cosmos.config import TrainConfig
    from nemo_cosmos.launch.config import Launch
    from nemo_cosmos.parallel.layout import Layout
    from nemo_cosmos.training.tokenizer.config import TokenizerTrainConfig


def launch(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE",
            help="experiment=NAME, executor=local|docker|slurm, nodes=N gpus_per_node=N, executor.KEY=VALUE "
            "(conf/executor), and any setting of the run that differs.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dryrun", help="Print the complete script and stop; nothing is started.")
    ] = False,
) -> None:
    """Start a training on this machine, in a container, or as a job of a Slurm cluster.

    A layout or batch that does not fit the processes is refused before anything is started. What will run is said on
    standard error; `--dry-run` prints the script on standard output. Needs the extra `launch`.

    [bold]Example:[/bold] nemo-cosmos launch experiment=video2world_7b_example_hdvila executor=slurm nodes=4 gpus_per_node=8 data.global_batch=4 executor.account=me --dry-run
    """  # noqa: E501
    from nemo_cosmos.compose import load_config
    from nemo_cosmos.launch.job import Job, refuse_replaced
    from nemo_cosmos.launch.places import check_places
    from nemo_cosmos.launch.read import read_launch
    from nemo_cosmos.recipes.extra import require_nemo_run
    from nemo_cosmos.recipes.processes import check_processes
    from nemo_cosmos.recipes.roots import ROOTS, root_of

    require_nemo_run("launches")
    how, settings = read_launch(arguments)
    chosen = [word.partition("=")[2] for word in settings if word.startswith("experiment=")]
    root = root_of(chosen[-1]) if chosen else "train"
    config: TrainConfig | TokenizerTrainConfig = load_config(ROOTS[root], settings, root=root)
    _refuse_dead_ends(how, config)
    layout = check_processes(config, how.nodes, how.gpus_per_node)
    words = (*(["train"] if root == "train" else ["tokenizer", "train"]), *settings)
    refuse_replaced(words, how)
    warnings = check_places(how, config)
    job = Job(config.experiment, words, how)
    for line in [*_summary(how, config, layout), *(f"warning    {warning}" for warning in warnings)]:
        print(line, file=sys.stderr)
    if dry_run:
        print(job.lines())
        return
    number = job.start()
    print(f"submitted  job {number}; squeue --job {number} shows its state, scancel {number} ends it after a save")


def _refuse_dead_ends(how: Launch, config: TrainConfig | TokenizerTrainConfig) -> None:
    """InputError for what would fail as soon as it runs, or when it is queued again."""
    from nemo_cosmos.errors import InputError
    from nemo_cosmos.launch.config import LocalLaunch, SlurmLaunch

    if isinstance(how, SlurmLaunch) and config.resume is False and (how.executor.requeue or how.executor.retries):
        raise InputError(
            "resume=false: a job that is queued again would stop at its own checkpoint; leave it true, or set "
            "executor.requeue=false and executor.retries=0"
        )
    if isinstance(how, LocalLaunch):
        import torch

        found = torch.cuda.device_count()
        if torch.cuda.is_available() and how.gpus_per_node > found:
            raise InputError(f"gpus_per_node={how.gpus_per_node}: this machine has {found}")


def _summary(how: Launch, config: TrainConfig | TokenizerTrainConfig, layout: Layout | None) -> list[str]:
    """What is about to be started, a line each."""
    from nemo_cosmos.launch.config import EXECUTORS

    executor = next(name for name, kind in EXECUTORS.items() if isinstance(how, kind))
    processes = f"{how.nodes} × {how.gpus_per_node} GPUs"
    lines = [
        f"experiment {config.experiment}",
        f"executor   {executor}, {processes}{f': {layout}' if layout else ''}",
        f"run folder {config.output_dir}",
    ]
    return [*lines, *(_memory(config, layout) if layout is not None else [])]  # type: ignore[arg-type]


def _memory(config: TrainConfig, layout: Layout) -> list[str]:
    """What `nemo-cosmos plan` predicts for this layout."""
    from dataclasses import replace

    from nemo_cosmos.commands.plan import latent_of, workload_of
    from nemo_cosmos.planning.memory import predict_memory

    latent, views, origin = latent_of("", "", config)
    size, work = workload_of(config, latent, views)
    steps = config.data.global_batch // (config.data.micro_batch * layout.data)
    memory = predict_memory(size, layout, config.parallel, replace(work, num_micro_batches=steps))
    shape = "×".join(map(str, latent))
    origin = origin.partition(";")[0]
    return [f"memory     {memory.total / 2**30:.1f} GiB + 3 on the fullest GPU, for latents of {shape} ({origin})"]
