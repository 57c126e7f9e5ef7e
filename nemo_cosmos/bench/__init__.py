"""Benchmarks behind `nemo-cosmos bench` and the scripts of `bench/`."""
