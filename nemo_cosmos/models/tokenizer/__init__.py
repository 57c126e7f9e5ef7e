"""Cosmos-Tokenize1 video tokenizers: causal wavelet autoencoders, continuous and discrete."""

from nemo_cosmos.models.tokenizer.autoencoder import TokenizerModule, TokenizerOutput, build_tokenizer
from nemo_cosmos.models.tokenizer.config import PRESETS, TokenizerConfig

__all__ = ["PRESETS", "TokenizerConfig", "TokenizerModule", "TokenizerOutput", "build_tokenizer"]
