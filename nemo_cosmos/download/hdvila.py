"""Example data of the Cosmos guides: download HD-VILA videos and cut the described clips out of them.

``hdvila-100M.jsonl`` has a line per clip: ``url``, ``video_id``, ``clip_id``, ``caption``, ``span_start``,
``span_end``. Clips are paired with videos by ``video_id``; both steps keep what is there and can be repeated.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_cosmos.atomic import finished_file, write_bytes, write_json
from nemo_cosmos.data.listing import numbered_lines, parse_paths, require_path
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.data.shards import disk_error
from nemo_cosmos.data.video import cut
from nemo_cosmos.ending import Flags
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.typed import parse_json

LIST_NAME = "hdvila-100M.jsonl"
LIST_REPOSITORY = "TempoFunk/hdvila-100M"
"""The data set of the Hugging Face hub that the Cosmos guide takes the list from."""
LONGEST_NAME = 200
"""Bytes of a name, to which suffixes and a temporary prefix are added."""
FIELDS = ("url", "video_id", "clip_id", "caption", "span_start", "span_end")
"""What a line must have."""
Downloader = Callable[[str, Path], None]
"""Writes the video at a URL to a path, or raises ``DownloadError``."""


class DownloadError(Exception):
    """A video could not be had: it was removed, is private, or the connection failed."""


@dataclass(frozen=True)
class ClipRecord:
    """One line of the list; ``values`` is the whole of it, other fields included."""

    url: str
    video_id: str
    clip_id: str
    caption: str
    span_start: str
    span_end: str
    values: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def stem(self) -> str:
        """File name without suffix, the same in ``videos``, ``metas`` and ``t5_xxl``."""
        return self.clip_id.removesuffix(".mp4")

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str) -> ClipRecord:
        """Take the fields out of a JSON object; InputError names a missing one and names that leave the folder."""
        for name in FIELDS:
            if not isinstance(values.get(name), str):
                raise InputError(f"{where}: {name!r} is {values.get(name)!r}, expected a string")
        record = cls(**{name: values[name] for name in FIELDS}, values=values)
        for name in FIELDS:
            require_path(values[name], f"{where}: {name}")
        for name in (record.video_id, record.clip_id):
            if not name or Path(name).name != name or len(name.encode()) > LONGEST_NAME:
                raise InputError(f"{where}: {name[:100]!r} is no plain file name of at most {LONGEST_NAME} bytes")
        return record


@dataclass
class Outcome:
    """What became of one item: ``done``, ``present`` (was there before) or ``failed`` with a reason."""

    name: str
    state: str
    reason: str = ""


def read_list(dataset: str | Path, num_videos: int) -> list[ClipRecord]:
    """The first clip of each of the first ``num_videos`` different URLs; see ``iterate_list``."""
    if num_videos < 1:
        raise InputError(f"N_videos={num_videos}: expected at least 1")
    return list(itertools.islice(iterate_list(dataset), num_videos))


def iterate_list(dataset: str | Path) -> Iterator[ClipRecord]:
    """The first clip of each URL, in the order of the list, which is read as far as it is asked for.

    Raises:
        InputError: the list is missing, has a malformed line, or names no video.
    """
    file = Path(dataset) / LIST_NAME
    if not file.is_file():
        raise InputError(
            f"{file} is missing: the guide's list is {LIST_NAME} of the data set {LIST_REPOSITORY}; fetch it with "
            f"`hf download {LIST_REPOSITORY} {LIST_NAME} --repo-type dataset --local-dir {dataset}`"
        )
    seen: set[str] = set()
    for number, line in numbered_lines(file):
        where = f"{file} line {number}"
        record = ClipRecord.from_json(_object(line, where), where)
        if record.url not in seen:
            seen.add(record.url)
            yield record
    if not seen:
        raise InputError(f"{file} names no videos")


def download(dataset: str | Path, num_videos: int, downloader: Downloader) -> Iterator[Outcome]:
    """Fetch videos to ``videos_orig/VIDEO_ID.mp4`` and write ``metas/CLIP.{txt,json}``; yields what became of each.

    Goes on until there are ``num_videos`` or the list ends. A video that cannot be had is skipped, and leaves no
    caption behind.
    """
    dataset = Path(dataset)
    if num_videos < 1:
        raise InputError(f"N_videos={num_videos}: expected at least 1")
    had = 0
    for record in iterate_list(dataset):
        for name in ("videos_orig", "metas"):
            (dataset / name).mkdir(exist_ok=True)
        target = dataset / "videos_orig" / f"{record.video_id}.mp4"
        present = target.is_file()
        if not present:
            try:
                _fetch(record.url, target, downloader)
            except DownloadError as error:
                yield Outcome(record.video_id, "failed", f"{record.url}: {error}")
                continue
        write_bytes(dataset / "metas" / f"{record.stem}.txt", record.caption.encode())
        write_json(dataset / "metas" / f"{record.stem}.json", record.values)
        had += 1
        yield Outcome(record.video_id, "present" if present else "done")
        if had == num_videos:
            return


def clip(dataset: str | Path) -> Iterator[Outcome]:
    """Cut ``videos/CLIP.mp4`` out of ``videos_orig`` for every ``metas/CLIP.json``; yields what became of each.

    Raises:
        InputError: no ``metas/*.json``.
    """
    dataset = Path(dataset)
    metas = sorted((dataset / "metas").glob("*.json"))
    if not metas:
        raise InputError(f"{dataset / 'metas'} holds no *.json: run with --do_download first")
    (dataset / "videos").mkdir(exist_ok=True)
    for meta in metas:
        record = ClipRecord.from_json(read_json(meta), str(meta))
        target = dataset / "videos" / f"{record.stem}.mp4"
        if target.is_file():
            yield Outcome(record.stem, "present")
            continue
        try:
            start, end = parse_time(record.span_start), parse_time(record.span_end)
            cut(dataset / "videos_orig" / f"{record.video_id}.mp4", target, start, end)
            yield Outcome(record.stem, "done")
        except InputError as error:
            yield Outcome(record.stem, "failed", str(error))


def parse_time(text: str) -> float:
    """``h:m:s.fraction`` -> seconds; InputError when it has another form."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = int(parts[0]), int(parts[1]), float(parts[2])
        if len(parts) == 3 and hours >= 0 and 0 <= minutes < 60 and 0 <= seconds < 60:
            return hours * 3600 + minutes * 60 + seconds
    except (ValueError, IndexError):
        pass
    raise InputError(f"time {text!r}: expected hours:minutes:seconds, for example 0:01:05.250")


def main(description: str, arguments: Sequence[str] | None = None, downloader: Downloader | None = None) -> None:
    """Command line of ``tools/download_{diffusion,tokenizer}_example_data.py``.

    Args:
        description: help text.
        arguments: command line; None: that of the process.
        downloader: fetches a video; None: YouTube.

    Raises:
        InputError: nothing to do, no list, or not one clip to show for it.
    """
    parser = Flags(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_path", default="datasets/hdvila", help=f"folder with {LIST_NAME}")
    parser.add_argument(
        "--N_videos", type=int, default=128, help="videos to have, one clip each; goes on until so many succeed"
    )
    parser.add_argument("--do_download", action="store_true", help="download to videos_orig/ and write metas/")
    parser.add_argument("--do_clip", action="store_true", help="cut videos/ out of videos_orig/")
    options = parse_paths(parser, sys.argv[1:] if arguments is None else arguments)
    require_range("--N_videos", options.N_videos, 1, 100_000_000)
    if not options.do_download and not options.do_clip:
        raise InputError("nothing to do: give --do_download, --do_clip or both")
    if options.do_download:
        fetch = youtube_downloader() if downloader is None else downloader
        _report("downloaded", "videos", download(options.dataset_path, options.N_videos, fetch))
    if options.do_clip:
        _report("cut", "clips", clip(options.dataset_path))


def _report(verb: str, things: str, outcomes: Iterable[Outcome]) -> None:
    """Show progress and failures, then counts; InputError when every item failed."""
    from rich.progress import track

    counts: Counter[str] = Counter()
    for outcome in track(outcomes, verb):
        counts[outcome.state] += 1
        if outcome.state == "failed":
            print(f"skipped {outcome.name}: {outcome.reason}")
    print(f"{verb} {counts['done']} {things}, {counts['present']} were there already, {counts['failed']} skipped")
    if counts["failed"] == counts.total():
        raise InputError(f"none of {counts.total()} {things} could be had; the reasons are above")


def youtube_downloader() -> Downloader:
    """Downloader through pytubefix, at the highest resolution that has picture and sound in one file.

    Raises:
        InputError: pytubefix is not installed.
    """
    try:
        from pytubefix import YouTube
        from pytubefix.exceptions import PytubeFixError
    except ImportError as error:
        raise InputError("pytubefix is not installed: pip install pytubefix") from error
    from http.client import HTTPException

    def fetch(url: str, path: Path) -> None:
        try:
            streams = YouTube(url).streams.filter(progressive=True, file_extension="mp4")
            best = streams.order_by("resolution").desc().first()
            if best is None:
                raise DownloadError("no mp4 with picture and sound in one file")
            best.download(output_path=str(path.parent), filename=path.name, skip_existing=False)
        # KeyError: what pytubefix raises when the site's answer has lost a field.
        except (PytubeFixError, HTTPException, OSError, KeyError) as error:
            if isinstance(error, OSError) and isinstance(disk_error(error, path.parent), InputError):
                raise disk_error(error, path.parent) from error
            raise DownloadError(f"{type(error).__name__}: {error}") from error

    return fetch


def _fetch(url: str, target: Path, downloader: Downloader) -> None:
    with finished_file(target, suffix=".mp4") as temporary:
        downloader(url, temporary)
        if temporary.stat().st_size == 0:
            raise DownloadError("the downloaded file is empty")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a JSON object")
    return values
