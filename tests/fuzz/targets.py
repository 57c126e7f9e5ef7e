"""What is fuzzed: a reader, the folder it reads, and the file in it that is changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from nemo_cosmos.camera.colmap import read_colmap
from nemo_cosmos.camera.trajectories import read_trajectory
from nemo_cosmos.checkpoint.diffusers import DiffusersWeights, config_from_diffusers
from nemo_cosmos.checkpoint.distributed import DistributedCheckpoint
from nemo_cosmos.checkpoint.files import latest_step, read_tensors
from nemo_cosmos.checkpoint.lora import read_adapter
from nemo_cosmos.checkpoint.sources import read_model_config
from nemo_cosmos.checkpoint.store import read_common
from nemo_cosmos.checksums import seal_folder, verify
from nemo_cosmos.compose import read_config
from nemo_cosmos.config import TrainConfig, dump_config
from nemo_cosmos.data.embeddings import read_embedding
from nemo_cosmos.data.manifest import read_index
from nemo_cosmos.data.record import read_data_record
from nemo_cosmos.data.shards import ShardDataset, decode_sample, encode_sample
from nemo_cosmos.errors import InputError
from nemo_cosmos.inference.config import GenerationConfig, weight_defaults
from nemo_cosmos.inference.requests import requests_from_jsonl
from nemo_cosmos.models.dit import DiTConfig
from nemo_cosmos.models.tokenizer.config import TokenizerConfig
from nemo_cosmos.models.tokenizer.pretrained import _read_config, _read_statistics, _resolve_config
from nemo_cosmos.models.tokenizer.weights import read_weights
from nemo_cosmos.models.video_tokenizer import open_tokenizer
from nemo_cosmos.typed import read_object
from tests.camera.pose_files import write_colmap_binary, write_colmap_text, write_transforms
from tests.camera.test_rays import walk
from tests.models.wan import save_tiny_wan_vae, synthetic_weights
from tests.training.shards import write_shards


@dataclass(frozen=True)
class Target:
    """``make`` fills a folder; ``read`` reads it, of which ``files`` are changed one at a time."""

    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], object]


def _tokenizer(folder: Path) -> None:
    config = TokenizerConfig.preset("CV4x8x8-360p", channels=4, latent_channels=1)
    values = {"format": "nemo_cosmos.tokenizer", "config": config.as_dict(), "sha256": "", "metadata": {}}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "latent_stats.json").write_text(json.dumps({"mean": [[0.0, 0.5]], "std": [[1.0, 2.0]]}))
    save_file({"encoder.w": torch.ones(2, 3), "decoder.w": torch.ones(2)}, folder / "model.safetensors")


def _wan_original(folder: Path) -> None:
    torch.save(synthetic_weights(2), folder / "tokenizer.pth")


def _read_tokenizer(folder: Path) -> None:
    values = _read_config(folder / "config.json")
    state = read_weights(folder).state
    _read_statistics(folder, _resolve_config(values, state, folder))


def _shards(folder: Path) -> None:
    write_shards(folder / "shards", count=2, shape=(2, 4, 4))


def _read_shards(folder: Path) -> None:
    dataset = ShardDataset(folder / "shards")
    for number in range(min(len(dataset), 4)):
        dataset[number]


def _read_changed_index(folder: Path) -> None:
    """With the checksum that the manifest would have for it: a made-up folder has fitting ones."""
    index = folder / "shards/shard-0000-000000.index.json"
    read_index(index)
    manifest = json.loads((folder / "shards/manifest.json").read_text())
    manifest["shards"][0]["index_sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
    (folder / "shards/manifest.json").write_text(json.dumps(manifest))
    _read_shards(folder)


def _record(folder: Path) -> None:
    _shards(folder)
    for name, content in zip(("tensors", "record"), encode_sample(ShardDataset(folder / "shards")[0]), strict=True):
        (folder / name).write_bytes(content)


def _pickle(folder: Path) -> None:
    (folder / "a.pickle").write_bytes(pickle.dumps([np.ones((3, 4), np.float16)], protocol=4))
    (folder / "b.pickle").write_bytes(pickle.dumps([np.ones((3, 4), np.float32)], protocol=2))


def _save(folder: Path) -> None:
    dcp.save({"a.b": torch.ones(4, 4), "ema.a.b": torch.ones(3)}, checkpoint_id=folder / "weights", no_dist=True)
    torch.save({"step": 3, "buffers": {"x": torch.ones(2)}, "names": ["a"]}, folder / "common.pt")


def _read_save(folder: Path) -> None:
    checkpoint = DistributedCheckpoint(folder)
    for name in checkpoint:
        _touch({name: checkpoint[name]})
    read_common(folder)


def _weights(folder: Path) -> None:
    state = {"net.a": torch.ones(3, 3), "net_ema.a": torch.ones(3, 3).bfloat16(), "logvar.0": torch.ones(2)}
    torch.save({"model": state, "_extra_state": None}, folder / "model.pt")
    torch.save({"net.a": torch.ones(3)}, folder / "old.pt", _use_new_zipfile_serialization=False)


def _touch(state: Mapping[str, torch.Tensor]) -> None:
    """Look at every value, as loading them does."""
    for tensor in state.values():
        tensor.float().isfinite().all()


def _settings(folder: Path) -> None:
    (folder / "model_config.json").write_text(json.dumps(DiTConfig.preset("tiny-video2world").to_dict()))
    config = TrainConfig(experiment="x", group="g")
    config.model.preset, config.data.path = "tiny-video2world", "shards"
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "latest_checkpoint.txt").write_text("iter_000000003.pt\n")
    (folder / "data.json").write_text(json.dumps({"path": "a", "digest": "0", "samples": 3, "fps": [24.0]}))
    lines = [{"prompt": "a cup", "name": "x", "seed": 3}, {"prompt": "b", "visual_input": "a.mp4"}]
    (folder / "batch.jsonl").write_text("\n".join(map(json.dumps, lines)))


def _diffusers(folder: Path) -> None:
    (folder / "transformer").mkdir()
    values = {"_class_name": "CosmosTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 16,
              "num_layers": 1, "in_channels": 17, "out_channels": 16, "patch_size": [1, 2, 2],
              "max_size": [128, 240, 240], "rope_scale": [2.0, 1.0, 1.0],
              "extra_pos_embed_type": "learnable"}  # fmt: skip
    (folder / "transformer/config.json").write_text(json.dumps(values))
    weights = "diffusion_pytorch_model.safetensors"
    save_file({"x": torch.ones(2, 2)}, folder / "transformer" / weights)
    index = {"metadata": {"total_size": 16}, "weight_map": {"x": weights}}
    (folder / f"transformer/{weights}.index.json").write_text(json.dumps(index))


def _adapter(folder: Path) -> None:
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4.0, "target_modules": ["to_q"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file({"base_model.model.a.lora_A.weight": torch.ones(2, 4)}, folder / "adapter_model.safetensors")


def _sealed(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"weights")
    seal_folder(folder)


def _verify_changed_manifest(folder: Path) -> None:
    """As it is, and with its own checksum renewed: a made-up one has a fitting one."""
    manifest = folder / "checksums.json"
    with contextlib.suppress(InputError):
        verify(folder, "full")
    values = read_object(manifest)
    if isinstance(table := values.get("files"), dict):
        crc = zlib.crc32(json.dumps(table, sort_keys=True).encode())
        manifest.write_text(json.dumps({**values, "self": f"{crc:08x}"}))
    verify(folder, "full")


def _generation(folder: Path) -> None:
    """A run's settings, of which generation takes its defaults."""
    _settings(folder)
    (folder / "checkpoints").mkdir()
    (folder / "model_config.json").rename(folder / "checkpoints/model_config.json")
    write_shards(folder / "shards", count=2, shape=(2, 4, 4))
    settings = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(settings.replace("path: shards", f"path: {folder / 'shards'}"))


