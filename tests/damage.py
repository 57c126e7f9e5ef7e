"""What happens to files on disks and on the way between machines."""

from __future__ import annotations

from pathlib import Path

DAMAGES = ("flip", "cut", "empty", "gone", "longer")


def damage(file: Path, kind: str) -> None:
    """One bit of the middle byte, the second half, everything, the name, or one byte too many."""
    content = bytearray(file.read_bytes())
    if kind == "gone":
        file.unlink()
        return
    if kind == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "longer": content + b"\0"}.get(kind, content))
