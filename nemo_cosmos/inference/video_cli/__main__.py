"""``python -m nemo_cosmos.inference.video_cli``."""

from nemo_cosmos.reconstruct.video_cli import main

if __name__ == "__main__":
    main()
