"""Embed the captions of a dataset as Cosmos tools do: ``t5_xxl/NAME.pickle`` beside ``metas/NAME.txt``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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
ENCODER_RECORD = "text_encoder.json"
_RECORD_EVERY = 256
"""Pickles written before they are recorded, where many captions are the same."""


def recorded_encoder(dataset: str | Path) -> str:
    """Name of the encoder that made a dataset's ``t5_xxl`` folder; T5-11B, the format's own, when nothing is
    recorded."""
    record = _encoder_record(dataset)
    if not record.is_file():
        return DEFAULT_TEXT_ENCODER
    name = read_json(record).get("name")
    if not isinstance(name, str):
        raise InputError(f"{record}: expected a JSON object with 'name'")
    return name


def recorded_length(dataset: str | Path) -> int | None:
    """Text tokens that a dataset's ``t5_xxl`` folder keeps of a caption, None when nothing is recorded."""
    record = _encoder_record(dataset)
    length = read_json(record).get("max_length") if record.is_file() else None
    return length if isinstance(length, int) else None


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
    folder = Path(dataset) / EMBEDDINGS_FOLDER
    pickles = {path: _pickle_of(path, dataset) for path in captions or find_captions(dataset)}
    present = {
        file: partial(read_caption_file, path)
        for path, file in pickles.items()
        if file.is_file() and not _is_cut_off(file)
    }
    if present:
        _check_encoder(folder, encoder_name, max_length)
    stale = set(stale_embeddings(folder, present))
    todo = [path for path, file in pickles.items() if file not in present or file in stale]
    done = len(pickles) - len(todo)
    yield done
    if not todo:
        return
    paths_of: dict[str, list[Path]] = {}
    for path in sorted(todo):
        paths_of.setdefault(read_caption_file(path), []).append(path)
    encoder = load_encoder()
    _warn_of_cuts(encoder, paths_of)
    folder.mkdir(exist_ok=True)
    write_json(folder / ENCODER_RECORD, {"name": encoder_name, "max_length": max_length})
    texts = sorted(paths_of, key=len)
    for start in range(0, len(texts), batch_size):
        batch, made = texts[start : start + batch_size], []
        for text, row in zip(batch, encoder.encode_trimmed(batch), strict=True):
            for path in paths_of[text]:
                pickles[path].parent.mkdir(parents=True, exist_ok=True)
                write_embedding(pickles[path], row, dtype)
                made.append((pickles[path], text))
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


def _warn_of_cuts(encoder: TextEncoder, paths_of: Mapping[str, Sequence[Path]]) -> None:
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
    found, length = recorded_encoder(folder.parent), recorded_length(folder.parent)
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
        on_caption: called with (captions done, captions in all).

    Raises:
        InputError: no captions, no such encoder, or embeddings of another encoder in the folder.
    """
    require_range("--max_length", max_length, 1, TEXT_LENGTH)
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    source = _local_copy(pretrained_model_name_or_path, cache_dir)

    def load() -> TextEncoder:
        return load_text_encoder(
            source, max_length=max_length, device=place, dtype=precision, offload=offload, cache_dir=cache_dir
        )

    captions = captions or find_captions(dataset_path)
    progress = embed_captions(
        dataset_path,
        load,
        encoder_name=text_encoder_name(source),
        captions=captions,
        max_length=max_length,
        batch_size=batch_size,
    )
    for done in progress:
        on_caption(done, len(captions))


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
