"""Encode and decode videos with a tokenizer alone."""
