"""Cut still images out of videos: ``videos/NAME.mp4`` -> ``images/NAME_00000000.jpg``, every n-th frame.

``images/.extracted.jsonl`` records which video each group of images is from. A call goes on from it: it makes again
what another video, stride or hand has changed, and never touches an image that it did not make.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nemo_cosmos.atomic import finished_file
from nemo_cosmos.data.embeddings import file_digest
from nemo_cosmos.data.listing import find_videos, unique_names
from nemo_cosmos.data.video import DamagedError
from nemo_cosmos.data.video.frames import resampled
from nemo_cosmos.data.workers import close_readers, reader_options
from nemo_cosmos.errors import InputError, explain_os_error, require_range, require_writable
from nemo_cosmos.lock import lock_folder
from nemo_cosmos.prepare.changes import file_times
from nemo_cosmos.prepare.decode import default_workers
from nemo_cosmos.typed import parse_json

IMAGES_FOLDER, RECORD = "images", ".extracted.jsonl"
MOST_STRIDE = 1_000_000
JPEG = {"quality": 95, "subsampling": 0}
"""Little is lost beside what the video lost; colour is kept at full resolution, of which videos have half already."""
_IMAGE = re.compile(r"(.+)_([0-9]{8})\.jpg", re.DOTALL)
_LONGEST = 255
"""Bytes of a file name."""


@dataclass(frozen=True)
class Source:
    """A video, and what its images depend on.

    Attributes:
        name: begins the names of its images; unique among the videos.
        video: absolute path.
        stride: frames from one image to the next.
        keep_damaged: whether frames after damage count.
    """

    name: str
    video: str
    stride: int
    keep_damaged: bool = False

    def image(self, number: int) -> str:
        """File name of its ``number``-th image."""
        return f"{self.name}_{number:08d}.jpg"


@dataclass(frozen=True)
class Extracted:
    """What became of a video.

    Attributes:
        source: the video.
        sha256: of the video's content; empty when it could not be read, or was not yet.
        times: what tells without reading it that the video is the same, see ``file_times``.
        sizes: bytes of each image.
        problem: why there are no images of it, or none from some frame on; empty when all is well.
    """

    source: Source
    sha256: str = ""
    times: dict[str, int] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    problem: str = ""

    def is_of(self, source: Source) -> bool:
        """Whether it was made from this very video, which may have been moved, with the same settings."""
        return replace(self.source, video=source.video) == source and self.is_same_video(Path(source.video))

    def is_same_video(self, video: Path) -> bool:
        """Whether a file has not changed since, or has the same content at another place."""
        times = file_times(video)
        if self.source.video == str(video) and times and times == self.times:
            return True
        try:
            return bool(self.sha256) and file_digest(video) == self.sha256
        except InputError:
            return False


@dataclass
class Summary:
    """What a call did: images made and found ready, and the videos with a problem."""

    made: int = 0
    ready: int = 0
    videos: int = 0
    problems: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Names of videos that are no longer there and whose images are."""


class _FullDiskError(Exception):
    """The images cannot be written; the other videos would not fare better."""


