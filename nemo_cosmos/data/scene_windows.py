"""From a scene to the pictures and cameras of a sample: chunks of pictures that follow each other, each with its pose.

Where a chunk begins depends on the seed, the scene's name and the chunk's number alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from nemo_cosmos.camera.rays import Cameras, fitted, normalise, resized
from nemo_cosmos.camera.resample import frames_at_rate
from nemo_cosmos.camera.track import Track, match_images
from nemo_cosmos.data.archives import look_into
from nemo_cosmos.data.clips import Clip
from nemo_cosmos.data.embeddings import file_digest
from nemo_cosmos.data.resize import geometry, padding_mask, resize
from nemo_cosmos.data.scene_poses import UNKNOWN, read_track
from nemo_cosmos.data.scenes import Pictures, Scene, choose_images, open_files, open_pictures, sizes_of
from nemo_cosmos.data.video import video_writer
from nemo_cosmos.data.windows import Size, Window, WindowPlan
from nemo_cosmos.errors import InputError, explain_os_error

SCENE_FRAMES = 57
"""Frames of a chunk of the released networks' tokenizer with 8 latent frames."""
SCENE_FPS = 7.0
"""Frame rate that the pictures of a scene count as."""
VIDEO_HEIGHT = 720
"""Most rows of a scene's video; its columns follow from the pictures' shape."""


@dataclass(frozen=True)
class SceneClip(Clip):
    """A chunk of a scene as a clip.

    Attributes:
        scene: whose pictures; ``video`` is the file that shows whether it changed, its zip file or its poses.
        chunk: number of the chunk, from 0.
        seed: of its place.
        video_file: where a video of the whole scene is to be written, None for nowhere.
    """

    scene: Scene = field(default_factory=lambda: Scene("", Path()))
    chunk: int = 0
    seed: int = 0
    video_file: Path | None = None

    def digest(self) -> str:
        """SHA-256 that changes with poses and pictures: of a zip file over its directory, of a folder over the poses
        and the names and sizes of the pictures."""
        if self.scene.packed:
            return look_into(self.scene.path, self.scene.max_unpacked).digest
        files = sorted(path for path in self.scene.path.rglob("*") if path.is_file())
        lines = [f"{path.relative_to(self.scene.path)} {path.stat().st_size}" for path in files]
        return hashlib.sha256("\n".join([file_digest(self.video), *lines]).encode("utf-8", "replace")).hexdigest()


@dataclass
class SceneWindow(Window):
    """The frames of a chunk.

    Attributes:
        start: place of its first frame among the pictures.
        cameras: (N) as encoded: relative to the first, scaled, in pixels of ``frames``.
        scale: what the positions were divided by.
        resized: (height, width) of a picture within the frame.
    """

    start: int = 0
    cameras: Cameras | None = None
    scale: float = 1.0
    resized: Size = (0, 0)


@dataclass(frozen=True)
class OpenScene:
    """A scene whose poses and pictures have been matched.

    Attributes:
        pictures: in the order of their names.
        places: of each picture's pose among the cameras, None where it has none.
        cameras: those of the poses, in pixels of the pictures.
        where: the scene, for errors.
    """

    pictures: Pictures
    places: list[int | None]
    cameras: Cameras
    where: str

    def start(self, name: str, chunk: int, seed: int, span: int) -> int:
        """Where a chunk of ``span`` pictures begins, drawn from all places where every picture has a pose.

        Raises:
            InputError: there is none.
        """
        starts = list(whole_runs(self.places, span))
        if not starts:
            raise InputError(
                f"{self.where} has {longest_run(self.places)} pictures with poses that follow each other, of "
                f"{len(self.places)} pictures: a sample takes {span}"
            )
        return starts[draw(len(starts), seed, name, chunk)]

    def cameras_of(self, pictures: Sequence[int]) -> Cameras:
        """Those of some pictures, all of which have one."""
        return self.cameras[torch.tensor([self.places[picture] for picture in pictures])]


def whole_runs(places: Sequence[int | None], span: int) -> Iterator[int]:
    """Where ``span`` pictures with poses follow each other."""
    run = 0
    for place, pose in enumerate(places):
        run = 0 if pose is None else run + 1
        if run >= span:
            yield place - span + 1


def longest_run(places: Sequence[int | None]) -> int:
    """Most pictures with poses that follow each other."""
    run = longest = 0
    for pose in places:
        run = 0 if pose is None else run + 1
        longest = max(run, longest)
    return longest


def draw(count: int, seed: int, *what: object) -> int:
    """A number below ``count`` that depends on the arguments alone, on any machine."""
    digest = hashlib.sha256("/".join(map(str, (seed, *what))).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest, "big") % count


