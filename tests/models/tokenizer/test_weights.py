"""Which of the weights in a folder or file a tokenizer is made of."""

from __future__ import annotations

import io
import logging
import pickle
import re
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from nemo_cosmos.checksums import beside
from nemo_cosmos.errors import InputError
from nemo_cosmos.models.tokenizer import TokenizerModule, load_tokenizer
from nemo_cosmos.models.tokenizer.jit import export_jit
from nemo_cosmos.models.tokenizer.weights import load_jit, read_weights, relative_difference
from nemo_cosmos.reconstruct.codec import TokenizerCodec
from tests.models.tokenizer.golden import hash_tensor
from tests.models.tokenizer.released import released_folder, training_checkpoint, two_kinds

VIDEO = hash_tensor((1, 3, 9, 16, 16), 3, 0.5).clamp(-1, 1)


def is_of(module: TokenizerModule, other: TokenizerModule) -> bool:
    return all(torch.equal(value, dict(other.named_parameters())[name]) for name, value in module.named_parameters())


@pytest.fixture
def messages() -> list[str]:
    """What the package says of weights, whatever else listens."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    # Of every file without checksums, and of every program: tests of their own look at those.
    handler.addFilter(lambda record: not re.search("taken unverified|the code in it runs", record.getMessage()))
    package = logging.getLogger("nemo_cosmos")
    before = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    yield lines
    package.removeHandler(handler)
    package.setLevel(before)


Release = tuple[Path, TokenizerModule, TokenizerModule]


@pytest.fixture(scope="module", params=["CV8x8x8-720p", "DV8x16x16-720p"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A whole folder, its regular and its averaged weights."""
    return released_folder(tmp_path_factory.mktemp("release"), request.param)


@pytest.mark.parametrize(
    ("files", "read"),
    [
        ("encoder decoder autoencoder model", "weights of {0}/encoder.jit and {0}/decoder.jit"),
        ("encoder decoder", "weights of {0}/encoder.jit and {0}/decoder.jit"),
        ("model autoencoder", "averaged weights of {0}/model.pt"),
        ("model", "averaged weights of {0}/model.pt"),
        ("encoder model", "averaged weights of {0}/model.pt"),
        ("decoder autoencoder", "weights of {0}/autoencoder.jit"),
    ],
)
def test_a_released_folder_gives_the_averaged_weights(
    files: str, read: str, release: Release, tmp_path: Path, messages: list[str]
) -> None:
    folder, averaged = tmp_path / release[0].name, release[2]
    shutil.copytree(release[0], folder)
    for file in folder.iterdir():
        if file.stem not in (*files.split(), "config"):
            file.unlink()
    tokenizer = load_tokenizer(folder)
    assert is_of(tokenizer.module, averaged)
    assert any(line.endswith(read.format(folder)) for line in messages), messages
    codec = TokenizerCodec.from_weights([folder], name=tokenizer.name, dtype=torch.float32)
    for found, expected in zip(codec.encode(VIDEO), encoded(tokenizer.module), strict=True):
        assert torch.equal(found, expected)
    assert sum("is missing" in line for line in messages) == 2 * (files.split()[0] != "model" and "and" not in read)


def encoded(module: TokenizerModule) -> tuple[torch.Tensor, ...]:
    answer = module.encode(VIDEO)
    return (answer,) if isinstance(answer, torch.Tensor) else answer


def test_the_regular_weights_are_others_and_for_those_who_ask(
    release: Release, tmp_path: Path, messages: list[str]
) -> None:
    regular, averaged = release[1:]
    folder = shutil.copytree(release[0], tmp_path / release[0].name)
    right, wrong = load_tokenizer(folder), load_tokenizer(folder, regular=True)
    assert is_of(wrong.module, regular.bfloat16().float())
    assert messages[-1].endswith(f"regular weights of {folder}/model.pt")
    assert 0.01 < relative_difference(regular.to_original(), averaged.to_original()) < 0.03
    first, second = (t.module.quant_conv(t.module.encoder(VIDEO)) for t in (right, wrong))
    assert (first - second).norm() / first.norm() > 0.02, "the two kinds encode differently"
    assert right.identity != wrong.identity
    (folder / "model.pt").unlink()
    with pytest.raises(InputError, match=r"no regular weights, only weights of .*encoder\.jit and "):
        load_tokenizer(folder, regular=True)


