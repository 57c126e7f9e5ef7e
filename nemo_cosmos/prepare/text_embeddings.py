"""Embed the captions of a dataset as Cosmos tools do: ``t5_xxl/NAME.pickle`` beside ``metas/NAME.txt``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from pickle import STOP
from typing import Any

from nemo_cosmos.atomic import write_json
from nemo_cosmos.data.clips import SHOWN, read_caption_file
from nemo_cosmos.data.embeddings import (
    DTYPES,
    EMBEDDINGS_FOLDER,
    record_captions,
    stale_embeddings,
    write_embedding,
)
from nemo_cosmos.data.listing import walk_files
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.errors import InputError, require_range
from nemo_cosmos.models.text import (
    DEFAULT_TEXT_ENCODER,
    TEXT_LENGTH,
    TextEncoder,
    load_text_encoder,
    text_encoder_name,
)
from nemo_cosmos.prepare.device import resolve_device, resolve_dtype

logger = logging.getLogger(__name__)
PREFIX_FOLDER = "cache"
ENCODER_RECORD = "text_encoder.json"
_RECORD_EVERY = 256
"""Pickles written before they are recorded, where many captions are the same."""


def recorded_encoder(dataset: str | Path) -> str:
    """Name of the encoder that made a dataset's ``t5_xxl`` folder; T5-11B, the format's own, when nothing is
    recorded."""
    return _recorded(_encoder_record(dataset))[0]


def recorded_length(dataset: str | Path) -> int | None:
    """Text tokens that a dataset's ``t5_xxl`` folder keeps of a caption, None when nothing is recorded."""
    return _recorded(_encoder_record(dataset))[1]


def _recorded(record: Path) -> tuple[str, int | None]:
    """Name and length of a folder's encoder."""
    if not record.is_file():
        return DEFAULT_TEXT_ENCODER, None
    values = read_json(record)
    name, length = values.get("name"), values.get("max_length")
    if not isinstance(name, str):
        raise InputError(f"{record}: expected a JSON object with 'name'")
    return name, length if isinstance(length, int) else None


def _encoder_record(dataset: str | Path) -> Path:
    """Beside the list where the dataset is a ``.jsonl`` file."""
    folder = Path(dataset).parent if Path(dataset).is_file() else Path(dataset)
    return folder / EMBEDDINGS_FOLDER / ENCODER_RECORD


def find_captions(dataset: str | Path) -> list[Path]:
    """The ``metas/*.txt`` files of a dataset, those in subfolders included, sorted; InputError when there are none."""
    metas = Path(dataset) / "metas"
    captions = [path for path in walk_files(metas) if path.suffix == ".txt"] if metas.is_dir() else []
    if not captions:
        raise InputError(f"{metas} holds no caption files (*.txt)")
    return captions


def embed_captions(
    dataset: str | Path,
    load_encoder: Callable[[], TextEncoder],
    *,
    encoder_name: str,
    captions: Sequence[Path] | None = None,
    max_length: int | None = None,
    batch_size: int = 8,
    dtype: str = "float16",
) -> Iterator[int]:
    """Write ``t5_xxl/NAME.pickle`` for every ``metas/NAME.txt`` that has none of its present caption yet; yields the
    captions done so far.

    The encoder is loaded when there is something to do. Equal captions are embedded once, and those of similar length
    share a batch, so that little is computed for padding. One that is cut is named in the log.

    Args:
        dataset: folder with ``metas``.
        load_encoder: called when there is something to embed.
        encoder_name: recorded in the folder.
        captions: files below ``metas``; None: all.
        max_length: text tokens kept, recorded in the folder.
        batch_size: captions per call of the encoder.
        dtype: of the arrays in the files.

    Raises:
        InputError: no captions, a caption that is not UTF-8, or embeddings of another encoder or length in the folder.
    """
    if batch_size < 1 or dtype not in DTYPES:
        raise InputError(
            f"batch_size={batch_size}, dtype={dtype!r}: expected at least 1 and one of {', '.join(DTYPES)}"
        )
    paths = captions or find_captions(dataset)
    texts = {_pickle_of(path, dataset): partial(read_caption_file, path) for path in paths}
    names = {_pickle_of(path, dataset): str(path) for path in paths}
    folder = Path(dataset) / EMBEDDINGS_FOLDER
    yield from _embed_texts(folder, texts, names, load_encoder, encoder_name, max_length, batch_size, dtype)


def _embed_texts(
    folder: Path,
    pickles: Mapping[Path, Callable[[], str]],
    names: Mapping[Path, str],
    load_encoder: Callable[[], TextEncoder],
    encoder_name: str,
    max_length: int | None,
    batch_size: int,
    dtype: str,
) -> Iterator[int]:
    """Write the pickles in ``folder`` that are missing or of another text than theirs now; yields those done.

    Args:
        folder: keeps the record of what its pickles were made from.
        pickles: to what reads the text of each.
        names: where that text stands, for messages.
    """
    present = {file: read for file, read in pickles.items() if file.is_file() and not _is_cut_off(file)}
    if present:
        _check_encoder(folder, encoder_name, max_length)
    stale = set(stale_embeddings(folder, present))
    todo = [file for file in pickles if file not in present or file in stale]
    done = len(pickles) - len(todo)
    yield done
    if not todo:
        return
    files_of: dict[str, list[Path]] = {}
    for file in sorted(todo):
        files_of.setdefault(pickles[file](), []).append(file)
    encoder = load_encoder()
    _warn_of_cuts(encoder, {text: [names[file] for file in files] for text, files in files_of.items()})
    folder.mkdir(exist_ok=True)
    write_json(folder / ENCODER_RECORD, {"name": encoder_name, "max_length": max_length})
    texts = sorted(files_of, key=len)
    for start in range(0, len(texts), batch_size):
        batch, made = texts[start : start + batch_size], []
        for text, row in zip(batch, encoder.encode_trimmed(batch), strict=True):
            for file in files_of[text]:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_embedding(file, row, dtype)
                made.append((file, text))
                done += 1
                if len(made) == _RECORD_EVERY:
                    record_captions(folder, made)
                    made = []
                    yield done
        if made:
            record_captions(folder, made)
            yield done


