"""Find the clips of a raw dataset and their captions.

Three layouts are read:

* the Cosmos folder: ``videos/NAME.mp4``, ``metas/NAME.txt``, optionally ``t5_xxl/NAME.pickle``;
* a plain folder: ``NAME.mp4`` beside ``NAME.txt``;
* a ``.jsonl`` file (or a folder with one and no ``videos/``): a JSON object per line with ``video`` and ``caption``,
or
  ``file_name`` and ``text`` as Hugging Face video folders have them; paths are relative to the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nemo_cosmos.data.shards import safe_key
from nemo_cosmos.errors import InputError

VIDEO_KEYS, CAPTION_KEYS = ("video", "file_name"), ("caption", "text")
SHOWN = 5
"""Names of clips that an error lists."""


@dataclass(frozen=True)
class Clip:
    """One video file and where its text comes from.

    Attributes:
        key: unique name in the shards.
        video: path of the video file.
        name: the same path relative to the source, for people.
        caption: the caption, or None when it lies in ``caption_file``.
        caption_file: UTF-8 text file.
        embedding_file: pickle with the ready text embedding, or None.
    """

    key: str
    video: Path
    name: str
    caption: str | None = None
    caption_file: Path | None = None
    embedding_file: Path | None = None

    def read_caption(self) -> str:
        """The caption, stripped; may be empty. InputError when the file is not UTF-8."""
        if self.caption is not None:
            return self.caption.strip()
        assert self.caption_file is not None
        return read_caption_file(self.caption_file)


def read_caption_file(path: Path) -> str:
    """Text of a caption file, stripped; InputError when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def find_clips(source: str | Path, *, use_embeddings: bool = False, default_caption: str | None = None) -> list[Clip]:
    """List the clips of a dataset, sorted by key.

    Args:
        source: folder or ``.jsonl`` file.
        use_embeddings: every clip needs its ``t5_xxl`` pickle.
        default_caption: caption of clips that have none; None: such a clip is an error.

    Raises:
        InputError: no clips, a clip without caption or embedding, two clips of one key, or a malformed line.
    """
    source = Path(source)
    if source.is_file() and source.suffix == ".jsonl":
        clips = _from_jsonl(source, default_caption)
    elif not source.is_dir():
        raise InputError(f"{source} is neither a folder nor a .jsonl file")
    elif (source / "videos").is_dir():
        clips = _from_folder(source, source / "videos", source / "metas", default_caption)
    else:
        lists = sorted(source.glob("*.jsonl"))
        if len(lists) == 1:
            clips = _from_jsonl(lists[0], default_caption)
        elif lists:
            raise InputError(f"{source} holds {len(lists)} .jsonl files; name the one to read")
        else:
            clips = _from_folder(source, source, source, default_caption)
    _refuse_duplicates(clips)
    if use_embeddings:
        clips = _with_embeddings(clips, source / "t5_xxl")
    return sorted(clips, key=lambda clip: clip.key)


def find_videos(folder: Path) -> list[Path]:
    """The ``*.mp4`` files of a folder, sorted; InputError when there are none."""
    videos = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".mp4" and not p.name.startswith("."))
    if not videos:
        raise InputError(f"{folder} holds no .mp4 files")
    return videos


def _from_folder(root: Path, videos: Path, captions: Path, default_caption: str | None) -> list[Clip]:
    clips, missing = [], []
    for video in find_videos(videos):
        name = video.relative_to(root).as_posix()
        file = captions / f"{video.stem}.txt"
        if file.is_file():
            clips.append(Clip(safe_key(video.stem), video, name, caption_file=file))
        elif default_caption is not None:
            clips.append(Clip(safe_key(video.stem), video, name, caption=default_caption))
        else:
            missing.append(f"{name} (expected {file})")
    _refuse_missing(missing, "caption", "write one, or prepare with --default-caption TEXT")
    return clips


def _from_jsonl(file: Path, default_caption: str | None) -> list[Clip]:
    clips, missing = [], []
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file} line {number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise InputError(f"{where} is not JSON: {error}") from error
            if not isinstance(values, dict):
                raise InputError(f"{where}: expected a JSON object with 'video' and 'caption'")
            name = _field(values, VIDEO_KEYS, where)
            if name is None:
                raise InputError(f"{where} has no 'video': expected a JSON object with 'video' and 'caption'")
            caption = _field(values, CAPTION_KEYS, where)
            if caption is None and default_caption is None:
                missing.append(f"{name} (line {number} has no 'caption')")
                continue
            key = safe_key(Path(name).with_suffix("").as_posix().replace("/", "_"))
            clips.append(Clip(key, file.parent / name, name, caption=default_caption if caption is None else caption))
    _refuse_missing(missing, "caption", "add it, or prepare with --default-caption TEXT")
    if not clips:
        raise InputError(f"{file} names no clips")
    return clips


def _field(values: dict[str, object], names: Iterable[str], where: str) -> str | None:
    for name in names:
        value = values.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise InputError(f"{where}: {name!r} is {value!r}, expected a string")
            return value
    return None


def _with_embeddings(clips: list[Clip], folder: Path) -> list[Clip]:
    found, missing = [], []
    for clip in clips:
        file = folder / f"{clip.video.stem}.pickle"
        if file.is_file():
            found.append(Clip(clip.key, clip.video, clip.name, clip.caption, clip.caption_file, file))
        else:
            missing.append(f"{clip.name} (expected {file})")
    _refuse_missing(
        missing,
        "text embedding",
        "run tools/get_t5_embeddings.py, or name a text encoder (prepare --text-encoder, train data.text_encoder=)",
    )
    return found


def _refuse_missing(missing: list[str], what: str, advice: str) -> None:
    if missing:
        names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise InputError(f"{len(missing)} clips have no {what}: {names}; {advice}")


def _refuse_duplicates(clips: list[Clip]) -> None:
    counts = Counter(clip.key for clip in clips)
    twice = [clip.name for clip in clips if counts[clip.key] > 1]
    if twice:
        raise InputError(f"{len(twice)} clips share a name: {', '.join(twice[:SHOWN])}; every clip needs its own")