def extract_images(
    source: str | Path,
    out: str | Path,
    *,
    stride: int = 30,
    workers: int = 0,
    keep_damaged: bool = False,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Write frames 0, stride, 2 stride, ... of every video below ``source/videos`` to ``out/images`` as JPEG.

    Frames come as a player shows them: upright, square pixels, SDR. Of a damaged video, those before the damage.

    Args:
        source: folder with ``videos``.
        out: gets the folder ``images``; may be ``source``.
        stride: frames from one image to the next, counted as they are stored.
        workers: processes that decode, a video each; 0: this process.
        keep_damaged: also take what decodes after lost packets, and combed frames.
        on_video: called with (videos done, videos in all).

    Raises:
        InputError: no videos, not one image of them, an image of that name which is not from here, or no space.
    """
    require_range("--stride", stride, 1, MOST_STRIDE)
    videos, images = Path(source) / "videos", Path(out) / IMAGES_FOLDER
    if not videos.is_dir():
        raise InputError(f"{videos} is missing: expected a folder with the videos to extract from")
    require_writable(images)
    found = find_videos(videos)
    images.mkdir(parents=True, exist_ok=True)
    with lock_folder(images, ".extract.lock", use="is being written"):
        for file in images.glob(".*.tmp"):  # Of a call that was killed.
            file.unlink(missing_ok=True)
        summary = Summary(videos=len(found))
        results = _results(_sources(videos, found, stride, keep_damaged), images, workers, summary)
        for done, (result, fresh) in enumerate(results, start=1):
            count = len(result.sizes)
            summary.made, summary.ready = summary.made + count * fresh, summary.ready + count * (not fresh)
            if result.problem:
                summary.problems.append(f"{'cut short' if count else 'left out'}: {result.problem}")
            on_video(done, len(found))
    if not summary.made + summary.ready:
        raise InputError(f"none of {len(found)} videos gave an image: {summary.problems[0]}")
    return summary


def _sources(videos: Path, found: Sequence[Path], stride: int, keep_damaged: bool) -> list[Source]:
    names = unique_names([path.relative_to(videos) for path in found])
    return [Source(name, os.path.abspath(path), stride, keep_damaged) for name, path in zip(names, found, strict=True)]


def _results(
    sources: Sequence[Source], images: Path, workers: int, summary: Summary
) -> Iterator[tuple[Extracted, bool]]:
    """What became of each video, and whether that was now; what is recorded and still there is not made again."""
    recorded = _read_record(images / RECORD)
    present = _numbers_of(images)
    todo: list[tuple[Source, Sequence[int]]] = []
    for source in sources:
        before = recorded.get(source.name)
        if before and before.sizes and before.is_of(source) and _there(before, images):
            yield before, False
            continue
        if source.name in present:
            _refuse_strangers(source, before, images)
        todo.append((source, present.get(source.name, ())))
    summary.left = _left(recorded, sources, images, present)
    # Recorded before the first image, so that those of a call that is killed are known as its own.
    _append(images / RECORD, [Extracted(source) for source, _ in todo])
    with closing(_extracted(todo, images, workers)) as results:
        for result in results:
            _append(images / RECORD, [result])
            yield result, True


def _refuse_strangers(source: Source, before: Extracted | None, images: Path) -> None:
    """InputError where the images of that name are from another dataset, or from nowhere known."""
    if before is None:
        raise InputError(
            f"{images} holds {source.image(0)} or others of that name, which this tool did not make: name another "
            "--output_dataset_dir, or delete them"
        )
    if before.source.video != source.video and not before.is_same_video(Path(source.video)):
        raise InputError(
            f"{images} holds images of {before.source.video}, which have the names that those of {source.video} would "
            "get: name another --output_dataset_dir, or delete them"
        )


def _left(
    recorded: dict[str, Extracted], sources: Sequence[Source], images: Path, present: dict[str, list[int]]
) -> list[str]:
    """Names of recorded videos that are gone and have images; those of a video that has another name now are deleted.

    A video's name changes when another one comes that would have the same.
    """
    videos = {source.video for source in sources}
    left = sorted((recorded.keys() & present.keys()) - {source.name for source in sources})
    for name in left:
        if recorded[name].source.video in videos:
            for number in present[name]:
                (images / recorded[name].source.image(number)).unlink(missing_ok=True)
    return [name for name in left if recorded[name].source.video not in videos]


def _numbers_of(images: Path) -> dict[str, list[int]]:
    """Names of videos, as far as images are there that have the form of theirs, and the numbers of these."""
    numbers: dict[str, list[int]] = {}
    for path in images.iterdir():
        if found := _IMAGE.fullmatch(path.name):
            numbers.setdefault(found[1], []).append(int(found[2]))
    return numbers


def _there(before: Extracted, images: Path) -> bool:
    """Whether all images of a video are as they were written, by their sizes."""
    for number, size in enumerate(before.sizes):
        try:
            if (images / before.source.image(number)).stat().st_size != size:
                return False
        except OSError:
            return False
    return True


class _Videos(Dataset[Any]):
    """Reading an item extracts the images of a video; each comes with the numbers of those that are there."""

    def __init__(self, sources: Sequence[tuple[Source, Sequence[int]]], images: Path) -> None:
        self.sources, self.images = sources, images

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Extracted | str:
        try:
            return _extract(*self.sources[index], self.images)
        except _FullDiskError as error:
            return str(error)


def _extracted(
    sources: Sequence[tuple[Source, Sequence[int]]], images: Path, workers: int
) -> Generator[Extracted, None, None]:
    if not sources:
        return
    count = min(workers, len(sources)) if len(sources) > 1 else 0
    options: dict[str, Any] = {**reader_options(count), "in_order": False} if count else {}
    loader: DataLoader[Any] = DataLoader(_Videos(sources, images), batch_size=None, **options)
    try:
        for result in loader:
            if isinstance(result, str):
                raise InputError(result)
            yield result
    finally:
        close_readers(loader)


def _extract(source: Source, present: Sequence[int], images: Path) -> Extracted:
    """Write the images of a video, and delete those that it had beyond them."""
    video = Path(source.video)
    sizes: list[int] = []
    problem = sha256 = ""
    # Taken before the first frame: what changes while it is read counts as changed the next time.
    times = file_times(video)
    try:
        if len(os.fsencode(source.image(0))) > _LONGEST:
            raise InputError(f"{video}: its name is too long to be continued with a number; shorten it")
        sha256 = file_digest(video)
        for number, frame in enumerate(resampled(video, None, keep_damaged=source.keep_damaged)):
            if number % source.stride == 0:
                sizes.append(_write(images / source.image(len(sizes)), frame.image()))
    except DamagedError as error:
        problem = f"{error}; {len(sizes)} images from before" if sizes else str(error)
    except InputError as error:
        problem = str(error)
        sizes.clear()  # Frames that turn out to be combed were so from the first.
    for number in present:
        if number >= len(sizes):
            (images / source.image(number)).unlink(missing_ok=True)
    return Extracted(source, sha256, times, tuple(sizes), problem)


def _write(path: Path, pixels: Tensor) -> int:
    """Save (3, H, W) uint8 as JPEG; returns its bytes. The file appears when complete."""
    from PIL import Image

    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    try:
        with finished_file(path) as temporary:
            image.save(temporary, "JPEG", **JPEG)
            return temporary.stat().st_size
    except OSError as error:
        raise _FullDiskError(explain_os_error(error, path.parent) or f"{path} cannot be written: {error}") from error


def _append(record: Path, results: Sequence[Extracted]) -> None:
    if results:
        with record.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(result)) + "\n" for result in results))


def _read_record(record: Path) -> dict[str, Extracted]:
    """The last line of each video; one that an interrupted call left unfinished is passed over."""
    try:
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, Extracted] = {}
    for line in lines:
        try:
            values = parse_json(line)
            source = Source(**values["source"])
            found[source.name] = Extracted(**{**values, "source": source, "sizes": tuple(values["sizes"])})
        except (ValueError, TypeError, LookupError):
            continue
    return found


def extract_and_report(source: str | Path, out: str | Path, *, workers: int | None = None, **options: Any) -> None:
    """:func:`extract_images` with a progress bar; prints what was made and what was left out.

    Args:
        source: folder with ``videos``.
        out: gets the folder ``images``.
        workers: processes that decode; None: by the machine's cores.
        options: the others of :func:`extract_images`.
    """
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("extracting images", total=None)
        summary = extract_images(
            source,
            out,
            workers=default_workers() if workers is None else workers,
            on_video=lambda done, total: progress.update(task, completed=done, total=total),
            **options,
        )
    for problem in summary.problems:
        print(problem)
    if summary.left:
        print(f"images of videos that are no longer there stay: {', '.join(summary.left)}")
    print(
        f"{Path(out) / IMAGES_FOLDER}: {summary.made + summary.ready} images of {summary.videos} videos, "
        f"{summary.made} made now, {summary.ready} there already; {len(summary.problems)} videos with problems"
    )