def test_torchscript_files_run_as_the_folder_loads(release: Release) -> None:
    folder = release[0]
    module = load_tokenizer(folder).module
    files = {part: folder / f"{part}.jit" for part in ("encoder", "decoder")}
    for codec in (
        TokenizerCodec.from_jit(**files, dtype=torch.float32),
        TokenizerCodec.from_jit(full=folder, dtype=torch.float32),
        TokenizerCodec.from_weights(
            [folder / "model.pt"], name=release[0].name.partition("1-")[2], dtype=torch.float32
        ),
    ):
        for found, expected in zip(codec.encode(VIDEO), encoded(module), strict=True):
            assert torch.equal(found, expected)


def test_regular_weights_alone_are_used_and_named(tmp_path: Path, messages: list[str]) -> None:
    folder, regular, averaged = released_folder(tmp_path, parts=("autoencoder",))
    torch.save(training_checkpoint(regular, None), folder / "model.pt")
    assert is_of(load_tokenizer(folder).module, averaged), "autoencoder.jit is of the averaged weights"
    (folder / "autoencoder.jit").unlink()
    assert is_of(load_tokenizer(folder).module, regular.bfloat16().float())
    assert messages[-1].endswith(f"weights of {folder}/model.pt")


def test_each_torchscript_file_is_named_once_before_its_code_can_run(
    release: Release, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(release[0], tmp_path / release[0].name)
    with caplog.at_level(logging.INFO, logger="nemo_cosmos"):
        load_tokenizer(folder)
        load_tokenizer(folder)
        TokenizerCodec.from_jit(full=folder / "autoencoder.jit", dtype=torch.float32)
        (folder / "other.jit").write_bytes(b"no archive")
        with pytest.raises(InputError):
            load_jit(folder / "other.jit")
    said = [line for line in caplog.messages if "the code in it runs" in line]
    assert [line.partition(": ")[2] for line in said] == [
        f"{folder}/encoder.jit and {folder}/decoder.jit",
        f"{folder}/autoencoder.jit",
        f"{folder}/other.jit",
    ]


def test_half_a_pair(tmp_path: Path) -> None:
    folder, regular, averaged = released_folder(tmp_path, parts=("encoder",))
    torch.save(training_checkpoint(regular, None), folder / "model.pt")
    with pytest.raises(
        InputError, match=r"decoder.jit is missing, and the weights of .*model.pt differ by \d.\d% from"
    ):
        load_tokenizer(folder)
    (folder / "model.pt").unlink()
    with pytest.raises(InputError, match=r"no weights; .*\(decoder.jit is missing beside encoder.jit\)"):
        load_tokenizer(folder)
    export_jit(averaged, {"encoder": folder / "decoder.jit"})
    with pytest.raises(
        InputError, match=r"decoder\.jit: expected the decoder's file alone, this one holds an encoder"
    ):
        load_tokenizer(folder)
    (folder / "decoder.jit").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"decoder\.jit: damaged, found 42 bytes, expected"):
        load_tokenizer(folder)
    beside(folder / "decoder.jit").unlink()
    with pytest.raises(InputError, match=r"decoder\.jit: not a TorchScript file"):
        load_tokenizer(folder)


