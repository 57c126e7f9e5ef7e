"""Read and write video files with PyAV, as a player shows them.

Frames are uint8 RGB tensors (3, T, H, W): those that a player shows and no others, upright, with square pixels,
deinterlaced, in the colours of BT.709 and SDR. What cannot be shown so is refused with a reason.
"""

from nemo_cosmos.data.resize import FITS, Fit, padding_mask, resize
from nemo_cosmos.data.video.cut import cut
from nemo_cosmos.data.video.frames import DamagedError
from nemo_cosmos.data.video.read import VideoInfo, frames_of, iter_windows, probe, read_frames, stated_frames
from nemo_cosmos.data.video.write import CONTAINERS, video_writer, write_mp4

__all__ = [
    "CONTAINERS",
    "FITS",
    "DamagedError",
    "Fit",
    "VideoInfo",
    "cut",
    "frames_of",
    "iter_windows",
    "padding_mask",
    "probe",
    "read_frames",
    "resize",
    "stated_frames",
    "video_writer",
    "write_mp4",
]
