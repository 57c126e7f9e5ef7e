"""Cosmos-Tokenize1 video tokenizers: causal wavelet autoencoders, continuous and discrete."""

from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule, TokenizerOutput, build_tokenizer
from nemo_cosmos.models.tokenizer.config import PRESETS, TokenizerConfig
from nemo_cosmos.models.tokenizer.cosmos import CosmosTokenizer
from nemo_cosmos.models.tokenizer.pretrained import load_tokenizer, save_tokenizer

VideoTokenizer = CosmosTokenizer
"""The name that this class had before other tokenizers came."""

__all__ = [
    "PRESETS",
    "CosmosTokenizer",
    "TokenizerConfig",
    "TokenizerModule",
    "TokenizerOutput",
    "VideoTokenizer",
    "build_tokenizer",
    "load_tokenizer",
    "save_tokenizer",
]
