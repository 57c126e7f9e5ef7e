"""The figures of the tiny model on clips that its training never saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_cosmos.data.clips import list_clips
from nemo_cosmos.demo.sizes import SIZES, DemoSize
from nemo_cosmos.demo.weights import PRESET, Weights, find_weights
from nemo_cosmos.errors import InputError
from nemo_cosmos.typed import parse_json, read_text

if TYPE_CHECKING:
    from torch import Tensor

    from nemo_cosmos.demo.plan import ClipPlan, Source

TRAINING_LIST = "training_list.json"
WINDOWS = 4
"""Windows of a clip that the tokenizer is measured on, at most."""
UNSEEN_SEED = 77
"""Of clips like those that training saw; the training list says that they are none of them."""
_FROZEN = "a frozen first frame has"


def trained_on(folder: Path) -> dict[str, str]:
    """SHA-256 to name of everything that the weights in a folder were trained on, as its training list says.

    Raises:
        InputError: the list is missing, damaged, or names nothing.
    """
    file = folder / TRAINING_LIST
    try:
        found = dict(_entries(parse_json(read_text(file))))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not found:
        raise InputError(f"{file} names nothing by its sha256: expected what the weights were trained on")
    return found


def require_unseen(videos: Iterable[Path], folder: Path) -> str:
    """A sentence that none of the videos is in the training list of the weights in a folder.

    Raises:
        InputError: one is, or the list is not there.
    """
    from nemo_cosmos.data.embeddings import file_digest

    seen = trained_on(folder)
    count = 0
    for video in videos:
        name = seen.get(file_digest(video))
        if name is not None:
            raise InputError(f"{video} is in the training list of the weights, as {name}: take other clips")
        count += 1
    return f"training list checked: none of the {count} clips is among its {len(seen)} files, by sha256"


def check_tokenizer(data: Path, checkpoints: Path | None, at_least: float | None) -> bool:
    """Prints the tokenizer's PSNR on each clip of a folder and their mean; whether that reaches ``at_least`` dB."""
    from nemo_cosmos.demo.figures import psnr
    from nemo_cosmos.demo.plan import plan_clips
    from nemo_cosmos.demo.shown import reconstruct
    from nemo_cosmos.models.video_tokenizer import open_tokenizer

    weights = find_weights(checkpoints)
    print(require_unseen([clip.video for clip in list_clips(data)], weights.folder))
    plan = plan_clips(data, SIZES["full"])
    tokenizer = open_tokenizer(weights.tokenizer_folder)
    figures = []
    for source in plan.sources:
        values = [psnr(reconstruct(tokenizer, window), window) for window in _windows(source, plan)]
        figures.append(sum(values) / len(values))
        print(f"tokenizer, {source.clip.name}: {figures[-1]:.2f} dB, {len(values)} windows")
    return _bar(f"tokenizer, mean of {len(figures)} clips", sum(figures) / len(figures), at_least)


def check_rendered(output: Path, checkpoints: Path | None, at_least: float | None, size: DemoSize) -> bool:
    """Runs the demo on rendered clips and prints its figures; whether the base, over all of them, is at least as
    near to the truth as a frozen first frame, and the post-trained network reaches ``at_least`` dB."""
    weights = find_weights(checkpoints)
    groups = _demo(output, None, weights, checkpoints, size)
    good = True
    for kind, group in groups.items():
        good &= _bar(f"rendered, {_words(kind)}: post-trained", group["post_trained"]["psnr_db"], at_least)
    count = sum(group["count"] for group in groups.values())
    base, frozen = (
        sum(group["count"] * group[version]["psnr_db"] for group in groups.values()) / count
        for version in ("base", "frozen")
    )
    return good & _bar(f"rendered, all {count}: base", base, frozen, _FROZEN)


