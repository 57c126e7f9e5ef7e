"""Post-training on NeMo and Megatron-Core."""

from nemo_cosmos.training.nemo import prepare_nemo

prepare_nemo()
