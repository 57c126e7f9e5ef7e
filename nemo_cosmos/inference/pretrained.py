"""A generation pipeline in Python: its models stay loaded from one call to the next."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nemo_cosmos.checkpoint.adapters import AdapterChoice, Adapters
from nemo_cosmos.choices import Fit, InputFrom, Part, Precision, Sampler, Stacking, Verify, Weights
from nemo_cosmos.data.images import IMAGE_SUFFIXES, is_image, pixels_of
from nemo_cosmos.data.rig import read_rig
from nemo_cosmos.errors import InputError, require_file
from nemo_cosmos.inference.inputs import GivenFrames
from nemo_cosmos.inference.job_settings import GenerationJob
from nemo_cosmos.inference.loading import build_models, open_pipeline
from nemo_cosmos.inference.pipelines import pipeline_for
from nemo_cosmos.inference.places import find_adapters, find_network, text_encoder_for, tokenizer_for
from nemo_cosmos.inference.progress import progress_bars
from nemo_cosmos.inference.ranks import start_ranks
from nemo_cosmos.inference.requests import CAMERA, GenerationRequest, asked_for
from nemo_cosmos.logs import log_shown
from nemo_cosmos.typed import check_arguments

if TYPE_CHECKING:
    from PIL.Image import Image


class Pipeline:
    """Generation as the network does it, Text2World, Video2World with or without a trajectory of the camera, or
    Text2Image: a prompt and frames in, frames out.

    The same job as `nemo-cosmos generate`: settings have the names, defaults and limits of its flags, and the same
    settings and seed give the same frames. Made by :meth:`from_pretrained`.

    Attributes:
        fps: frame rate of the latest video, 0 before one was made and after an image.
    """

    def __init__(self, job: GenerationJob) -> None:
        self.job, self.ranks, self.fps = job, start_ranks(), 0.0
        with log_shown():
            self.models = build_models(job, self.ranks)
            self.kind = pipeline_for(self.models.dit)
            models = self.models
            parts = (models.tokenizer, models.network, models.text_encoder, models.upsampler, models.guardrail)
            for part in parts:
                if part is not None and not part.offload:
                    with part.use():  # Loads it.
                        pass

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        text_encoder: str | Path | None = None,
        lora: str | Path | tuple[str | Path | tuple[str | Path, float], ...] | None = None,
        lora_alpha: float | None = None,
        weights: Weights = "ema",
        preset: str | None = None,
        precision: Precision | None = None,
        text_encoder_precision: Precision = "fp32",
        prompt_upsampler: str | Path | None = None,
        guardrail: bool | None = None,
        offload: tuple[Part, ...] = (),
        verify: Verify = "auto",
    ) -> Pipeline:
        """Load the models, once; parts named in ``offload`` are loaded when they are needed.

        Args:
            model: run folder, ``.pt`` file in the released layout, diffusers folder, repository of the hub, or
                ``nemo-cosmos-tiny``, which the package brings along.
            tokenizer: tokenizer folder, Wan's tokenizer.pth, or repository of the hub; None: that of
                ``nemo-cosmos-tiny``, with a model of it.
            text_encoder: folder or repository of the T5 encoder; None: ``google-t5/t5-11b``, for models of
                ``nemo-cosmos-tiny`` theirs.
            lora: adapters to merge into the network: PEFT folder, repository, ``.safetensors`` or ``.pt`` file, or a
                list of these, or of pairs with how much of each is added, such as ``[("a", 0.7), ("b", 0.3)]``.
            lora_alpha: of adapters whose file does not say it; None: their rank.
            weights: averaged ("ema") or regular ("reg") weights of a run, or of a file with both.
            preset: network of a ``.pt`` file that does not say, for example ``predict1-7b-video2world``.
            precision: of network and tokenizer, "bf16" or "fp32"; None: bf16 on a GPU, fp32 on the CPU.
            text_encoder_precision: of the text encoder.
            prompt_upsampler: image-text-to-text model of transformers that expands the prompts.
            guardrail: check prompts and videos with cosmos_guardrail; None: where it is installed.
            offload: parts that leave the device while they are not in use: "network", "tokenizer", "text_encoder",
                "upsampler", "guardrail".
            verify: compare network and tokenizer with their checksums: "full", "size", or "auto" (up to 64 GiB).

        Raises:
            InputError: an argument of the wrong type, a model that is missing, damaged or does not fit.
        """
        check_arguments(cls.from_pretrained, locals())
        with log_shown():
            path, preset = find_network(model, preset)
            job = GenerationJob.from_names(
                weights=path,
                tokenizer=tokenizer_for(model, tokenizer),
                output=Path(),  # Not written to: frames are handed out.
                preset=preset,
                kind=weights,
                text_encoder=text_encoder_for(model, text_encoder),
                lora=find_adapters(_adapters(lora)),
                lora_alpha=lora_alpha,
                upsampler=None if prompt_upsampler is None else str(prompt_upsampler),
                guardrail=guardrail,
                offload=frozenset(offload),
                precision=precision,
                text_encoder_precision=text_encoder_precision,
                verify=verify,
            )
        return cls(job)

    def __call__(
        self,
        prompt: str | Mapping[str, str] | Sequence[str] | None = None,
        *,
        image: str | Path | np.ndarray | Image | None = None,
        video: str | Path | np.ndarray | Mapping[str, str | Path | np.ndarray] | None = None,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        chunk_frames: int | None = None,
        overlap_frames: int = 9,
        num_input_frames: int = 1,
        input_from: InputFrom = "end",
        fit: Fit | None = None,
        fps: float | None = None,
        num_steps: int = 35,
        guidance: float | None = None,
        batched_guidance: bool = False,
        sampler: Sampler | None = None,
        seed: int = 1,
        aspect_ratio: str | None = None,
        rig: str | Path | None = None,
        num_views: int | None = None,
        rope_fps: float | None = None,
        input_stacking: Stacking = "time",
        trajectory: str | Path | None = None,
        fov: float | None = None,
        resample_trajectory: bool = False,
    ) -> np.ndarray:
        """One video or image, or one of several cameras. Settings left at None take the run's value, else that of the
        released models.

        A Text2Image network takes no input, and refuses settings of videos.

        Args:
            prompt: what the video shows; may be left out with a prompt upsampler and an input. With several cameras
                also captions by camera, or of all of them in the order of the rig.
            image: frame to start from: a file, a PIL image, or an array (H, W, 3) uint8 RGB.
            video: frames to start from: a file, which is read at the rate and step of training, or an array
                (T, H, W, 3) uint8 RGB, whose frames are taken as they are and whose rate is ``fps``. With several
                cameras one of these by camera, an array (V, T, H, W, 3), or a folder or file that holds all views.
            negative_prompt: text of the unconditional branch; None: the zero embedding.
            height, width: pixels.
            num_frames: frames of the video, the given ones included; None: one chunk.
            chunk_frames: frames generated in one go; longer videos are continued chunk by chunk.
            overlap_frames: frames of a chunk that the next one continues from.
            num_input_frames: frames taken from ``video``, 1 + k * temporal compression.
            input_from: take the first ("start") or the last ("end") frames of ``video``.
            fit: how an input of another shape fills the frame: "crop", "pad" or "stretch".
            fps: frames per second, told to the network; the one in use stays in the attribute of that name.
            num_steps: sampler steps.
            guidance: g in cond + g * (cond - uncond); None: 7, of an image 4, of
                ``nemo-cosmos-tiny`` 1.
            batched_guidance: both branches in one batch.
            sampler: "edm-euler" (default for Predict1) or "res-2ab" (default for Predict2).
            seed: of the noise.
            aspect_ratio: size of an image instead of ``height`` and ``width``: "16:9", "9:16", "4:3", "3:4" or "1:1".
            rig: file of the cameras of a multiview network, or name of a shipped one; None: those trained on.
            num_views: cameras with the ids from 0 on, where no rig names them.
            rope_fps: frame rate that a multiview network alone is told; None: ``fps``.
            input_stacking: whether one input video holds all views one after another ("time") or one below the other
                ("vertical").
            trajectory: of the camera, for a network with camera control: a transforms.json, a CSV file, a folder of
                COLMAP, or a move and its amount such as "orbit_left:0.3"; the first pose belongs to the first frame.
            fov: degrees from left to right that the camera shows, where the trajectory does not tell; None: 90.
            resample_trajectory: spread all poses of a file over the frames of the video.

        Returns:
            (T, H, W, 3) uint8 RGB frames, T = 1 for an image; (V, T, H, W, 3) of several cameras, in the order of the
            rig; under torchrun on every rank.

        Raises:
            InputError: an argument of the wrong type or range, an input that cannot be read, a size or count that
                tokenizer or network cannot take, or a prompt or video that the guardrail refused.
        """
        settings = {
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "chunk_frames": chunk_frames,
            "overlap_frames": overlap_frames,
            "fps": fps,
            "num_input_frames": num_input_frames,
            "input_from": input_from,
            "fit": fit,
            "sampler": sampler,
            "num_steps": num_steps,
            "guidance": guidance,
            "batched_guidance": batched_guidance,
            "negative_prompt": negative_prompt,
            "seed": seed,
            "rig": None if rig is None else read_rig(rig),
            "num_views": num_views,
            "rope_fps": rope_fps,
            "input_stacking": input_stacking,
            "trajectory": None if trajectory is None else str(trajectory),
            "fov": fov,
            "resample_trajectory": resample_trajectory or None,
        }
        request = _request(self.kind.makes, prompt, image, video)
        config = self.kind.configure(settings, aspect_ratio, dit=self.models.dit)
        [request], config = self.kind.complete(self.models.dit, [request], config, self.job.weights)
        self.kind.check_inputs(self.models.dit, [request])
        with log_shown(), progress_bars(1, enabled=self.ranks.is_first) as bars:
            pipeline = open_pipeline(self.job, config, self.models, self.ranks)
            [text] = pipeline.prepare_texts([request])
            if text.text is None:
                raise InputError(f"the guardrail refused the prompt {text.prompt[:80]!r}")
            bars.begin(request.name)
            frames, self.fps = pipeline.generate(request, text, progress=bars.evaluation)
            bars.end()
        return self.ranks.from_first(lambda: _as_array(frames, self.kind.makes))


def _as_array(frames: Tensor | None, makes: str) -> np.ndarray:
    """(3, T, H, W) -> (T, H, W, 3), an array of its own; of several views with V in front."""
    if frames is None:
        raise InputError(f"the guardrail refused the {makes}")
    return np.ascontiguousarray(frames.movedim(-4, -1).cpu().numpy())


def _request(name: str, prompt: Any, image: Any, video: Any) -> GenerationRequest:
    texts = (
        prompt.values() if isinstance(prompt, Mapping) else prompt if isinstance(prompt, list | tuple) else [prompt]
    )
    if not all(isinstance(text, str | None) for text in texts):
        raise InputError(f"prompt={str(prompt)[:80]!r}: expected text, or texts of several cameras")
    if image is not None and video is not None:
        raise InputError("image and video: give one of them to start from")
    if prompt is None and image is None and video is None:
        raise InputError("prompt: say what to generate, by a prompt, an image or a video")
    given: dict[str, Any] = {}
    if image is not None:
        given["visual_input"], given["frames"] = _image(image)
    elif isinstance(video, Mapping):
        # An image file is one frame of its camera.
        found = {camera: _views_file(camera, one) for camera, one in video.items()}
        given["visual_inputs"] = found
    elif getattr(video, "ndim", 4) == 5:
        views = enumerate(np.asarray(video))
        given["visual_inputs"] = tuple(
            GivenFrames(_pixels("video", v, "(V, T, H, W, 3)", 4), f"view {n}") for n, v in views
        )
    elif isinstance(video, str | os.PathLike) and (CAMERA in str(video) or os.path.isdir(video)):
        given["visual_input"] = Path(video)
    else:
        given["visual_input"], given["frames"] = _video(video)
    return GenerationRequest(name, has_prompt=prompt is not None, **{**asked_for(prompt, None), **given})


def _views_file(camera: str, given: Any) -> Path | GivenFrames:
    if isinstance(given, str | os.PathLike):
        return _file(f"video[{camera!r}]", given)
    return GivenFrames(_pixels(f"video[{camera!r}]", given, "(T, H, W, 3)", 4), str(camera))


def _image(image: Any) -> tuple[Path | None, GivenFrames | None]:
    if isinstance(image, str | os.PathLike):
        path = _file("image", image)
        if not is_image(path) and path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"image={path} is no image; a video is given as video=")
        return path, None
    if hasattr(image, "getbands"):  # PIL's own way to tell; the package need not be installed for arrays.
        return None, GivenFrames(pixels_of(image, "image")[:, None], "image")
    return None, GivenFrames(_pixels("image", image, "(H, W, 3)", 3)[:, None], "image")


def _video(video: Any) -> tuple[Path | None, GivenFrames | None]:
    if video is None:
        return None, None
    if isinstance(video, str | os.PathLike):
        path = _file("video", video)
        if is_image(path):
            raise InputError(f"video={path} is an image; give it as image=")
        return path, None
    return None, GivenFrames(_pixels("video", video, "(T, H, W, 3)", 4), "video")


def _file(name: str, given: str | os.PathLike[str]) -> Path:
    require_file(given, f"{name}=")
    return Path(given)


def _pixels(name: str, given: Any, shape: str, dimensions: int) -> Tensor:
    """An array in memory, channels first."""
    array = np.asarray(given)
    if array.dtype != np.uint8 or array.ndim != dimensions or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(
            f"{name} has the shape {array.shape} and the type {array.dtype}: expected {shape} uint8, RGB from 0 to 255"
        )
    return torch.from_numpy(np.array(array)).movedim(-1, 0)


def _adapters(lora: Any) -> Adapters:
    """Pairs of a path and a weight as choices."""
    if not isinstance(lora, list | tuple):
        return lora
    return [AdapterChoice(Path(one[0]), one[1]) if isinstance(one, list | tuple) else one for one in lora]
