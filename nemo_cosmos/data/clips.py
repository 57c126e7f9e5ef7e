"""Find the clips of a raw dataset and their captions; an image is a clip of one frame.

Three layouts are read, with videos of any suffix in ``listing.VIDEO_SUFFIXES`` and in subfolders:

* the Cosmos folder: ``videos/NAME.mp4``, ``metas/NAME.txt``, optionally ``t5_xxl/NAME.pickle``;
* a plain folder: ``NAME.mp4`` beside ``NAME.txt``;
* a ``.jsonl`` file (or a folder with one and no ``videos/``): a JSON object per line with ``video`` and ``caption``,
or
  ``file_name`` and ``text`` as Hugging Face video folders have them; paths are relative to the file.

A dataset of images has ``images`` in place of ``videos``, the suffixes of ``images.IMAGE_SUFFIXES``, and in a list
``image`` in place of ``video``.

NAME is a path relative to ``videos``. The caption or embedding of ``videos/DAY/NAME.mp4`` may also lie in ``metas`` or
``t5_xxl`` itself, as long as no other clip has that file name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from nemo_cosmos.data.embeddings import EMBEDDING_SUFFIXES, EMBEDDINGS_FOLDER, stale_embeddings
from nemo_cosmos.data.images import IMAGE_SUFFIXES
from nemo_cosmos.data.listing import (
    VIDEO_SUFFIXES,
    count_suffixes,
    find_files,
    find_videos,
    numbered_lines,
    require_path,
    unique_names,
    walk_files,
)
from nemo_cosmos.data.shards import safe_key
from nemo_cosmos.errors import InputError, require_file, require_text
from nemo_cosmos.typed import parse_json

__all__ = [
    "IMAGES",
    "VIDEOS",
    "Clip",
    "Media",
    "View",
    "find_clips",
    "find_videos",
    "list_clips",
    "not_read",
    "read_caption_file",
]

CAPTION_KEYS = ("caption", "text")
SHOWN = 5
"""Names of clips that an error lists."""


@dataclass(frozen=True)
class Media:
    """What the clips of a dataset are, and how its files are named.

    Attributes:
        name: of one file, in messages.
        folder: where they lie in the Cosmos layout.
        suffixes: in any case.
        keys: of the path in a list.
        still: each file is one frame.
    """

    name: str
    folder: str
    suffixes: tuple[str, ...]
    keys: tuple[str, ...]
    still: bool = False


VIDEOS = Media("video", "videos", VIDEO_SUFFIXES, ("video", "file_name"))
IMAGES = Media("image", "images", IMAGE_SUFFIXES, ("image", "file_name"), still=True)


@dataclass(frozen=True)
class View:
    """One camera of a rig.

    Attributes:
        video: its file of the clip.
        view_id: the number by which networks know the camera.
        camera: name of the camera's folder.
        name: of the camera, for people.
        caption, caption_file: its text, as of a clip; both None where the rig gives this camera none.
        embedding_file: pickle with the ready text embedding, or None.
        frame_repeat: what the rig says, None for nothing.
    """

    video: Path
    view_id: int
    camera: str = ""
    name: str = ""
    caption: str | None = None
    caption_file: Path | None = None
    embedding_file: Path | None = None
    frame_repeat: float | None = None

    @property
    def has_text(self) -> bool:
        """Whether there is a caption, which may be empty, or an embedding."""
        return self.caption is not None or self.caption_file is not None or self.embedding_file is not None

    def read_caption(self) -> str:
        """The caption, stripped; empty where there is none. InputError when it is not UTF-8."""
        return read_caption_file(self.caption_file) if self.caption_file is not None else (self.caption or "").strip()


@dataclass(frozen=True)
class Clip:
    """One video or image file and where its text comes from.

    Attributes:
        key: unique name in the shards.
        video: path of the video or image file.
        name: the same path relative to the source, for people.
        caption: the caption, or None when it lies in ``caption_file``.
        caption_file: UTF-8 text file.
        embedding_file: pickle with the ready text embedding, or None.
        title: unique file name without suffix, for what is made from the clip.
        relative: path of the video below ``videos``, which its caption and embedding share.
        caption_place: where its caption belongs, in words.
        still: the file is an image, a clip of one frame.
        views: every camera of a rig, ``video`` (the front camera's) among them; empty for a single camera.
        poses_file: camera pose of each frame, None where none are known.
    """

    key: str
    video: Path
    name: str
    caption: str | None = None
    caption_file: Path | None = None
    embedding_file: Path | None = None
    title: str = ""
    relative: PurePath = field(default_factory=PurePath)
    caption_place: str = ""
    still: bool = False
    views: tuple[View, ...] = ()
    poses_file: Path | None = None

    @property
    def videos(self) -> tuple[Path, ...]:
        """The file of each view, of a single camera the one file."""
        return tuple(view.video for view in self.views) or (self.video,)

    @property
    def embedding_files(self) -> tuple[Path, ...]:
        """The embeddings of all views that have one."""
        given = [view.embedding_file for view in self.views] if self.views else [self.embedding_file]
        return tuple(file for file in given if file is not None)

    def read_captions(self) -> list[str]:
        """The caption of each view, empty for a view without one; of a single camera the one caption."""
        return [view.read_caption() for view in self.views] if self.views else [self.read_caption()]

    @property
    def has_caption(self) -> bool:
        """Whether there is a caption, which may be empty."""
        return self.caption is not None or self.caption_file is not None

    def read_caption(self) -> str:
        """The caption, stripped; may be empty. InputError when it is not UTF-8."""
        if self.caption is not None:
            require_text(self.caption, f"{self.name}: its caption")
            return self.caption.strip()
        assert self.caption_file is not None
        return read_caption_file(self.caption_file)


def read_caption_file(path: Path) -> str:
    """Text of a caption file, stripped; InputError when it is missing, no file or not UTF-8."""
    require_file(path)  # Opening a pipe would wait for whoever writes into it.
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def find_clips(
    source: str | Path, *, use_embeddings: bool = False, default_caption: str | None = None, media: Media = VIDEOS
) -> list[Clip]:
    """List the clips of a dataset, sorted by key.

    Args:
        source: folder or ``.jsonl`` file.
        use_embeddings: every clip needs its ``t5_xxl`` pickle, made from the caption that it has now.
        default_caption: caption of clips that have none; None: such a clip is an error.
        media: what they are, ``VIDEOS`` or ``IMAGES``.

    Raises:
        InputError: no clips, a clip without caption or embedding, an embedding of another caption, the same clip
            twice, or a malformed line.
    """
    clips = list_clips(source, media)
    if default_caption is not None:
        require_text(default_caption, "the default caption")
        clips = [clip if clip.has_caption else replace(clip, caption=default_caption) for clip in clips]
    _refuse_missing(
        [f"{clip.name} ({clip.caption_place})" for clip in clips if not clip.has_caption],
        "caption",
        "write one, or prepare with --default-caption TEXT",
    )
    if use_embeddings:
        clips = _with_embeddings(clips, _root(Path(source)) / EMBEDDINGS_FOLDER)
    return clips


def list_clips(source: str | Path, media: Media = VIDEOS) -> list[Clip]:
    """The clips of a dataset, sorted by key, whether or not they have a caption.

    Raises:
        InputError: no clips, the same clip twice, or a malformed line.
    """
    source = Path(source)
    file = _list_file(source, media)
    clips = _from_folder(source, media) if file is None else _from_jsonl(file, media)
    _refuse_duplicates(clips)
    return sorted(clips, key=lambda clip: clip.key)


def not_read(source: str | Path, media: Media = VIDEOS) -> str:
    """What lies among the clips of a dataset's folder and is not read, counted by suffix; empty when nothing is."""
    source = Path(source)
    if _list_file(source, media) is not None:
        return ""
    files = walk_files(_media_folder(source, media))
    read = {path for path in files if path.suffix.lower() in media.suffixes}
    stems = {path.with_suffix("") for path in read}
    captions = {path for path in files if path.suffix == ".txt" and path.with_suffix("") in stems}
    return count_suffixes(path for path in files if path not in read and path not in captions)


def _root(source: Path) -> Path:
    return source.parent if source.is_file() else source


def _media_folder(source: Path, media: Media) -> Path:
    return source / media.folder if (source / media.folder).is_dir() else source


def _list_file(source: Path, media: Media) -> Path | None:
    """The ``.jsonl`` file that lists the clips of a source, None for a folder of them."""
    if source.is_file() and source.suffix.lower() == ".jsonl":
        return source
    if not source.is_dir():
        raise InputError(f"{source} is neither a folder nor a .jsonl file")
    if (source / media.folder).is_dir():
        return None
    lists = sorted(source.glob("*.jsonl"))
    if len(lists) > 1:
        raise InputError(f"{source} holds {len(lists)} .jsonl files; name the one to read")
    return lists[0] if lists else None


def _from_folder(root: Path, media: Media) -> list[Clip]:
    folder = _media_folder(root, media)
    captions = root / "metas" if folder != root else root
    videos = find_files(folder, media.suffixes, media.name)
    _refuse_inner_datasets(root, videos, media)
    paths = [video.relative_to(folder) for video in videos]
    stems = Counter(path.stem for path in paths)
    clips = []
    for video, path, title in zip(videos, paths, unique_names(paths), strict=True):
        file = _own_file(captions, path, ".txt", stems)
        clips.append(
            Clip(
                key=safe_key(title),
                video=video,
                name=video.relative_to(root).as_posix(),
                caption_file=file if file.is_file() else None,
                title=title,
                relative=path,
                caption_place=f"expected {file}",
                still=media.still,
            )
        )
    return clips


def _refuse_inner_datasets(root: Path, videos: list[Path], media: Media) -> None:
    """InputError for the parent of datasets in the Cosmos layout, which is no plain folder of clips."""
    parents = {parent for video in videos for parent in video.parents if root in parent.parents}
    inner = sorted(
        p.parent.relative_to(root).as_posix() for p in parents if p.name == media.folder and p.parent != root
    )
    datasets = [name for name in inner if (root / name / "metas").is_dir()]
    if datasets:
        raise InputError(
            f"{root} holds no {media.folder}/ itself, but datasets that do: name one of them ({_listed(datasets)})"
        )


def _own_file(folder: Path, path: PurePath, suffix: str, stems: Counter[str]) -> Path:
    """The file that belongs to a clip alone: at its relative path, or by its stem where no other clip has that."""
    own, flat = folder / path.with_name(path.stem + suffix), folder / f"{path.stem}{suffix}"
    return flat if not own.is_file() and flat.is_file() and stems[path.stem] == 1 else own


def _from_jsonl(file: Path, media: Media) -> list[Clip]:
    key = media.keys[0]
    given: list[tuple[int, str, str | None]] = []
    for number, line in numbered_lines(file):
        where = f"{file} line {number}"
        try:
            values = parse_json(line)
        except ValueError as error:
            raise InputError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected a JSON object with {key!r} and 'caption'")
        name = _field(values, media.keys, where)
        if name is None or not PurePath(name).name:
            raise InputError(f"{where} has no {key!r}: expected a JSON object with {key!r} and 'caption'")
        require_path(name, f"{where}: the {key!r}")
        given.append((number, name, _field(values, CAPTION_KEYS, where)))
    if not given:
        raise InputError(f"{file} names no clips")
    paths = [PurePath(name) for _, name, _ in given]
    return [
        Clip(
            key=safe_key(title),
            video=file.parent / name,
            name=name,
            caption=caption,
            title=title,
            relative=path,
            caption_place=f"line {number} has no 'caption'",
            still=media.still,
        )
        for (number, name, caption), path, title in zip(given, paths, unique_names(paths), strict=True)
    ]


def _field(values: dict[str, object], names: Iterable[str], where: str) -> str | None:
    for name in names:
        value = values.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise InputError(f"{where}: {name!r} is {value!r}, expected a string")
            return value
    return None


def _with_embeddings(clips: list[Clip], folder: Path) -> list[Clip]:
    stems = Counter(clip.relative.stem for clip in clips)
    found, missing = [], []
    for clip in clips:
        inside = clip.relative if not clip.relative.is_absolute() else PurePath(clip.relative.name)
        files = [_own_file(folder, inside, suffix, stems) for suffix in EMBEDDING_SUFFIXES]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            found.append(replace(clip, embedding_file=file))
        else:
            missing.append(f"{clip.name} (expected {files[0]})")
    advice = "name a text encoder (prepare --text-encoder, train data.text_encoder=)"
    _refuse_missing(missing, "text embedding", f"run tools/get_t5_embeddings.py, or {advice}")
    made_from = {clip.embedding_file: clip for clip in found}
    stale = stale_embeddings(folder, {file: clip.read_caption for file, clip in made_from.items() if file is not None})
    if stale:
        names = _listed([made_from[file].name for file in stale])
        raise InputError(
            f"{len(stale)} text embeddings in {folder} are of another caption, edited since or exchanged: {names}; "
            f"run tools/get_t5_embeddings.py again, or {advice}"
        )
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _refuse_missing(missing: list[str], what: str, advice: str) -> None:
    if missing:
        raise InputError(f"{len(missing)} clips have no {what}: {_listed(missing)}; {advice}")


def _refuse_duplicates(clips: list[Clip]) -> None:
    counts = Counter(clip.key for clip in clips)
    twice = [clip.name for clip in clips if counts[clip.key] > 1]
    if twice:
        raise InputError(f"{len(twice)} clips share a name: {', '.join(twice[:SHOWN])}; every clip needs its own")
