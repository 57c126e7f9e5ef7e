"""Text encoder: T5 through transformers."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nemo_cosmos.atomic import finished_folder
from nemo_cosmos.errors import InputError
from nemo_cosmos.tiny import located, packaged

if TYPE_CHECKING:
    from transformers import T5EncoderModel

DEFAULT_TEXT_ENCODER = "google-t5/t5-11b"
TEXT_LENGTH = 512
_HASHED_FILES = ("config.json", "tokenizer.json", "spiece.model")


class TextEncoder:
    """Captions to embeddings.

    Attributes:
        name: what the shards record: the repository, or for a local folder its name and a digest of its configuration.
        width: features per token (1024 for T5-11B).
        max_length: tokens kept of a caption, the closing ``</s>`` included.
    """

    def __init__(
        self, model: T5EncoderModel, tokenizer: Any, *, name: str, max_length: int, device: torch.device
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name, self.max_length, self.device = name, max_length, device
        self.width: int = model.config.d_model

    @torch.no_grad()
    def encode_trimmed(self, captions: Sequence[str]) -> list[Tensor]:
        """One (n, width) embedding per caption, n = its true tokens (at least the closing one), on the CPU.

        The captions are run as one batch, padded to the longest; padding is masked, so a caption's embedding does not
        depend on its neighbours beyond rounding. Encode one at a time where bytes must not depend on the batch.
        """
        if isinstance(captions, str):
            raise TypeError("encode takes a sequence of captions, not one string")
        if not captions:
            return []
        tokens = self.tokenizer(
            list(captions), padding="longest", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        mask = tokens.attention_mask.to(self.device)
        hidden = self.model(input_ids=tokens.input_ids.to(self.device), attention_mask=mask).last_hidden_state
        return [row[: int(length)].cpu() for row, length in zip(hidden, mask.sum(dim=1), strict=True)]

    def encode(self, captions: Sequence[str]) -> Tensor:
        """(B, max_length, width) embeddings on the encoder's device, zeros after each caption's true length."""
        rows = self.encode_trimmed(captions)
        dtype = rows[0].dtype if rows else torch.float32
        padded = torch.zeros(len(rows), self.max_length, self.width, dtype=dtype)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        return padded.to(self.device)

    def token_count(self, caption: str) -> int:
        """True tokens of a caption before truncation, the closing one included."""
        return len(self.tokenizer(caption).input_ids)

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the encoder; moving to the CPU frees the accelerator's memory."""
        self.model.to(device)
        self.device = torch.device(device)
        return self


