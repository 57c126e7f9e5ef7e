"""Post-training on NeMo and Megatron-Core."""

from nemo_cosmos.training.upstream import prepare_nemo

prepare_nemo()
