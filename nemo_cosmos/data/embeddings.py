"""Files of text embeddings as Cosmos tools keep them: ``t5_xxl/NAME.pickle`` beside ``metas/NAME.txt``.

A pickle holds a list with one NumPy array (tokens, width), the true tokens alone; (1, tokens, width), as some tools
write it, and the suffix ``.pkl`` are read, too. Pickles can run code when
loaded; these are read without unpickling, as float arrays and nothing else.

``t5_xxl/captions.jsonl`` records for each pickle the digests of the caption it was made from and of the file itself,
so that a caption edited later is found, and a pickle at another clip's place. Pickles that other tools wrote have no
record, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.atomic import write_bytes
from nemo_cosmos.data.array_pickle import load_arrays
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import parse_json

EMBEDDINGS_FOLDER = "t5_xxl"
EMBEDDING_SUFFIXES = (".pickle", ".pkl")
"""The first that is there counts."""
CAPTIONS_RECORD = "captions.jsonl"
DTYPES = ("float16", "float32")
"""NumPy has no bfloat16, so pickles cannot hold it."""

_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError),
    *(OverflowError, MemoryError, RecursionError),
)
MOST_BYTES = 1 << 30
"""Far more than any caption's embedding; a file beyond it is none, and is not read."""


def read_embedding(path: str | Path) -> Tensor:
    """Read a ``t5_xxl`` pickle: (tokens, width), in the stored floating-point type.

    Raises:
        InputError: the file is unreadable, holds anything but one such floating-point array, or non-finite numbers.
    """
    path = Path(path)
    try:
        stored = _read_plain(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        content = load_arrays(stored)
    except _DAMAGE as error:
        reason = str(error) if isinstance(error, pickle.UnpicklingError) else "it is damaged"
        raise InputError(f"{path} is not a pickled list of NumPy arrays: {reason}; it was not loaded") from error
    array = content[0] if isinstance(content, list) and len(content) == 1 else content
    if isinstance(array, np.ndarray) and array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or array.shape[0] < 1:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{path} holds {found}; expected a list with one float array (tokens, width)")
    if not np.isfinite(array).all():
        raise InputError(f"{path} holds numbers that are not finite; embed the caption again")
    return torch.from_numpy(np.array(array, order="C"))


def _read_plain(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # A pipe or a device may never end.
        raise InputError(f"{path} is not a file; expected a pickled list with one float array (tokens, width)")
    if status.st_size > MOST_BYTES:
        raise InputError(f"{path} has {status.st_size >> 20} MiB, too many for the embedding of a caption")
    return path.read_bytes()


def write_embedding(path: str | Path, embedding: Tensor, dtype: str = "float16") -> None:
    """Write (tokens, width) as Cosmos tools do; the file appears when complete."""
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    array = embedding.float().cpu().numpy().astype(dtype)
    write_bytes(Path(path), pickle.dumps([array]))


def caption_digest(caption: str) -> str:
    """SHA-256 of a caption as it is embedded, that is stripped."""
    return hashlib.sha256(caption.strip().encode("utf-8", "surrogatepass")).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content; InputError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def record_captions(folder: Path, made: Iterable[tuple[Path, str]]) -> None:
    """Append to the folder's record: each pickle, and the caption it was just made from."""
    lines = [
        {
            "file": file.relative_to(folder).as_posix(),
            "caption_sha256": caption_digest(caption),
            "sha256": file_digest(file),
        }
        for file, caption in made
    ]
    with (folder / CAPTIONS_RECORD).open("a", encoding="utf-8") as record:
        record.write("".join(json.dumps(line) + "\n" for line in lines))


def stale_embeddings(folder: Path, captions: Mapping[Path, Callable[[], str]]) -> list[Path]:
    """The pickles that were made from another caption than they have now, in the order given.

    Args:
        folder: the ``t5_xxl`` folder.
        captions: pickle to what reads its caption.

    Raises:
        InputError: a caption that has to be compared cannot be read.
    """
    made_from = _made_from(folder)
    stale = []
    for file, read_caption in captions.items() if made_from else ():
        # By content: pickles get exchanged, moved and copied, and another tool may put its own in their place.
        try:
            known = made_from.get(file_digest(file))
        except InputError:
            continue  # Reading the embedding says what is wrong.
        if known is not None and caption_digest(read_caption()) not in known:
            stale.append(file)
    return stale


def _made_from(folder: Path) -> dict[str, set[str]]:
    """Digest of each pickle that was ever recorded -> digests of the captions that gave it; a line that an interrupted
    call left unfinished is passed over."""
    file = folder / CAPTIONS_RECORD
    captions: dict[str, set[str]] = {}
    if not file.is_file():
        return captions
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = parse_json(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("sha256"), str):
            captions.setdefault(values["sha256"], set()).add(str(values.get("caption_sha256")))
    return captions
