"""Embed the captions of a dataset as Cosmos tools do: ``t5_xxl/NAME.pickle`` beside ``metas/NAME.txt``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from nemo_cosmos.atomic import write_json
from nemo_cosmos.data.clips import read_caption_file
from nemo_cosmos.data.embeddings import (
    DTYPES,
    EMBEDDINGS_FOLDER,
    record_captions,
    stale_embeddings,
    write_embedding,
)
from nemo_cosmos.data.listing import walk_files
from nemo_cosmos.data.manifest import read_json
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import (
    DEFAULT_TEXT_ENCODER,
    TEXT_LENGTH,
    TextEncoder,
    load_text_encoder,
    text_encoder_name,
)
from nemo_cosmos.prepare.device import resolve_device, resolve_dtype

ENCODER_RECORD = "text_encoder.json"


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
    max_length: int | None = None,
    batch_size: int = 8,
    dtype: str = "float16",
) -> Iterator[int]:
    """Write ``t5_xxl/NAME.pickle`` for every ``metas/NAME.txt`` that has none of its present caption yet; yields the
    captions done so far.

    The encoder is loaded when there is something to do. Captions of similar length share a batch, so that little is
    computed for padding.

    Args:
        dataset: folder with ``metas``.
        load_encoder: called when there is something to embed.
        encoder_name: recorded in the folder.
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
    pickles = {path: _pickle_of(path, dataset) for path in find_captions(dataset)}
    present = {file: partial(read_caption_file, path) for path, file in pickles.items() if file.is_file()}
    if present:
        _check_encoder(folder, encoder_name, max_length)
    stale = set(stale_embeddings(folder, present))
    todo = [path for path, file in pickles.items() if file not in present or file in stale]
    done = len(pickles) - len(todo)
    yield done
    if not todo:
        return
    texts = {path: read_caption_file(path) for path in todo}
    encoder = load_encoder()
    folder.mkdir(exist_ok=True)
    write_json(folder / ENCODER_RECORD, {"name": encoder_name, "max_length": max_length})
    todo.sort(key=lambda path: (len(texts[path]), path))
    for start in range(0, len(todo), batch_size):
        batch: Sequence[Path] = todo[start : start + batch_size]
        for path, row in zip(batch, encoder.encode_trimmed([texts[p] for p in batch]), strict=True):
            pickles[path].parent.mkdir(parents=True, exist_ok=True)
            write_embedding(pickles[path], row, dtype)
        record_captions(folder, [(pickles[path], texts[path]) for path in batch])
        done += len(batch)
        yield done


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
    pretrained_model_name_or_path: str = DEFAULT_TEXT_ENCODER,
    max_length: int = TEXT_LENGTH,
    cache_dir: str | Path | None = None,
    dtype: str = "fp32",
    batch_size: int = 8,
    device: str = "auto",
    offload: bool = False,
    on_caption: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """``embed_captions`` with the options of ``tools/get_t5_embeddings.py``.

    Args:
        dataset_path: folder with ``metas/*.txt``.
        pretrained_model_name_or_path: T5 folder or repository.
        max_length: text tokens kept.
        cache_dir: folder that models are downloaded to; a copy at ``cache_dir/REPOSITORY`` is used when there.
        dtype: of the encoder's computation; the files hold float16 in any case.
        batch_size: captions per call of the encoder.
        device: auto, cpu or cuda.
        offload: see ``load_text_encoder``.
        on_caption: called with (captions done, captions in all).

    Raises:
        InputError: no captions, no such encoder, or embeddings of another encoder in the folder.
    """
    place = resolve_device(device)
    precision = resolve_dtype(dtype, place)
    local = None if cache_dir is None else Path(cache_dir) / pretrained_model_name_or_path
    source = str(local) if local is not None and (local / "config.json").is_file() else pretrained_model_name_or_path

    def load() -> TextEncoder:
        return load_text_encoder(
            source, max_length=max_length, device=place, dtype=precision, offload=offload, cache_dir=cache_dir
        )

    total = len(find_captions(dataset_path))
    name = text_encoder_name(source)
    for done in embed_captions(dataset_path, load, encoder_name=name, max_length=max_length, batch_size=batch_size):
        on_caption(done, total)
