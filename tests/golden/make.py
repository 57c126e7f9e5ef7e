"""Writes the golden numbers anew: ``python -m tests.golden.make``; ``--print`` only shows them.

A commit that changes them says why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tests.golden.compute import everything

FILE = Path(__file__).parent / "numbers.json"

if __name__ == "__main__":
    torch.set_num_threads(1)
    text = json.dumps(everything(), indent=1)
    if "--print" in sys.argv:
        print(text)
    else:
        FILE.write_text(text + "\n")
