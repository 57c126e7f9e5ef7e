"""Post-training of NVIDIA Cosmos world models on NeMo and Megatron-Core."""

__version__ = "0.1.0"
