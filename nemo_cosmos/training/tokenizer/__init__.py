"""Training and post-training of the Cosmos video tokenizers."""