def test_a_pair_that_is_not_of_model_pt_is_said_aloud(tmp_path: Path, messages: list[str]) -> None:
    folder, regular, averaged = released_folder(tmp_path)
    load_tokenizer(folder)
    assert len(messages) == 1, "a released folder is nothing to warn of"
    export_jit(averaged.bfloat16(), {"encoder": folder / "encoder.jit"})
    load_tokenizer(folder)
    assert len(messages) == 2, "nor is the rounding of a file in bf16"
    export_jit(regular, {"decoder": folder / "decoder.jit"})
    tokenizer = load_tokenizer(folder)
    assert "averaged weights of" in messages[2] and "% from decoder.jit; the pair is used" in messages[2]
    assert torch.equal(tokenizer.module.decoder.conv_out[0].conv3d.bias, regular.decoder.conv_out[0].conv3d.bias)
    (folder / "model.pt").write_bytes(b"cut")
    load_tokenizer(folder)
    assert "not a readable tensor file" in messages[4] and "is not needed beside" in messages[4]


@pytest.mark.parametrize(
    ("name", "average"),
    [
        ("plain", None),
        ("network.", "ema.network-{dashes}"),
        ("net.", "net_ema.{}"),
        ("model.net.", "model.net_ema.{}"),
        ("module.network.", "dictionary"),
        ("_orig_mod.", None),
    ],
)
def test_files_as_they_are_in_the_wild(name: str, average: str | None, tmp_path: Path) -> None:
    """Wrapped or not, in bf16 or fp32, with entries that are no weights: the averaged weights are found."""
    regular, averaged = two_kinds("DV4x8x8-360p")
    prefix = "" if name == "plain" else name
    model: OrderedDict = OrderedDict((f"{prefix}{k}", nn.Parameter(v)) for k, v in regular.named_parameters())
    model[f"{prefix}quantizer._levels"] = regular.quantizer._levels
    odd = {"a._extra_state": None, "b._extra_state": io.BytesIO(b"\x80\xff"), "c._extra_state": torch.zeros(3).byte()}
    model |= {f"{prefix}{key}": value for key, value in odd.items()} | {"step": 7}
    content: dict = {"model": model, "iteration": 3}
    ema = {k: v.bfloat16() for k, v in averaged.named_parameters()}
    if average == "dictionary":
        content["ema"] = ema
    elif average is not None:
        model |= {average.format(k, dashes=k.replace(".", "-")): v for k, v in ema.items()}
        model["ema.num_updates"] = torch.tensor(3)
    torch.save(content, tmp_path / "model.pt")
    weights = read_weights(tmp_path / "model.pt")
    expected = regular if average is None else averaged.bfloat16().float()
    module = two_kinds("DV4x8x8-360p", 0.5)[1]
    report = module.load_original(weights.state)
    assert report.complete and is_of(module, expected)
    assert weights.odd == 4 + (average not in (None, "dictionary"))
    assert f"({weights.odd} entries that are no weights passed over)" in str(weights)
    assert "quantizer._levels" in weights.state
    module.load_original(read_weights(tmp_path / "model.pt", regular=True).state)
    assert is_of(module, regular)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('was run')",))


def test_no_file_is_unpickled_freely(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"model": {"encoder.x": torch.zeros(1), "b._extra_state": Evil()}}, file)
    with pytest.raises(InputError, match=r"model\.pt: not a readable tensor file .it holds .*exec, which is not"):
        read_weights(file)
    # What a BytesIO holds is not looked into.
    torch.save({"a": torch.zeros(1), "a._extra_state": io.BytesIO(pickle.dumps(Evil()))}, file)
    assert read_weights(file).odd == 1
    torch.save({"net.a": torch.zeros(1), "a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="holds a twice, the second time as a"):
        read_weights(file)
    torch.save({"a": None}, file)
    with pytest.raises(InputError, match="expected a state dict of tensors"):
        read_weights(file)
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], [torch.zeros(5), torch.zeros(16)], None])
def test_statistics_that_are_none(content: object, tmp_path: Path) -> None:
    folder, *_ = released_folder(tmp_path, parts=())
    torch.save(content, folder / "mean_std.pt")
    with pytest.raises(InputError, match=r"mean_std.pt: expected the pair \(mean, std\)"):
        load_tokenizer(folder)
    (folder / "latent_stats.json").write_text('{"mean": 3')
    with pytest.raises(InputError, match=r"latent_stats\.json: expected the lists mean and std"):
        load_tokenizer(folder)
