"""Which clips of a dataset are prepared: a part of them, and of several cameras those whose cameras agree."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nemo_cosmos.choices import Split
from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.manifest import ShardIndex, completed_shards
from nemo_cosmos.data.views import refuse_problems, uneven_clips
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.decode import Failure
from nemo_cosmos.prepare.encode import current_rank, gather
from nemo_cosmos.prepare.sources import OpenedSource


def split_clips(clips: list[Clip], split: Split) -> list[Clip]:
    """The part of a dataset that is asked for: by name, the last tenth and one more are held out for validation.

    Raises:
        InputError: nothing is left.
    """
    if split == "all":
        return clips
    ordered = sorted(clips, key=lambda clip: clip.name)
    held_out = {clip.key for clip in ordered[len(ordered) - len(ordered) // 10 - 1 :]}
    chosen = [clip for clip in clips if (clip.key in held_out) == (split == "val")]
    if not chosen:
        raise InputError(f"split={split}: of {len(clips)} clips {len(held_out)} are held out, which leaves none")
    return chosen


def even_clips(
    clips: list[Clip], opened: OpenedSource, source: Path, out: Path, keep_damaged: bool, skip: bool
) -> tuple[list[Clip], list[Failure]]:
    """The clips whose cameras agree, and the others with the reason; prepared ones are not looked at.

    All ranks of a job call this, each looks at its share, and all get the same.

    Raises:
        InputError: lists those that do not, unless they are skipped.
    """
    if opened.rig is None:
        return clips, []
    done = {key for index in completed_shards(out) for key in _clips_of(index)}
    rank = current_rank()
    share = [clip for clip in clips if clip.key not in done][rank.index :: rank.count]
    with bar(rank.index == 0, "comparing cameras", len(share)) as advance:
        own = uneven_clips(share, keep_damaged=keep_damaged, on_clip=advance)
    problems = [problem for part in gather(rank, own) for problem in part]
    if not skip:
        what = f"{source}: the cameras of {len(problems)} of {len(clips)} clips differ"
        refuse_problems(problems, what, "cut or remove them, or leave them out with --skip-incomplete")
    spoilt = {problem.clip for problem in problems}
    failures = [Failure(problem.clip, str(problem)) for problem in [*opened.problems, *problems]]
    left = [clip for clip in clips if clip.name not in spoilt]
    if not left:
        refuse_problems(problems, f"{source}: no clip is left", "cut or replace them")
    return left, failures


def _clips_of(index: ShardIndex) -> list[str]:
    """Keys of the clips that a shard has samples of."""
    return [origin["clip"] for origin in index.origins if origin is not None]


@contextlib.contextmanager
def bar(shown: bool, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar that is gone afterwards; gives the function that moves it by one."""
    from rich.progress import MofNCompleteColumn
    from rich.progress import Progress as Bar

    with Bar(*Bar.get_default_columns(), MofNCompleteColumn(), transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
