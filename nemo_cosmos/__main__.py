"""`python -m nemo_cosmos` is the `nemo-cosmos` command, for launchers such as torchrun."""

from nemo_cosmos.cli import main

if __name__ == "__main__":
    main()
