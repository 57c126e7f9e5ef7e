"""Shards of training records: WebDataset tar files with an index for random access.

A sample with key K is two members of a tar file: ``K.safetensors`` (latent, text and the optional tensors) and
``K.json`` (caption, frame rate, sizes). There is no pickle. Bytes depend on the samples alone: members carry no time
stamp or owner.
"""

from nemo_cosmos.data.shards.form import TENSOR_NAMES, decode_sample, encode_sample, safe_key, with_rays
from nemo_cosmos.data.shards.reading import FULL_VERIFY_BYTES, OPEN_FILES, ShardDataset, read_member, verify_shard
from nemo_cosmos.data.shards.writing import RATE_DIGITS, SAMPLES_PER_SHARD, ShardWriter, disk_error

__all__ = [
    "FULL_VERIFY_BYTES",
    "OPEN_FILES",
    "RATE_DIGITS",
    "SAMPLES_PER_SHARD",
    "TENSOR_NAMES",
    "ShardDataset",
    "ShardWriter",
    "decode_sample",
    "disk_error",
    "encode_sample",
    "read_member",
    "safe_key",
    "verify_shard",
    "with_rays",
]
