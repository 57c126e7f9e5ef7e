"""What the demo starts from: the packaged tiny model, or a folder in the same layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from nemo_cosmos.errors import InputError
from nemo_cosmos.tiny import PARTS, TINY, packaged

PRESET = "predict1-tiny-video2world"
NETWORK, TOKENIZER, TEXT_ENCODER = (
    f"{PARTS['network']}/model.pt",
    PARTS["tokenizer"],
    PARTS["text_encoder"],
)


@dataclass(frozen=True)
class Weights:
    """Names or paths, as the commands take them, and the folder where the files are."""

    network: str
    tokenizer: str
    text_encoder: str
    folder: Path

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder / TOKENIZER

    @property
    def packaged(self) -> bool:
        """Whether they are those that the experiments of the demo name."""
        return self.network == TINY

    def digest(self) -> str:
        """SHA-256 over the files, so that other weights under the same name are no reason to skip a step."""
        digest = hashlib.sha256()
        for name in (NETWORK, TOKENIZER, TEXT_ENCODER):
            path = self.folder / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(file.relative_to(self.folder).as_posix().encode())
                    digest.update(file.read_bytes())
        return digest.hexdigest()


def find_weights(checkpoints: Path | None) -> Weights:
    """The packaged weights, or those of a folder in the layout of ``nemo-cosmos-tiny``; InputError for another one."""
    if checkpoints is None:
        folder = packaged(TINY)
        assert folder is not None
        return Weights(TINY, TINY, TINY, folder)
    missing = [name for name in (NETWORK, TOKENIZER, TEXT_ENCODER) if not (checkpoints / name).exists()]
    if missing:
        raise InputError(f"{checkpoints} has no {missing[0]}: expected a folder in the layout of {TINY}")
    network, tokenizer, text_encoder = (str(checkpoints / name) for name in (NETWORK, TOKENIZER, TEXT_ENCODER))
    return Weights(network, tokenizer, text_encoder, checkpoints)
