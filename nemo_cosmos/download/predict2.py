"""Released Predict2 networks with their video tokenizer, the text encoder, and what the guardrails read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nemo_cosmos.download.hub import Repository
from nemo_cosmos.download.networks import TEXT_FILES
from nemo_cosmos.errors import InputError

SIZES = ("2B", "14B")
TYPES = ("text2image", "video2world", "multiview", "sample_gr00t_dreams_gr1", "sample_gr00t_dreams_droid")
DEFAULT_TYPES = TYPES[:3]
RATES, RESOLUTIONS = ("10", "16"), ("480", "720")
NETWORKS = {
    "2B text2image": "Cosmos-Predict2-2B-Text2Image",
    "14B text2image": "Cosmos-Predict2-14B-Text2Image",
    "2B video2world": "Cosmos-Predict2-2B-Video2World",
    "14B video2world": "Cosmos-Predict2-14B-Video2World",
    "2B multiview": "Cosmos-Predict2-2B-Multiview",
    "14B sample_gr00t_dreams_gr1": "Cosmos-Predict2-14B-Sample-GR00T-Dreams-GR1",
    "14B sample_gr00t_dreams_droid": "Cosmos-Predict2-14B-Sample-GR00T-Dreams-DROID",
}
"""What was released: size and type -> repository of nvidia's."""
REVISIONS = {
    "Cosmos-Predict2-2B-Text2Image": "acdb5fde992a73ef0355f287977d002cbfd127e0",
    "Cosmos-Predict2-14B-Text2Image": "015332720f70dd7b497c1cff9fd0c936a77f160b",
    "Cosmos-Predict2-2B-Video2World": "f50c09f5d8ab133a90cac3f4886a6471e9ba3f18",
    "Cosmos-Predict2-14B-Video2World": "03b03a377fede782647afac998f674d9f358e319",
    "Cosmos-Predict2-2B-Multiview": "52f3731663eecdc998d9608f9b21ac4dcbdea6f1",
}
"""The commits that the networks of this package were compared with."""
TEXT_ENCODER, TEXT_REVISION = "google-t5/t5-11b", "90f37703b3334dfe9d2b009bfcbfbf1ac9d28ea3"
TOKENIZER = "tokenizer/tokenizer.pth"
GUARDRAIL, LLAMA_GUARD = "nvidia/Cosmos-Guardrail1", "meta-llama/Llama-Guard-3-8B"
_TEXTS = ("README.md", "config.json")
_LLAMA_FILES = ("*.json", "*.safetensors", "*.txt", "*.md")
"""Without the weights in ``original/``, which are the same once more."""


def predict2_repositories(
    sizes: Sequence[str],
    types: Sequence[str],
    folder: Path,
    *,
    fps: str = "16",
    resolution: str = "720",
    natten: bool = False,
) -> list[Repository]:
    """The networks of every size and type asked for, then text encoder and guardrails; each at ``folder/REPOSITORY``.

    Combinations that were not released are passed over.

    Args:
        sizes: of :data:`SIZES`.
        types: of :data:`TYPES`.
        folder: parent of the folders.
        fps: rate of the video networks, of :data:`RATES`.
        resolution: rows of the video networks, of :data:`RESOLUTIONS`.
        natten: also the video networks with sparse attention, which there are for 720 rows.

    Raises:
        InputError: an unknown value, or none of the combinations was released.
    """
    for flag, asked, known in (
        ("--model_sizes", sizes, SIZES),
        ("--model_types", types, TYPES),
        ("--fps", [fps], RATES),
        ("--resolution", [resolution], RESOLUTIONS),
    ):
        _require_known(flag, asked, known)
    if natten and resolution != "720":
        raise InputError(f"--natten --resolution {resolution}: sparse attention was released for 720 alone")
    files = [f"model-{resolution}p-{fps}fps.pt"] + [f"model-720p-{fps}fps-natten.pt"] * natten
    wanted = dict.fromkeys(f"{size} {kind}" for size in sizes for kind in types)
    networks = [_network(name, NETWORKS[name], files, folder) for name in wanted if name in NETWORKS]
    if networks and not any(TOKENIZER in network.patterns for network in networks):
        networks.append(_network("tokenizer", NETWORKS["2B video2world"], [], folder))
    if not networks:
        raise InputError(f"{', '.join(wanted)}: not released; there are {', '.join(NETWORKS)}")
    return [
        *networks,
        Repository(TEXT_ENCODER, folder / TEXT_ENCODER, TEXT_FILES, revision=TEXT_REVISION, required=("config.json",)),
        Repository(GUARDRAIL, folder / GUARDRAIL, ("*",)),
        Repository(LLAMA_GUARD, folder / LLAMA_GUARD, _LLAMA_FILES),
    ]


def _network(name: str, repository: str, video_files: Sequence[str], folder: Path) -> Repository:
    """The files of a network and its tokenizer; the multiview network comes without, and takes another's."""
    kind = name.split()[-1]
    patterns: tuple[str, ...]
    required: tuple[str, ...]
    if kind.startswith("sample"):  # How their files are called is not published; the folders hold one network each.
        patterns, required = ("*.pt", TOKENIZER), ()
    elif kind == "multiview":
        patterns = required = ("model-720p-10fps-7views-29frames.pt",)
    else:
        patterns = required = (*(["model.pt"] if kind == "text2image" else video_files), TOKENIZER)
    return Repository(
        f"nvidia/{repository}",
        folder / "nvidia" / repository,
        (*patterns, *_TEXTS),
        revision=REVISIONS.get(repository),
        required=required,
    )


def _require_known(flag: str, asked: Iterable[str], known: Sequence[str]) -> None:
    asked = list(asked)
    if not asked:
        raise InputError(f"{flag}: expected some of {', '.join(known)}")
    for value in asked:
        if value not in known:
            raise InputError(f"{flag} {value}: expected some of {', '.join(known)}")
