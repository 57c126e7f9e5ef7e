"""From raw folders to shards: sources, decoding, offline tokenizing, text embeddings, rendered sample clips."""
