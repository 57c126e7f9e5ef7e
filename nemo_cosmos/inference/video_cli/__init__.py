"""The documented name of the reconstruction tool, which is in ``nemo_cosmos.reconstruct``."""

from nemo_cosmos.reconstruct.video_cli import build_parser, main, run

__all__ = ["build_parser", "main", "run"]
