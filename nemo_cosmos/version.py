"""The version of this package, which also files and reports name."""

__version__ = "0.1.0"