@contextmanager
def open_scene(scene: Scene, least: Size, fps: float = SCENE_FPS) -> Iterator[OpenScene]:
    """A scene's pictures and cameras.

    Where the poses have times, in seconds, pictures are in their order, and those nearest to the frame rate are taken.

    Args:
        scene: where they lie.
        least: (height, width) that a picture should have, where there are several resolutions.
        fps: frame rate.

    Raises:
        InputError: no readable zip file, no poses or pictures, matrices that are no poses, or pictures that differ in
            size.
    """
    with open_files(scene) as files:
        where = str(scene.path)
        posed = read_track(scene, files, UNKNOWN).names
        names = choose_images(files.names, posed, where, least, lambda name: sizes_of(files, name)[1])
        track = read_track(scene, files, sizes_of(files, names[0])[1])
        pictures = open_pictures(files, names, track.cameras.size, where)
        places = match_images(track, names, where)
        cameras = resized(track.cameras, pictures.size)
        yield _in_time(OpenScene(pictures, places, cameras, where), track, fps)


def _in_time(scene: OpenScene, track: Track, fps: float) -> OpenScene:
    """The pictures at the times of a steady rate; as they are where the poses have no times."""
    if track.times is None:
        return scene
    known = sorted((place, number) for number, place in enumerate(scene.places) if place is not None)
    order = [number for _, number in known]
    times = track.times[torch.tensor([place for place, _ in known])]
    # Times from 0 to 1 are no seconds but shares of the capture.
    if float(times[-1] - times[0]) > 1:
        try:
            order = [order[number] for number in frames_at_rate(times, fps)]
        except InputError as error:
            raise InputError(f"{scene.where}: {error}; give the rate of the capture, --fps") from error
    pictures = replace(scene.pictures, names=[scene.pictures.names[number] for number in order])
    return replace(scene, pictures=pictures, places=[scene.places[number] for number in order])


def scene_windows(
    clip: SceneClip, plan: WindowPlan, compression: int, done: frozenset[str] = frozenset()
) -> Iterator[SceneWindow]:
    """The one window of a chunk, unless it is named in ``done``; see ``windows.windows_of``."""
    if clip.key not in done:
        try:
            yield _window(clip, plan, compression)
        except OSError as error:
            raise InputError(explain_os_error(error, clip.scene.path) or f"{clip.scene.path}: {error}") from error


def _window(clip: SceneClip, plan: WindowPlan, compression: int) -> SceneWindow:
    caption = clip.read_caption()
    with open_scene(clip.scene, max(plan.sizes), plan.fps or SCENE_FPS) as scene:
        size = scene.pictures.size
        plan = plan.for_source(size)
        span = (plan.frames - 1) * plan.step + 1
        start = scene.start(clip.scene.name, clip.chunk, clip.seed, span)
        # One chunk alone: those of a scene may be read by several processes at once.
        if clip.video_file is not None and clip.chunk == 0 and not is_newer(clip.video_file, clip.video):
            write_scene_video(clip.video_file, scene.pictures, plan.fps or SCENE_FPS)
        taken = range(start, start + span, plan.step)
        frames = torch.stack([resize(scene.pictures[n], plan.size, plan.fit, mirror=True) for n in taken], dim=1)
        cameras, scale = normalise(fitted(scene.cameras_of(taken), plan.size, plan.fit))
    return SceneWindow(
        key=clip.key,
        name=f"{clip.name} from frame {start}",
        frames=frames,
        fps=(plan.fps or SCENE_FPS) / plan.step,
        source_size=size,
        padding_mask=padding_mask(size, plan.size, plan.fit, compression, nearest=True),
        caption=caption,
        embedding=None,
        tensors=stored_cameras(cameras),
        start=start,
        cameras=cameras,
        scale=scale,
        resized=geometry(size, plan.size, plan.fit).resized,
    )


def stored_cameras(cameras: Cameras) -> dict[str, Tensor]:
    """Cameras of a chunk as tensors of a sample."""
    return {"camera_poses": cameras.poses.float(), "camera_intrinsics": cameras.intrinsics.float()}


def is_newer(video: Path, source: Path) -> bool:
    """Whether a video is there and was made after the last change of what it is made of."""
    return video.is_file() and video.stat().st_mtime_ns >= source.stat().st_mtime_ns


def video_size(size: Size) -> Size:
    """(height, width) of a scene's video, both even: the shape is that of the pictures, which are not enlarged."""
    height = min(VIDEO_HEIGHT, max(2, size[0] // 2 * 2))
    return height, max(2, round(height * size[1] / size[0] / 2) * 2)


def write_scene_video(path: Path, pictures: Pictures, fps: float) -> None:
    """All pictures of a scene as an H.264 file, which appears under its name when it is complete."""
    size = video_size(pictures.size)
    with video_writer(path, fps) as write:
        for number in range(len(pictures.names)):
            write(resize(pictures[number], size, "stretch")[:, None])
