"""The parts of `tools/train_tiny_model.py`."""
