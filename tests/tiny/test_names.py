"""What the names of packaged weights mean, wherever a model is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nemo_cosmos import tiny
from nemo_cosmos.checkpoint import load_network, network_config
from nemo_cosmos.checkpoint.sources import open_weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.places import find_adapters, find_network, find_tokenizer, text_encoder_for, tokenizer_for
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.dit.state_dict import original_shapes
from nemo_cosmos.models.text import load_text_encoder, text_encoder_name
from nemo_cosmos.models.tokenizer import load_tokenizer
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.tiny import PARTS, TINY, packaged
from nemo_cosmos.training.tokenizer.export import open_source
from tests.tiny.model import NETWORKS


def test_the_name_alone_means_what_is_asked_for(here: Path, weights: Path) -> None:
    assert packaged(TINY) == weights
    for part, name in PARTS.items():
        assert (
            packaged(TINY, part) == packaged(f"{TINY}/{name}") == packaged(Path(TINY) / name, part) == weights / name
        )


@pytest.mark.parametrize("name", ["nvidia/Cosmos", "nemo-cosmos-tinyx", f"./x/{TINY}", f"/{TINY}", "", TINY.upper()])
def test_other_names_are_left_to_others(name: str, here: Path) -> None:
    assert packaged(name, "network") is None


@pytest.mark.parametrize("rest", ["Cosmos-Predict1-7B-Video2World", "../__init__.py", f"{NETWORKS[0]}/.."])
def test_a_model_that_is_not_in_the_package_is_an_error_that_lists_them(rest: str, here: Path) -> None:
    with pytest.raises(InputError, match=f"{TINY}/Cosmos-Predict1-Tiny-Text2World"):
        packaged(f"{TINY}/{rest}")
    with pytest.raises(InputError, match="no such model"):
        find_network(f"{TINY}/{rest}", None)


def test_what_is_in_the_current_directory_comes_first(here: Path, weights: Path) -> None:
    (here / TINY).mkdir()
    assert packaged(TINY, "network") is None and find_tokenizer(TINY) == Path(TINY)
    name = f"{TINY}/{PARTS['network']}"
    assert packaged(name) is None and find_network(name, None) == (Path(name), None)
    with pytest.raises(InputError, match="no checkpoint"):
        open_weights(TINY)
    shutil.copytree(weights / PARTS["network"], here / name)
    assert find_network(name, None) == (Path(name) / "model.pt", "predict1-tiny-video2world")


def test_an_installation_without_weights_says_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "FOLDER", here / "gone")
    for look in (find_tokenizer, open_weights, open_tokenizer, load_text_encoder, load_tokenizer):
        with pytest.raises(InputError, match="install nemo_cosmos again"):
            look(TINY)  # type: ignore[operator]
    with pytest.raises(InputError, match="no such model"):
        monkeypatch.undo()
        find_adapters(f"{TINY}/adapters")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_layout_of_released_ones(name: str, here: Path, weights: Path) -> None:
    file = weights / name / "model.pt"
    state = torch.load(file, weights_only=True)
    path, preset = find_network(f"{TINY}/{name}", None)
    assert path == file and preset is not None
    config = DiTConfig.preset(preset)
    assert network_config(f"{TINY}/{name}") == open_weights(weights / name).config == config
    keys = {key.removeprefix("net.") for key in state if not key.startswith("logvar.")}
    assert all(key.startswith(("net.", "logvar.")) for key in state) and set(original_shapes(config)) <= keys
    assert {tensor.dtype for key, tensor in state.items() if key.removeprefix("net.") in original_shapes(config)} == {
        torch.bfloat16
    }
    net = load_network(f"{TINY}/{name}")
    report = net.load_original({key: value for key, value in state.items() if key.startswith("net.")}, strict=True)
    assert report.complete


def test_tokenizer_and_text_encoder_are_read_everywhere(here: Path, weights: Path) -> None:
    folder = weights / PARTS["tokenizer"]
    identities = {
        str(load_tokenizer(folder).identity), str(load_tokenizer(TINY).identity), str(open_tokenizer(TINY).identity),
        str(open_source(Path(TINY), name=None, regular=False).identity),
    }  # fmt: skip
    assert len(identities) == 1
    tokenizer = open_tokenizer(TINY)
    assert (tokenizer.temporal_compression, tokenizer.spatial_compression, tokenizer.latent_channels) == (4, 8, 16)
    encoder = load_text_encoder(TINY, max_length=64)
    assert encoder.width == 64 and encoder.name == text_encoder_name(TINY)
    assert encoder.name == text_encoder_name(weights / PARTS["text_encoder"])


def test_a_tokenizer_is_chosen_for_packaged_networks_alone(here: Path, weights: Path) -> None:
    model = f"{TINY}/{NETWORKS[2]}"
    assert tokenizer_for(model, None) == weights / PARTS["tokenizer"]
    assert text_encoder_for(model, None) == str(weights / PARTS["text_encoder"])
    assert text_encoder_for("run", None) == "google-t5/t5-11b" and text_encoder_for(model, "a/b") == "a/b"
    with pytest.raises(InputError, match="name the tokenizer of run"):
        tokenizer_for("run", None)
