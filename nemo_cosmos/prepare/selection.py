"""Which clips of a dataset are prepared: a part of them, and of several cameras those whose cameras agree."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nemo_cosmos.choices import Split
from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.manifest import ShardIndex, completed_shards
from nemo_cosmos.data.views import uneven_clips
from nemo_cosmos.errors import InputError
from nemo_cosmos.prepare.decode import Failure
from nemo_cosmos.prepare.encode import current_rank, gather
from nemo_cosmos.prepare.sources import OpenedSource, refuse_clips


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


def usable_clips(
    opened: OpenedSource, source: Path, out: Path, split: Split, *, keep_damaged: bool, skip: bool
) -> tuple[list[Clip], list[Failure]]:
    """The clips of a source that are prepared, and those that are left out with the reason.

    The cameras of clips that are prepared already are not compared. All ranks of a job call this, each looks at its
    share, and all get the same.

    Raises:
        InputError: lists the clips that cannot be used, unless they are to be skipped, or none is left.
    """
    if opened.rig is None:
        if skip:
            raise InputError(f"--skip-incomplete: {source} is read as {opened.kind}, of one camera each; leave it out")
        return split_clips(opened.clips, split), []
    rank, done = current_rank(), {key for index in completed_shards(out) for key in _clips_of(index)}
    share = [clip for clip in opened.clips if clip.key not in done][rank.index :: rank.count]
    with bar(rank.index == 0, "comparing cameras", len(share)) as advance:
        own = uneven_clips(share, keep_damaged=keep_damaged, on_clip=advance)
    problems = [*opened.problems, *(problem for part in gather(rank, own) for problem in part)]
    spoilt = {problem.clip for problem in problems}
    left = [clip for clip in opened.clips if clip.name not in spoilt]
    if not (skip and left and "" not in spoilt):
        refuse_clips(source, problems, len(opened.clips) + len({problem.clip for problem in opened.problems} - {""}))
    return split_clips(left, split), [Failure(problem.clip, str(problem)) for problem in problems]


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