def load_text_encoder(
    path_or_repo: str | Path = DEFAULT_TEXT_ENCODER,
    *,
    max_length: int = TEXT_LENGTH,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offload: bool = False,
    cache_dir: str | Path | None = None,
) -> TextEncoder:
    """Load a T5 encoder from a local folder or the Hugging Face hub.

    Args:
        path_or_repo: folder with config, weights and tokenizer files, a repository name, or the name of a packaged
            encoder.
        max_length: tokens kept of a caption.
        device: where it runs.
        dtype: of the weights and the embeddings; the released world models used float32.
        offload: keep the weights on the CPU and bring one block at a time to ``device`` (T5-11B's encoder takes 19 GB
            in float32, one of its blocks 0.8 GB).
        cache_dir: download folder; None: the hub's default.

    Raises:
        InputError: nothing loadable is there.
    """
    from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

    path_or_repo = packaged(path_or_repo, "text_encoder") or path_or_repo
    name, target = text_encoder_name(path_or_repo), torch.device(device)
    if max_length < 1:
        raise InputError(f"max_length={max_length}: expected at least 1 token")
    try:
        options: dict[str, Any] = {"cache_dir": None if cache_dir is None else str(cache_dir)}
        config = AutoConfig.from_pretrained(str(path_or_repo), **options)
        if config.model_type not in ("t5", "mt5", "umt5"):
            raise InputError(
                f"text encoder {str(path_or_repo)!r} is a {config.model_type!r} model; expected a T5 encoder"
            )
        tokenizer = AutoTokenizer.from_pretrained(str(path_or_repo), **options)
        model, loading = T5EncoderModel.from_pretrained(
            str(path_or_repo), dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"text encoder {str(path_or_repo)!r} cannot be loaded: {error}. Expected a folder with config.json, "
            "weights and tokenizer files, or a repository name"
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise InputError(
            f"text encoder {str(path_or_repo)!r}: {len(missing)} weights are missing, for example {missing[:5]}"
        )
    model.eval().requires_grad_(False)
    if offload and target.type != "cpu":
        _offload_blocks(model, target)
    else:
        model.to(target)
    return TextEncoder(model, tokenizer, name=name, max_length=max_length, device=target)


def text_encoder_name(path_or_repo: str | Path) -> str:
    """The name that ``load_text_encoder`` gives an encoder, without loading it.

    Raises:
        InputError: neither a folder nor of the form of a repository name.
    """
    path = located(path_or_repo, "text_encoder")
    if not path.is_dir():
        if path.is_absolute() or str(path_or_repo).count("/") != 1:
            raise InputError(
                f"text encoder {str(path_or_repo)!r} is neither a folder nor a repository name such as "
                f"{DEFAULT_TEXT_ENCODER}"
            )
        return str(path_or_repo)
    digest = hashlib.sha256()
    for name in _HASHED_FILES:
        if (path / name).is_file():
            digest.update((path / name).read_bytes())
    return f"{path.resolve().name}-{digest.hexdigest()[:12]}"


def _offload_blocks(model: nn.Module, device: torch.device) -> None:
    """Keep the weights of the transformer blocks on the CPU; each is on ``device`` during its forward pass alone."""
    blocks: Any = model.encoder.block  # type: ignore[union-attr]
    in_blocks = {id(p) for p in blocks.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in in_blocks:
            parameter.data = parameter.data.to(device)
    for block in blocks:
        # The CPU tensors stay referenced, so that nothing has to be copied back.
        weights = [(parameter, parameter.data) for parameter in block.parameters()]

        def bring(module: nn.Module, _: Any, weights: list[tuple[nn.Parameter, Tensor]] = weights) -> None:
            for parameter, value in weights:
                parameter.data = value.to(device)

        def leave(module: nn.Module, _: Any, __: Any, weights: list[tuple[nn.Parameter, Tensor]] = weights) -> None:
            for parameter, value in weights:
                parameter.data = value

        block.register_forward_pre_hook(bring)
        block.register_forward_hook(leave)


def save_tiny_text_encoder(path: str | Path, width: int = 64, seed: int = 0, *, num_layers: int = 2) -> None:
    """Save a small T5 encoder with random weights and a real tokenizer, for tests and the demo.

    Token embeddings are orthogonal-like random directions, so that a small network can tell words apart. Common words
    of captions are one token each, any other text is spelled in characters and bytes, so every caption has its own
    embedding.

    Args:
        path: folder to write; it appears when complete, and replaces a folder that was saved by this function.
        width: embedding width, a multiple of 8.
        seed: of the weights; the same seed gives the same files.
        num_layers: transformer blocks.
    """
    from transformers import T5Config, T5EncoderModel

    if width % 8:
        raise InputError(f"width={width}: expected a multiple of 8")
    path = Path(path)
    if path.exists() and not (path / "config.json").is_file() and any(path.iterdir()):
        raise InputError(f"{path} exists and is no text encoder: name another folder")
    tokenizer = _tiny_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=num_layers,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        tiny_random_seed=seed,
    )
    with _seeded(seed):
        model = T5EncoderModel(config)
        with torch.no_grad():
            embedding = model.get_input_embeddings().weight
            embedding.copy_(torch.randn(embedding.shape))
    with finished_folder(path) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():
            file.chmod(0o644)


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # A unigram model picks the split with the best sum of scores: a word always beats its characters, these beat
    # bytes.
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", -1.0) for word in dict.fromkeys(_WORDS.split())]
    vocabulary += [(character, -10.0) for character in ["▁", *map(chr, range(33, 127))]]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a fixed seed and give the caller's random state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


_WORDS: str = """
a an the this that of in on at to into onto from over under across above below behind between with without and or while
as is are be it its one two three four five
left right up down upward downward leftward rightward forward backward back away toward towards slowly quickly fast
slow still around clockwise
moves move moving pans pan panning turns turn turning rises falls slides slide sliding drifts rolls spins zooms drives
driving walks walking runs flies rotates follows camera scene view shot video clip
red green blue yellow orange purple white black gray pink cyan brown teal dark light bright
disc square triangle ring diamond cross star circle cube ball
floor wall background ground table checkered striped dotted wavy tiled textured plain
robot arm gripper hand pick picks up put puts place places push pull open close take grasp lift fold pot pan bowl cup
plate spoon fork knife towel cloth drawer pot lid sink stove block banana carrot can bottle box
car road street city house tree sky water person people man woman child dog cat
small large big tiny long short high low fast front top bottom center middle side corner edge
"""
