"""Download released tokenizers; the code is in nemo_cosmos/download/tokenizers.py."""

from nemo_cosmos.commands.options import run_tool
from nemo_cosmos.download.tokenizers import main

if __name__ == "__main__":
    run_tool(main)