def _poses(folder: Path) -> None:
    cameras = walk(5)
    write_transforms(folder / "transforms.json", cameras, k1=0.01)
    lines = ["# axes: opengl", "time,x,y,z,qw,qx,qy,qz,fx,fy,cx,cy,width,height"]
    lines += [f"{i / 7},{i},0,-1.5,1,0,0,0,80,75,40,36,96,64" for i in range(5)]
    (folder / "poses.csv").write_text("\n".join(lines))
    write_colmap_text(folder / "text", cameras)
    write_colmap_binary(folder / "binary", cameras)


TARGETS: dict[str, Target] = {
    "poses": Target(
        _poses,
        ("transforms.json", "poses.csv"),
        lambda folder: [
            read_trajectory(folder / name, 3, (32, 48), fps=7) for name in ("transforms.json", "poses.csv")
        ],
    ),
    "colmap": Target(
        _poses,
        ("text/cameras.txt", "text/images.txt", "binary/cameras.bin", "binary/images.bin"),
        lambda folder: [read_colmap(folder / name) for name in ("text", "binary")],
    ),
    "checksums": Target(_sealed, ("checksums.json",), _verify_changed_manifest),
    "generation": Target(
        _generation,
        ("config.yaml", "shards/manifest.json"),
        lambda folder: weight_defaults(folder, GenerationConfig(num_steps=2)),
    ),
    "manifest": Target(_shards, ("shards/manifest.json",), _read_shards),
    "index": Target(_shards, ("shards/shard-0000-000000.index.json",), _read_changed_index),
    "record": Target(
        _record,
        ("tensors", "record"),
        lambda folder: decode_sample((folder / "tensors").read_bytes(), (folder / "record").read_bytes(), "sample"),
    ),
    "pickle-4": Target(_pickle, ("a.pickle",), lambda folder: read_embedding(folder / "a.pickle")),
    "pickle-2": Target(_pickle, ("b.pickle",), lambda folder: read_embedding(folder / "b.pickle")),
    "save": Target(_save, ("weights/.metadata", "weights/.metadata", "weights/__0_0.distcp", "common.pt"), _read_save),
    "weights": Target(_weights, ("model.pt",), lambda folder: _touch(read_tensors(folder / "model.pt"))),
    "old-weights": Target(_weights, ("old.pt",), lambda folder: _touch(read_tensors(folder / "old.pt"))),
    "tokenizer": Target(_tokenizer, ("config.json", "latent_stats.json", "model.safetensors"), _read_tokenizer),
    "wan-vae": Target(
        save_tiny_wan_vae, ("config.json", "config.json", "diffusion_pytorch_model.safetensors"), open_tokenizer
    ),
    "wan-original": Target(_wan_original, ("tokenizer.pth",), open_tokenizer),
    "model_config": Target(_settings, ("model_config.json",), read_model_config),
    "config": Target(_settings, ("config.yaml",), lambda folder: read_config(TrainConfig, folder / "config.yaml")),
    "batch": Target(_settings, ("batch.jsonl",), lambda folder: requests_from_jsonl(folder / "batch.jsonl")),
    "run": Target(
        _settings,
        ("latest_checkpoint.txt", "data.json"),
        lambda folder: (latest_step(folder), read_data_record(folder)),
    ),
    "diffusers": Target(
        _diffusers,
        (
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            "transformer/diffusion_pytorch_model.safetensors",
        ),
        lambda folder: _touch(_all_of(DiffusersWeights(folder, config_from_diffusers(folder)))),
    ),
    "adapter": Target(
        _adapter,
        ("adapter_config.json", "adapter_model.safetensors"),
        lambda folder: _touch(read_adapter(folder)[1]),
    ),
}


def _all_of(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weights[name] for name in weights}
