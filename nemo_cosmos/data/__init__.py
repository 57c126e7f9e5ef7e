"""Data: the training record, shards of records, video files."""
