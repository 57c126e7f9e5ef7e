"""Post-training on NeMo and Megatron-Core."""
