"""Configuration files of nemo_cosmos; see nemo_cosmos.config."""
