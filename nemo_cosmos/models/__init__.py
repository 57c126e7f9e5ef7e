"""Networks: the diffusion transformer, tokenizers and text encoder."""
