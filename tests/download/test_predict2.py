"""Which released files the Predict2 download asks for, and that what arrived is what the hub says."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemo_cosmos.download.hub import Repository, download_all
from nemo_cosmos.download.predict2 import REVISIONS, predict2_repositories
from nemo_cosmos.errors import InputError

SCRIPT = Path(__file__).parents[2] / "tools" / "download_predict2_checkpoints.py"
FILES = {"model.pt": b"weights", "tokenizer/tokenizer.pth": b"vae", "config.json": b"{}", "transformer/x": b"other"}


class Hub:
    """One repository in memory, with the sums that the hub states of large files; ``delivered`` is what it sends."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.delivered = files, dict(files)
        self.revisions: list[str | None] = []
        self.break_off_before: str | None = None

    def info(self, name: str, *, files_metadata: bool, revision: str | None = None) -> Any:
        self.revisions.append(revision)
        large = {"model.pt", "tokenizer/tokenizer.pth"}
        return SimpleNamespace(
            siblings=[
                SimpleNamespace(
                    rfilename=file,
                    size=len(data),
                    lfs=SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if file in large else None,
                )
                for file, data in self.files.items()
            ]
        )

    def fetch(self, name: str, *, local_dir: str, allow_patterns: list[str], revision: str | None = None) -> str:
        self.revisions.append(revision)
        for file, data in self.delivered.items():
            if file == self.break_off_before:
                raise ConnectionError("connection lost")
            path = Path(local_dir) / file
            if any(fnmatch(file, pattern) for pattern in allow_patterns) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return local_dir


def text2image(folder: Path) -> Repository:
    return predict2_repositories(["2B"], ["text2image"], folder)[0]


def test_what_is_asked_for() -> None:
    found = predict2_repositories(["2B", "14B"], ["text2image", "video2world", "multiview"], Path("c"), fps="10")
    assert {r.name.removeprefix("nvidia/Cosmos-Predict2-"): r.required for r in found[:5]} == {
        "2B-Text2Image": ("model.pt", "tokenizer/tokenizer.pth"),
        "2B-Video2World": ("model-720p-10fps.pt", "tokenizer/tokenizer.pth"),
        "2B-Multiview": ("model-720p-10fps-7views-29frames.pt",),
        "14B-Text2Image": ("model.pt", "tokenizer/tokenizer.pth"),
        "14B-Video2World": ("model-720p-10fps.pt", "tokenizer/tokenizer.pth"),
    }
    assert [r.name for r in found[5:]] == [
        "google-t5/t5-11b",
        "nvidia/Cosmos-Guardrail1",
        "meta-llama/Llama-Guard-3-8B",
    ]
    assert all(r.folder == Path("c", r.name) for r in found)
    assert all(r.revision == REVISIONS[r.name.split("/")[1]] for r in found[:5])
    natten = predict2_repositories(["2B"], ["video2world"], Path("c"), natten=True)[0]
    assert natten.required == ("model-720p-16fps.pt", "model-720p-16fps-natten.pt", "tokenizer/tokenizer.pth")
    small = predict2_repositories(["2B"], ["video2world"], Path("c"), resolution="480")[0]
    assert small.required[0] == "model-480p-16fps.pt"


def test_a_network_without_tokenizer_brings_anothers() -> None:
    network, tokenizer, *_ = predict2_repositories(["2B"], ["multiview"], Path("c"))
    assert network.required == ("model-720p-10fps-7views-29frames.pt",)
    assert tokenizer.name == "nvidia/Cosmos-Predict2-2B-Video2World"
    assert tokenizer.required == ("tokenizer/tokenizer.pth",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model_sizes", "7B"), "--model_sizes 7B: expected some of 2B, 14B"),
        (("--model_sizes", "0.6B"), "--model_sizes 0.6B: expected some of 2B, 14B"),
        (("--model_sizes",), "--model_sizes: expected some of 2B, 14B"),
        (("--model_types", "Text2Image"), "--model_types Text2Image: expected some of text2image, video2world,"),
        (("--fps", "24"), "--fps 24: expected some of 10, 16"),
        (("--resolution", "704"), "--resolution 704: expected some of 480, 720"),
        (("--natten", "--resolution", "480"), "720 alone"),
        (("--model_sizes", "14B", "--model_types", "multiview"), "14B multiview: not released; there are 2B text2"),
    ],
)
def test_values_that_were_not_released(arguments: tuple[str, ...], words: str) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and words in done.stderr
    assert done.stderr.count("\n") == 1


def test_pinned_download_that_breaks_off_goes_on(tmp_path: Path) -> None:
    hub, wanted = Hub(FILES), text2image(tmp_path)
    hub.break_off_before = "tokenizer/tokenizer.pth"
    with pytest.raises(InputError, match="run it again to go on"):
        download_all([wanted], info=hub.info, fetch=hub.fetch)
    hub.break_off_before = None
    download_all([wanted], info=hub.info, fetch=hub.fetch)
    here = {str(p.relative_to(wanted.folder)): p.read_bytes() for p in wanted.folder.rglob("*") if p.is_file()}
    assert here == {name: FILES[name] for name in ("model.pt", "tokenizer/tokenizer.pth", "config.json")}
    assert set(hub.revisions) == {REVISIONS["Cosmos-Predict2-2B-Text2Image"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.pt", b"wreckag"), ("model.pt", b"cut"), ("config.json", b"{"), ("tokenizer/tokenizer.pth", None)],
)
def test_files_that_are_not_the_hubs_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    hub = Hub(FILES)
    hub.delivered = {**FILES, name: content} if content is not None else {n: d for n, d in FILES.items() if n != name}
    with pytest.raises(InputError, match=rf"{name}.*run it again"):
        download_all([text2image(tmp_path)], info=hub.info, fetch=hub.fetch)


def test_a_repository_without_the_network_is_named_before_anything_is_fetched(tmp_path: Path) -> None:
    hub = Hub({"config.json": b"{}"})
    with pytest.raises(InputError, match=r"2B-Text2Image: the hub has no model\.pt, tokenizer/tokenizer\.pth there"):
        download_all([text2image(tmp_path)], info=hub.info, fetch=hub.fetch)
    assert not list(tmp_path.iterdir())
