"""Whole jobs made of the command line's verbs."""
