"""What is changed in NeMo, Megatron-Core, Lightning and PyTorch while they run: all of it, with version and reason.

Nothing changes when this package is imported; :func:`~nemo_cosmos.upstream.run.adapted_upstream` makes the changes for
the time of a training run and takes them back, also after an error.
"""