def _is_cut_off(pickle: Path) -> bool:
    """Whether a pickle lacks its end, as those of a tool that was killed while it wrote."""
    with pickle.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() != STOP


def _warn_of_cuts(encoder: TextEncoder, paths_of: Mapping[str, Sequence[str]]) -> None:
    """Name the captions that have more tokens than the encoder keeps."""
    # A token stands for a byte at least, and one closes the caption; a word may begin with one of its own.
    long = [text for text in paths_of if len(text.encode()) + 2 > encoder.max_length]
    counts = {text: encoder.token_count(text) for text in long}
    cut = [text for text in long if counts[text] > encoder.max_length]
    for text in cut[:SHOWN]:
        others = f" and {len(paths_of[text]) - 1} more of this text" if len(paths_of[text]) > 1 else ""
        kept, count = encoder.max_length, counts[text]
        logger.warning("%s%s: only the first %d of %d text tokens are used", paths_of[text][0], others, kept, count)
    if len(cut) > SHOWN:
        logger.warning("and %d more captions are cut at %d tokens", len(cut) - SHOWN, encoder.max_length)


def _pickle_of(caption: Path, dataset: str | Path) -> Path:
    """``metas/DAY/NAME.txt`` -> ``t5_xxl/DAY/NAME.pickle``."""
    inside = caption.relative_to(Path(dataset) / "metas")
    return Path(dataset) / EMBEDDINGS_FOLDER / inside.with_name(f"{caption.stem}.pickle")


def _check_encoder(folder: Path, encoder_name: str, max_length: int | None) -> None:
    """InputError when the folder's embeddings are of another encoder, or cut at another length."""
    found, length = _recorded(folder / ENCODER_RECORD)
    if found != encoder_name:
        other, wanted = found, encoder_name
    elif None not in (length, max_length) and length != max_length:
        other, wanted = f"at most {length} tokens", str(max_length)
    else:
        return
    raise InputError(
        f"{folder} holds embeddings of {other}, not of {wanted}: delete the folder to embed all captions again"
    )


def embed_dataset(
    dataset_path: str | Path,
    *,
    captions: Sequence[Path] | None = None,
    pretrained_model_name_or_path: str = DEFAULT_TEXT_ENCODER,
    max_length: int = TEXT_LENGTH,
    cache_dir: str | Path | None = None,
    dtype: str = "fp32",
    batch_size: int = 8,
    device: str = "auto",
    offload: bool = False,
    prefixes: Mapping[str, str] | None = None,
    on_caption: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """``embed_captions`` with the options of ``tools/get_t5_embeddings*.py``.

    Args:
        dataset_path: folder with ``metas/*.txt``.
        captions: files below ``metas``; None: all.
        pretrained_model_name_or_path: T5 folder or repository.
        max_length: text tokens kept.
        cache_dir: folder that models are downloaded to; a copy at ``cache_dir/REPOSITORY``, or ``cache_dir`` itself
            where that is one, is used when there.
        dtype: of the encoder's computation; the files hold float16 in any case.
        batch_size: captions per call of the encoder.
        device: auto, cpu or cuda.
        offload: see ``load_text_encoder``.
        prefixes: texts by the name of a file ``cache/NAME.pickle``, embedded alike.
        on_caption: called with (captions done, captions in all).

    Raises:
        InputError: no captions, no such encoder, or embeddings of another encoder in the folder.
    """
    require_range("--max_length", max_length, 1, TEXT_LENGTH)
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    source = _local_copy(pretrained_model_name_or_path, cache_dir)

    @cache
    def load() -> TextEncoder:
        return load_text_encoder(
            source, max_length=max_length, device=place, dtype=precision, offload=offload, cache_dir=cache_dir
        )

    captions = captions or find_captions(dataset_path)
    name, prefixes = text_encoder_name(source), prefixes or {}
    cache_folder = Path(dataset_path) / PREFIX_FOLDER
    pickles: dict[Path, Callable[[], str]] = {
        cache_folder / f"{file}.pickle": partial(str, text) for file, text in prefixes.items()
    }
    places = {file: f"the text of {file}" for file in pickles}
    total = len(captions) + len(pickles)
    if pickles:
        for done in _embed_texts(cache_folder, pickles, places, load, name, max_length, batch_size, "float16"):
            on_caption(done, total)
    progress = embed_captions(
        dataset_path, load, encoder_name=name, captions=captions, max_length=max_length, batch_size=batch_size
    )
    for done in progress:
        on_caption(len(pickles) + done, total)


def _local_copy(name: str, cache_dir: str | Path | None) -> str:
    """The folder below ``cache_dir`` that holds an encoder, else its name."""
    if cache_dir is not None and not Path(name).is_dir():
        for folder in (Path(cache_dir) / name, Path(cache_dir)):
            if (folder / "config.json").is_file():
                return str(folder)
    return name


def embed_with_bar(dataset_path: str | Path, **options: Any) -> None:
    """:func:`embed_dataset` with a progress bar."""
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("embedding captions", total=None)
        embed_dataset(
            dataset_path, **options, on_caption=lambda done, total: progress.update(task, completed=done, total=total)
        )
