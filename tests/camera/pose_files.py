"""Write pose files as programs of others leave them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch

from nemo_cosmos.camera.rays import Cameras, swap_axes
from nemo_cosmos.camera.rotations import to_quaternion


def transforms(cameras: Cameras, **changes: Any) -> dict[str, Any]:
    """The content of a ``transforms.json``, one set of intrinsics at its top."""
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    frames = [
        {"file_path": f"images/frame_{i + 1:05d}.png", "transform_matrix": pose.tolist(), "colmap_im_id": i}
        for i, pose in enumerate(swap_axes(cameras.poses))
    ]
    top = {"w": cameras.size[1], "h": cameras.size[0], "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    return {**top, "camera_model": "OPENCV", "frames": frames, **changes}


def write_transforms(path: Path, cameras: Cameras, **changes: Any) -> Path:
    path.write_text(json.dumps(transforms(cameras, **changes)))
    return path


def world_to_camera(cameras: Cameras) -> tuple[list[list[float]], list[list[float]]]:
    """Quaternions and translations as COLMAP has them."""
    inverse = torch.linalg.inv(cameras.poses)
    return to_quaternion(inverse[:, :3, :3].contiguous()).tolist(), inverse[:, :3, 3].tolist()


def write_colmap_text(folder: Path, cameras: Cameras, model: str = "PINHOLE", extra: str = "") -> None:
    """Images in an order of their own, every second one without points."""
    folder.mkdir(parents=True, exist_ok=True)
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    focal = f"{fx!r}" if model.startswith(("SIMPLE", "RADIAL")) else f"{fx!r} {fy!r}"
    size = f"{cameras.size[1]} {cameras.size[0]}"
    (folder / "cameras.txt").write_text(f"# Camera list\n7 {model} {size} {focal} {cx!r} {cy!r} {extra}\n")
    lines = ["# Image list", "#   POINTS2D[] as (X, Y, POINT3D_ID)"]
    for i, (q, t) in reversed(list(enumerate(zip(*world_to_camera(cameras), strict=True)))):
        pose = " ".join(map(repr, [*q, *t]))
        lines += [f"{i + 3} {pose} 7 frame {i + 1:02d}.jpg", "3.5 2.5 -1 1 2 9" if i % 2 else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("")


def write_colmap_binary(folder: Path, cameras: Cameras, model: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    height, width = cameras.size
    values = {0: [fx, cx, cy], 1: [fx, fy, cx, cy], 4: [fx, fy, cx, cy, 0.1, 0, 0, 0], 5: [fx, fy, cx, cy, 0, 0, 0, 0]}
    parameters = values[model]
    camera = struct.pack(f"<QiiQQ{len(parameters)}d", 1, 7, model, width, height, *parameters)
    (folder / "cameras.bin").write_bytes(camera)
    images = struct.pack("<Q", len(cameras))
    for i, (q, t) in reversed(list(enumerate(zip(*world_to_camera(cameras), strict=True)))):
        points = struct.pack("<ddq", 3.5, 2.5, -1) * (i % 3)
        name = f"frame {i + 1:02d}.jpg".encode() + b"\0"
        images += struct.pack("<i7di", i + 3, *q, *t, 7) + name + struct.pack("<Q", i % 3) + points
    (folder / "images.bin").write_bytes(images)
