"""The steps from nothing to nemo-cosmos-tiny, each a public command or the packing of what one has made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nemo_cosmos.atomic import write_text
from nemo_cosmos.checkpoint.files import weights_file
from nemo_cosmos.data.clips import find_clips
from nemo_cosmos.steps import Step, command_line
from tiny_model import folder
from tiny_model.sizes import FRAMES, NETWORKS, TEXT_ENCODER, TEXT_LENGTH, TEXT_WIDTH, TOKENIZER, Network, Size
from tiny_model.together import run_together

SHAPES = ("landscape", "portrait")
NAME = "nemo-cosmos-tiny"


@dataclass(frozen=True)
class Plan:
    """What is made where.

    Attributes:
        out: folder of everything; `out/nemo-cosmos-tiny` is what is shipped.
        size: how much.
        seed: of clips, initial weights, order and noise.
        workers: processes that render, read and decode; never changes the result.
        without_photos: clips that need no photographs.
        tokenizer: KEY=VALUE settings of `tokenizer train`, which win over those of the size.
        networks: the same of `train`.
        command: how the tool was called, for the model card.
    """

    out: Path
    size: Size
    seed: int
    workers: int
    without_photos: bool = False
    tokenizer: Sequence[str] = ()
    networks: Sequence[str] = ()
    command: str = ""
    built: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "built", self.out / "parts")

    def steps(self) -> list[Step]:
        """All of them, in order."""
        return [self.clips(), self.train_tokenizer(), self.latents(), self.train_networks(), self.assemble()]

    def clips(self) -> Step:
        """Rendered clips of both shapes."""
        commands = {}
        for number, shape in enumerate(SHAPES):
            short, long = self.size.pixels
            height, width = (short, long) if shape == "landscape" else (long, short)
            commands[shape] = [
                "sample-data", "worlds", str(self.out / "clips" / shape), f"--clips={self.size.clips[number]}",
                f"--held-out={self.size.held_out}", f"--size={height}x{width}", f"--frames={FRAMES}",
                f"--seed={2 * self.seed + number}", *(["--without-photos"] if self.without_photos else []),
            ]  # fmt: skip

        def run() -> None:
            for shape, arguments in commands.items():
                run_together({shape: [*arguments, f"--workers={self.workers}"]}, self.out / "logs")

        return Step("clips", commands, run, [self.out / "clips"], _shown(commands["landscape"]))

    def train_tokenizer(self) -> Step:
        """The tokenizer, whose weights are rounded as they are shipped before anything is encoded with them."""
        run_folder, steps = self.out / "tokenizer_run", self.size.tokenizer_steps
        arguments = [
            "tokenizer", "train", "experiment=tiny_tokenizer", f"output_dir={run_folder}", f"seed={self.seed}",
            f"data.train={self.out}/clips/*/train/videos/*.mp4", f"data.val={self.out}/clips/*/held_out/videos/*.mp4",
            f"trainer.max_steps={steps}", f"optimizer.decay_steps={steps}", *self.size.tokenizer, *self.tokenizer,
        ]  # fmt: skip

        def run() -> None:
            run_together({"tokenizer": self._with_readers(arguments)}, self.out / "logs")
            folder.round_tokenizer(run_folder / "tokenizer", self.built / TOKENIZER)

        return Step("tokenizer", arguments, run, [run_folder, self.built / TOKENIZER], _shown(arguments))

    def latents(self) -> Step:
        """Clips, and single frames of them, as latents with embedded captions."""
        short, long = self.size.pixels
        commands = {}
        for name, more in (
            ("shards", [f"--frames={FRAMES}"]),
            ("image_shards", ["--frames=1", f"--stride={self.size.image_stride}"]),
        ):
            commands[name] = [
                "prepare", str(self.out / "clips.jsonl"), str(self.out / name),
                f"--tokenizer={self.built / TOKENIZER}", f"--text-encoder={self.built / TEXT_ENCODER}",
                f"--text-length={TEXT_LENGTH}", f"--size={short}x{long},{long}x{short}", *more,
            ]  # fmt: skip

        def run() -> None:
            from nemo_cosmos.models.text import save_tiny_text_encoder

            save_tiny_text_encoder(self.built / TEXT_ENCODER, TEXT_WIDTH)
            self._list_clips()
            half = f"--workers={max(1, self.workers // 2)}"
            run_together({name: [*arguments, half] for name, arguments in commands.items()}, self.out / "logs")

        outputs = [self.out / name for name in commands] + [self.built / TEXT_ENCODER]
        return Step("latents", commands, run, outputs, _shown(commands["shards"]))

    def train_networks(self) -> Step:
        """The four networks at the same time: each alone leaves a GPU waiting for its next kernel."""
        commands = {network.experiment: self._network_arguments(network) for network in NETWORKS}

        def run() -> None:
            left = {n.experiment: commands[n.experiment] for n in NETWORKS if not self.weights(n).is_file()}
            run_together(left, self.out / "logs")

        outputs = [self._run_folder(network) for network in NETWORKS]
        return Step("networks", commands, run, outputs, _shown(commands[NETWORKS[0].experiment]))

    def assemble(self) -> Step:
        """What is shipped."""
        target = self.out / NAME
        weights = {network.folder: self.weights(network) for network in NETWORKS}

        def run() -> None:
            lists = {shape: self.out / "clips" / shape / folder.TRAINING_LIST for shape in SHAPES}
            folder.assemble(target, self.built, weights, lists, self.command)

        return Step("assemble", ["assemble", self.command], run, [target], f"into {target}")

    def weights(self, network: Network) -> Path:
        """The averaged weights that the training of a network ends with."""
        return weights_file(self._run_folder(network) / "checkpoints", self.size.network_steps, "ema")

    def _run_folder(self, network: Network) -> Path:
        return self.out / network.experiment

    def _network_arguments(self, network: Network) -> list[str]:
        shards, steps = self.out / ("image_shards" if network.images else "shards"), self.size.network_steps
        return [
            "train", f"experiment={network.experiment}", f"output_dir={self._run_folder(network)}",
            f"data.path={shards}", f"seed={self.seed}", f"trainer.max_steps={steps}", f"optimizer.cycle_steps={steps}",
            *self.size.networks, *self.networks,
        ]  # fmt: skip

    def _with_readers(self, arguments: list[str]) -> list[str]:
        if any(word.startswith("data.num_workers=") for word in arguments):
            return arguments
        return [*arguments, f"data.num_workers={max(1, self.workers - 2)}"]

    def _list_clips(self) -> None:
        """One list of the clips of both shapes, which `prepare` sorts into sizes."""
        clips = [clip for shape in SHAPES for clip in find_clips(self.out / "clips" / shape / "train")]
        lines = [
            json.dumps({"video": str(clip.video.relative_to(self.out)), "caption": clip.read_caption()})
            for clip in clips
        ]
        write_text(self.out / "clips.jsonl", "".join(f"{line}\n" for line in lines))


def _shown(arguments: list[str]) -> str:
    return command_line(arguments, 1)[0]
