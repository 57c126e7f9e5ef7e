"""An sdist holds what the wheel is built from, and the wheel what the command needs, without this checkout."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nemo_cosmos.tiny import FOLDER, PARTS
from tests.test_dependencies import PROJECT
from tests.tiny.model import NETWORKS

ROOT = Path(__file__).parents[1]
WEIGHTS = (
    "README.md",
    "LICENSE",
    "training_list.json",
    *(f"{name}/model.pt" for name in NETWORKS),
    *(f"{PARTS['tokenizer']}/{name}" for name in ("config.json", "model.safetensors", "latent_stats.json")),
    *(f"{PARTS['text_encoder']}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")),
)
"""What is read of the packaged model, at the least."""
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")


def build(kind: str, source: Path, target: Path) -> Path:
    """What the build backend makes of a source folder, as pip calls it."""
    target.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (made,) = target.iterdir()
    return made


def link_package(folder: Path) -> None:
    """The package, file by file; where it has no weights yet, files of their names stand in."""
    folder.mkdir()
    for path in (ROOT / "nemo_cosmos").iterdir():
        if path.name != "tiny":
            (folder / path.name).symlink_to(path)
    (folder / "tiny").mkdir()
    for path in (ROOT / "nemo_cosmos" / "tiny").iterdir():
        (folder / "tiny" / path.name).symlink_to(path)
    if not FOLDER.is_dir():
        for name in WEIGHTS:
            (folder / "tiny" / "checkpoints" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tiny" / "checkpoints" / name).write_text(name)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    (folder / "source").mkdir()
    for name in (*FILES, "conf"):
        (folder / "source" / name).symlink_to(ROOT / name)
    link_package(folder / "source" / "nemo_cosmos")
    with tarfile.open(build("sdist", folder / "source", folder / "made")) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.name.startswith("nemo_cosmos-"))


@pytest.fixture(scope="module")
def site(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of that sdist, installed."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build("wheel", sdist, folder / "made")) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def files(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if "__pycache__" not in path.parts}


@pytest.mark.parametrize("pattern", ["*.yaml", "*.py", "*.html", "*.json"])
def test_nothing_is_missing(pattern: str, sdist: Path, site: Path) -> None:
    assert files(ROOT / "conf", pattern) == files(sdist / "conf", pattern)
    assert files(ROOT / "conf", pattern) == files(site / "nemo_cosmos/conf", pattern)
    code = files(ROOT / "nemo_cosmos", pattern)
    assert code <= files(sdist / "nemo_cosmos", pattern)
    assert code <= files(site / "nemo_cosmos", pattern)


def test_the_weights_are_in_both(sdist: Path, site: Path) -> None:
    there = files(FOLDER, "*") if FOLDER.is_dir() else set(WEIGHTS)
    assert set(WEIGHTS) <= there
    for folder in (sdist, site):
        checkpoints = folder / "nemo_cosmos" / "tiny" / "checkpoints"
        assert {name for name in files(checkpoints, "*") if (checkpoints / name).is_file()} == {
            name for name in there if not (FOLDER / name).is_dir()
        }


def test_the_command_and_the_plugin_are_declared(site: Path) -> None:
    declared = configparser.ConfigParser()
    declared.read(next(site.glob("*.dist-info")) / "entry_points.txt")
    assert dict(declared["console_scripts"]) == PROJECT["scripts"]
    assert dict(declared["nemo_run.cli"]) == PROJECT["entry-points"]["nemo_run.cli"]


def test_an_installed_wheel_has_its_experiments(site: Path, tmp_path: Path) -> None:
    # In front of what the environment itself puts on the path, such as this checkout.
    first = f"import sys; sys.path.insert(0, {str(site)!r});"
    code = (
        f"{first} import nemo_cosmos.conf, nemo_cosmos.recipes; from nemo_cosmos.config import *;"
        "print(conf_folder()); print(load_config(TrainConfig, ['experiment=demo_video2world']).model.preset);"
        "print('demo_tokenizer' in dir(nemo_cosmos.recipes))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(site / "nemo_cosmos/conf"), "predict1-tiny-video2world", "True"]
    command = [sys.executable, "-c", f"{first} from nemo_cosmos.cli import main; main()"]
    words = ["train", "--dryrun", "experiment=demo_video2world", "seed=5"]
    done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "seed: 5" in done.stdout