def check_base(output: Path, checkpoints: Path | None, size: DemoSize) -> bool:
    """Renders clips as those of the training, of another seed, continues their first frames with the base network
    alone, and prints the PSNR of each; whether their mean is at least that of a frozen first frame."""
    from nemo_cosmos.data.video import read_frames
    from nemo_cosmos.demo.figures import psnr
    from nemo_cosmos.steps import call_command, command_line

    weights, clips, videos = find_weights(checkpoints), output / "clips", output / "videos"
    (height, width), frames = size.area, size.frames[0]
    shape = [f"--height={height}", f"--width={width}", f"--num-frames={frames}", f"--num-steps={size.sampling_steps}"]
    model = [f"--model={weights.network}", f"--preset={PRESET}", f"--tokenizer={weights.tokenizer}"]
    commands = {
        "sample-data": [
            "sample-data", "worlds", str(clips), f"--clips={size.base_clips}", "--held-out=0", f"--frames={frames}",
            f"--size={height}x{width}", f"--seed={UNSEEN_SEED}", "--without-photos",
        ],
        "generate": [
            "generate", *model, f"--text-encoder={weights.text_encoder}", f"--source={clips / 'train'}",
            f"--output={videos}", *shape, "--guidance=0", "--crf=12", "--no-guardrail",
        ],
    }  # fmt: skip
    for name, arguments in commands.items():
        call_command(name, command_line(arguments, 1)[1])
    found = list_clips(clips / "train")
    print(require_unseen([clip.video for clip in found], weights.folder))
    figures: list[tuple[float, float]] = []
    for clip in found:
        truth, made = read_frames(clip.video), read_frames(videos / f"{clip.video.stem}.mp4")
        still = truth[:, :1].expand_as(truth)
        figures.append((psnr(made[:, 1:], truth[:, 1:]), psnr(still[:, 1:], truth[:, 1:])))
        print(f"{clip.name}: base {figures[-1][0]:.2f} dB, frozen first frame {figures[-1][1]:.2f} dB")
    base, frozen = (sum(values) / len(values) for values in zip(*figures, strict=True))
    return _bar(f"base, mean of {len(figures)} clips", base, frozen, _FROZEN)


def check_data(output: Path, data: Path, checkpoints: Path | None, at_least: float | None, size: DemoSize) -> bool:
    """Runs the demo on a folder of clips and prints its figures; whether the post-trained network reaches
    ``at_least`` dB on held-out windows."""
    groups = _demo(output, data, find_weights(checkpoints), checkpoints, size)
    good = True
    for kind, group in groups.items():
        bar = at_least if kind != "held_out_scenes" else None
        good &= _bar(f"{_words(kind)}: post-trained", group["post_trained"]["psnr_db"], bar)
    if at_least is not None and "held_out_windows" not in groups:
        print("no window is held out, so no figure can reach the bar")
        return False
    return good


def _demo(
    output: Path, data: Path | None, weights: Weights, checkpoints: Path | None, size: DemoSize
) -> dict[str, dict[str, Any]]:
    """Figures of the groups that have windows, after a run of the demo; every figure is printed on a line."""
    from nemo_cosmos.demo.run import run_demo
    from nemo_cosmos.typed import read_object

    if data is not None:
        print(require_unseen([clip.video for clip in list_clips(data)], weights.folder))
    run_demo(output, data, size, checkpoints)
    if data is None:
        print(require_unseen([clip.video for clip in list_clips(output / "rendered" / "train")], weights.folder))
    groups = {kind: group for kind, group in read_object(output / "summary.json")["groups"].items() if group["count"]}
    for kind, group in groups.items():
        for version in ("base", "post_trained", "lora", "reconstruction", "frozen"):
            for name, value in group[version].items():
                if not isinstance(value, list):
                    print(f"{_words(kind)}, {version.replace('_', '-')}: {name} {value}")
    return groups


def _windows(source: Source, plan: ClipPlan) -> Iterator[Tensor]:
    """Windows of a video, the longest that it has, spread over its beginning: (3, T, H, W) uint8."""
    from nemo_cosmos.data.video import read_frames

    frames = next(length for length in SIZES["full"].frames if length <= source.frames)
    step = max(1, min(round(source.info.fps / plan.rate), source.frames // frames))
    count = min(WINDOWS * frames, -(-source.frames // step))
    read = read_frames(source.clip.video, 0, count, plan.size, step=step, fps=source.info.even_rate)
    for start in range(0, count - frames + 1, frames):
        yield read[:, start : start + frames]


def _bar(what: str, value: float, at_least: float | None, whose: str = "at least") -> bool:
    reached = at_least is None or value >= at_least
    wanted = "" if at_least is None else f" ({whose} {at_least:.2f} dB{'' if reached else ': missed'})"
    print(f"{what}: {value:.2f} dB{wanted}")
    return reached


def _words(kind: str) -> str:
    return kind.replace("_", " ").replace("held out", "held-out")


def _entries(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(sha256, name) of every object with a `sha256`, at any depth."""
    if isinstance(values, dict):
        if isinstance(values.get("sha256"), str):
            yield values["sha256"].lower(), str(values.get("name", name))
        for key, value in values.items():
            yield from _entries(value, key)
    elif isinstance(values, list):
        for value in values:
            yield from _entries(value, name)
