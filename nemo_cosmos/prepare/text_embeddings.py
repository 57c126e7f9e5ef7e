"""Embed the captions of a dataset as Cosmos tools do: ``t5_xxl/NAME.pickle`` beside ``metas/NAME.txt``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nemo_cosmos.data.clips import read_caption_file
from nemo_cosmos.data.embeddings import DTYPES, write_embedding
from nemo_cosmos.data.manifest import read_json, write_json
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.text import (
    DEFAULT_TEXT_ENCODER,
    TEXT_LENGTH,
    TextEncoder,
    load_text_encoder,
    text_encoder_name,
)
from nemo_cosmos.prepare.device import resolve_device, resolve_dtype

EMBEDDINGS_FOLDER = "t5_xxl"
ENCODER_RECORD = "text_encoder.json"


def recorded_encoder(dataset: str | Path) -> str:
    """Name of the encoder that made a dataset's ``t5_xxl`` folder; T5-11B, the format's own, when nothing is
    recorded."""
    record = Path(dataset) / EMBEDDINGS_FOLDER / ENCODER_RECORD
    if not record.is_file():
        return DEFAULT_TEXT_ENCODER
    name = read_json(record).get("name")
    if not isinstance(name, str):
        raise InputError(f"{record}: expected a JSON object with 'name'")
    return name


def find_captions(dataset: str | Path) -> list[Path]:
    """The ``metas/*.txt`` files of a dataset, sorted; InputError when there are none."""
    metas = Path(dataset) / "metas"
    captions = sorted(p for p in metas.glob("*.txt") if not p.name.startswith("."))
    if not captions:
        raise InputError(f"{metas} holds no caption files (*.txt)")
    return captions


def embed_captions(
    dataset: str | Path,
    load_encoder: Callable[[], TextEncoder],
    *,
    encoder_name: str,
    batch_size: int = 8,
    dtype: str = "float16",
) -> Iterator[int]:
    """Write ``t5_xxl/*.pickle`` for every ``metas/*.txt`` that has none yet; yields the captions done so far.

    The encoder is loaded when there is something to do. Captions of similar length share a batch, so that little is
    computed for padding.

    Raises:
        InputError: no captions, a caption that is not UTF-8, or embeddings of another encoder in the folder.
    """
    if batch_size < 1 or dtype not in DTYPES:
        raise InputError(
            f"batch_size={batch_size}, dtype={dtype!r}: expected at least 1 and one of {', '.join(DTYPES)}"
        )
    folder = Path(dataset) / EMBEDDINGS_FOLDER
    captions = find_captions(dataset)
    todo = [p for p in captions if not (folder / f"{p.stem}.pickle").is_file()]
    done = len(captions) - len(todo)
    if done and recorded_encoder(dataset) != encoder_name:
        raise InputError(
            f"{folder} holds embeddings of {recorded_encoder(dataset)}, not of {encoder_name}: delete the folder to "
            "embed all captions again"
        )
    yield done
    if not todo:
        return
    texts = {path: read_caption_file(path) for path in todo}
    encoder = load_encoder()
    folder.mkdir(exist_ok=True)
    write_json(folder / ENCODER_RECORD, {"name": encoder_name})
    todo.sort(key=lambda path: (len(texts[path]), path))
    for start in range(0, len(todo), batch_size):
        batch: Sequence[Path] = todo[start : start + batch_size]
        for path, row in zip(batch, encoder.encode_trimmed([texts[p] for p in batch]), strict=True):
            write_embedding(folder / f"{path.stem}.pickle", row, dtype)
        done += len(batch)
        yield done


def embed_dataset(
    dataset_path: str | Path,
    *,
    pretrained_model_name_or_path: str = DEFAULT_TEXT_ENCODER,
    max_length: int = TEXT_LENGTH,
    cache_dir: str | Path | None = None,
    dtype: str = "float32",
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
    for done in embed_captions(dataset_path, load, encoder_name=text_encoder_name(source), batch_size=batch_size):
        on_caption(done, total)
