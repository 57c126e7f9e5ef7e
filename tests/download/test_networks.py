"""The download of released networks, with the hub replaced."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from nemo_cosmos.download import networks
from nemo_cosmos.download.hub import Repository, download_all
from nemo_cosmos.download.networks import diffusion_repositories
from nemo_cosmos.errors import InputError

CONTENT = {"model.pt": b"weights", "config.json": b"{}", "optim.pt": b"not wanted"}
MD5 = {"model.pt": hashlib.md5(b"weights").hexdigest()}


class FakeHub:
    """Files of every repository in memory; a download may break off, as a lost connection does."""

    def __init__(self, content: dict[str, bytes] = CONTENT) -> None:
        self.content = content
        self.break_off_after: int | None = None
        self.fetched: list[str] = []

    def info(self, name: str, *, files_metadata: bool) -> Any:
        assert files_metadata
        files = [SimpleNamespace(rfilename=name, size=len(data)) for name, data in self.content.items()]
        return SimpleNamespace(siblings=files)

    def fetch(self, name: str, *, local_dir: str, allow_patterns: list[str]) -> str:
        for number, (file, data) in enumerate(self.content.items()):
            if file not in allow_patterns:
                continue
            if number == self.break_off_after:
                raise ConnectionError("connection lost")
            path = Path(local_dir) / file
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                self.fetched.append(file)
        return local_dir


def repository(folder: Path) -> Repository:
    return Repository("nvidia/Network", folder / "Network", ("model.pt", "config.json", "README.md"), MD5)


def test_what_is_asked_for() -> None:
    found = diffusion_repositories(["7B", "14B"], ["Video2World", "Text2World-Sample-AV-Multiview"], Path("c"))
    assert [(r.name, str(r.folder)) for r in found] == [
        ("nvidia/Cosmos-Predict1-7B-Video2World", "c/Cosmos-Predict1-7B-Video2World"),
        ("nvidia/Cosmos-Predict1-7B-Text2World-Sample-AV-Multiview",
         "c/Cosmos-Predict1-7B-Text2World-Sample-AV-Multiview"),
        ("nvidia/Cosmos-Predict1-14B-Video2World", "c/Cosmos-Predict1-14B-Video2World"),
        ("nvidia/Cosmos-Tokenize1-CV8x8x8-720p", "c/Cosmos-Tokenize1-CV8x8x8-720p"),
        ("google-t5/t5-11b", "c/google-t5/t5-11b"),
    ]  # fmt: skip
    assert found[0].md5 == {"model.pt": "ebcdb19c4c4a6a0e1e0bb65e346f6867"}
    for sizes, types, message in (
        (["8B"], ["Video2World"], "--model_sizes 8B: expected some of 7B, 14B"),
        (["7B"], ["Image2World"], "--model_types Image2World"),
        (["14B"], ["Video2World-Sample-AV-Multiview"], "in 7B alone"),
    ):
        with pytest.raises(InputError, match=message):
            diffusion_repositories(sizes, types, Path("c"))


def test_sizes_then_download_then_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = FakeHub({**CONTENT, "model.pt": b"weights"})
    download_all([repository(tmp_path)], info=hub.info, fetch=hub.fetch, dry_run=True)
    assert "to download: 0.0 GB" in capsys.readouterr().out
    assert not (tmp_path / "Network").exists()
    hub.break_off_after = 1
    with pytest.raises(InputError, match=r"nvidia/Network cannot be downloaded: ConnectionError: .*again to go on"):
        download_all([repository(tmp_path)], info=hub.info, fetch=hub.fetch)
    hub.break_off_after = None
    download_all([repository(tmp_path)], info=hub.info, fetch=hub.fetch)
    assert hub.fetched == ["model.pt", "config.json"], "what was there is kept, what nobody needs is left out"
    capsys.readouterr()

    def unreachable(*args: object, **options: object) -> Any:
        raise AssertionError("a complete folder needs no hub")

    download_all([repository(tmp_path)], info=unreachable, fetch=unreachable)
    assert "complete" in capsys.readouterr().out


def test_sums_are_compared(tmp_path: Path) -> None:
    hub = FakeHub({**CONTENT, "model.pt": b"wreckage"})
    with pytest.raises(InputError, match=r"Network/model\.pt: MD5 sum differs .* delete it and run again"):
        download_all([repository(tmp_path)], info=hub.info, fetch=hub.fetch)
    download_all([repository(tmp_path)], info=hub.info, fetch=hub.fetch, check_sums=False)


@pytest.mark.parametrize(
    ("token", "status", "kind", "message"),
    [
        (
            None,
            401,
            RepositoryNotFoundError,
            "not logged in: accept its licence at https://huggingface.co/nvidia/Network",
        ),
        ("secret", 403, GatedRepoError, "its licence is not accepted by this account"),
    ],
)
def test_refusals(
    token: str | None, status: int, kind: type, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> Any:
        response = requests.Response()
        response.status_code = status
        raise kind("no", response=response)

    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(InputError, match=message):
        download_all([repository(tmp_path)], info=refuse)


def test_disk_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3))
    with pytest.raises(InputError, match=r"to download, .* free"):
        download_all([repository(tmp_path)], info=FakeHub().info)


def test_script() -> None:
    script = Path(__file__).parents[2] / "tools" / "download_diffusion_checkpoints.py"
    assert len(script.read_text().splitlines()) <= 40
    done = subprocess.run([sys.executable, script, "--model_sizes", "8B"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --model_sizes 8B")
    assert set(networks.MD5) == {f"{s}-{t}" for s in ("7B", "14B") for t in ("Text2World", "Video2World")} | {
        f"7B-{t}World-Sample-AV-Multiview" for t in ("Text2", "Video2")
    }
