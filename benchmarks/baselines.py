"""Public baselines that diffusers carries: one table, and one adapter for all of them.

``model=svd`` loads the public weights by their Hub id; ``model=svd:FOLDER`` (or ``svd:owner/name``) loads others of the
same class. Sizes, numbers of frames and rates are those that the weights were published for; ``num_frames=``,
``height=``, ``width=`` and ``sampling.*`` change them. Where a pipeline takes no image or no text, it gets none: the
table says so, and so does the report.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.generators import Made, first_frame, weights_hash
from benchmarks.manifest import Sample


@dataclass(frozen=True)
class Part:
    """A component that is loaded by itself: its class, Hub id, subfolder, and precision where it has its own."""

    kind: str
    weights: str
    subfolder: str = ""
    dtype: str = ""

    def load(self, dtype: str) -> Any:
        """The component; ``dtype`` is that of the whole."""
        import diffusers
        import torch

        options = {"torch_dtype": getattr(torch, self.dtype or dtype), "subfolder": self.subfolder}
        return getattr(diffusers, self.kind).from_pretrained(self.weights, **options)


@dataclass(frozen=True)
class Baseline:
    """How to load and call one public model.

    Attributes:
        title: what a report calls it.
        pipeline: its class in diffusers.
        weights: Hub id of the public weights.
        size: T, H, W of its videos.
        fps: of its videos.
        image: name of the argument that takes the first frame; None: it takes no image.
        text: whether it takes the sentence.
        frames: name of the argument for the number of frames.
        arguments: others of every call.
        parts: components that come from elsewhere than the public weights, by name; other weights, which the user
            names, hold them all.
        optional: components that a folder may lack.
        note: what a reader of the report must know.
    """

    title: str
    pipeline: str
    weights: str
    size: tuple[int, int, int]
    fps: float
    image: str | None = "image"
    text: bool = True
    frames: str = "num_frames"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    note: str = ""


_SD_1_5 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_WAN = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"

BASELINES: dict[str, Baseline] = {
    "wan-i2v": Baseline(
        title="Wan 2.1 I2V 14B",
        pipeline="WanImageToVideoPipeline",
        weights=_WAN,
        size=(81, 480, 832),
        fps=16,
        # In half precision this autoencoder loses detail.
        parts={"vae": Part("AutoencoderKLWan", _WAN, "vae", "float32")},
    ),
    "svd": Baseline(
        title="Stable Video Diffusion XT",
        pipeline="StableVideoDiffusionPipeline",
        weights="stabilityai/stable-video-diffusion-img2vid-xt",
        size=(25, 576, 1024),
        fps=7,
        text=False,
        arguments={"decode_chunk_size": 8},
        note="image alone: it takes no text",
    ),
    "cogvideox-i2v": Baseline(
        title="CogVideoX 5B I2V",
        pipeline="CogVideoXImageToVideoPipeline",
        weights="zai-org/CogVideoX-5b-I2V",
        size=(49, 480, 720),
        fps=8,
    ),
    "ltx": Baseline(
        title="LTX-Video",
        pipeline="LTXImageToVideoPipeline",
        weights="Lightricks/LTX-Video",
        size=(161, 512, 704),
        fps=25,
    ),
    "animatediff-sparsectrl": Baseline(
        title="AnimateDiff + SparseCtrl",
        pipeline="AnimateDiffSparseControlNetPipeline",
        weights=_SD_1_5,
        size=(16, 512, 512),
        fps=8,
        image="conditioning_frames",
        arguments={"controlnet_frame_indices": [0]},
        parts={
            "motion_adapter": Part("MotionAdapter", "guoyww/animatediff-motion-adapter-v1-5-3"),
            "controlnet": Part("SparseControlNetModel", "guoyww/animatediff-sparsectrl-rgb"),
        },
    ),
    "text2video-zero": Baseline(
        title="Text2Video-Zero",
        pipeline="TextToVideoZeroPipeline",
        weights=_SD_1_5,
        size=(8, 512, 512),
        fps=4,
        image=None,
        frames="video_length",
        arguments={"output_type": "np"},
        optional=("safety_checker", "feature_extractor"),
        note="text alone: it takes no image",
    ),
}


class DiffusersBaseline:
    """A baseline's pipeline on a suite.

    Args:
        baseline: of the table.
        pipe: the loaded pipeline, on its device.
        weights: what it was loaded from: a Hub id, or the hash of a folder's files.
        sampling: arguments of every call beside the table's (num_frames, height, width, num_inference_steps, …); None
            counts as not given.

    Raises:
        ValueError: an argument that the pipeline does not take.
    """

    def __init__(self, baseline: Baseline, pipe: Any, weights: str, sampling: Mapping[str, Any]) -> None:
        given = {key: value for key, value in sampling.items() if value is not None}
        taken = inspect.signature(type(pipe).__call__).parameters
        if unknown := sorted(set(given) - set(taken) - {"num_frames"}):
            raise ValueError(f"{baseline.pipeline} takes no {unknown}; expected some of {sorted(taken)}.")
        sizes = {**dict(zip(("num_frames", "height", "width"), baseline.size, strict=True)), **given}
        self._arguments = {**baseline.arguments, **sizes, baseline.frames: sizes["num_frames"]}
        if baseline.frames != "num_frames":
            del self._arguments["num_frames"]
        self.name, self._baseline, self._pipe = baseline.title, baseline, pipe
        self.identity = {"baseline": baseline.pipeline, "weights": weights, "arguments": dict(self._arguments)}
        pipe.set_progress_bar_config(disable=True)

    def generate(self, sample: Sample, seed: int) -> Made:
        """One video; it follows no trajectory."""
        import torch

        from ttm.pipelines.inputs import fit_image

        inputs: dict[str, Any] = {}
        if self._baseline.image is not None:
            size = self._arguments["height"], self._arguments["width"]
            inputs[self._baseline.image] = Image.fromarray(fit_image(first_frame(sample), *size))
        if self._baseline.text:
            inputs["prompt"] = sample.prompt
        out = self._pipe(**inputs, **self._arguments, generator=torch.Generator().manual_seed(seed))
        return Made(_frames(out), self._baseline.fps)

    def inputs(self, sample: Sample) -> list[Path]:
        """None."""
        return []


def find_baseline(model: str) -> tuple[Baseline, str] | None:
    """The baseline that ``model`` names, "name" or "name:weights", and its weights; None when it names none."""
    name, _, weights = model.partition(":")
    if name not in BASELINES:
        return None
    return BASELINES[name], weights or BASELINES[name].weights


def load_baseline(
    baseline: Baseline, weights: str, sampling: Mapping[str, Any], device: str = "cpu", dtype: str = "float32"
) -> DiffusersBaseline:
    """Load a baseline with its real class.

    Args:
        baseline: of the table.
        weights: Hub id or folder.
        sampling: see :class:`DiffusersBaseline`.
        device, dtype: where and in what precision.

    Raises:
        ValueError: no such weights here, and none can be had.
    """
    import diffusers
    import torch

    try:
        own_parts = baseline.parts if weights == baseline.weights else {}
        parts = {name: part.load(dtype) for name, part in own_parts.items()}
        if Path(weights).is_dir():
            parts |= {name: None for name in baseline.optional if not (Path(weights) / name).is_dir()}
        kind = getattr(diffusers, baseline.pipeline)
        pipe = kind.from_pretrained(weights, torch_dtype=getattr(torch, dtype), **parts)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{baseline.title}: the weights {weights!r} are not here and can't be had ({reason}); expected a folder"
            f" of {baseline.pipeline}, or a Hub id that can be reached."
        ) from error
    folder = Path(weights)
    said = weights
    if folder.is_dir():
        said = weights_hash(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    return DiffusersBaseline(baseline, pipe.to(device), said, sampling)


def _frames(out: Any) -> NDArray[np.uint8]:
    """The video of an output, uint8 [T, H, W, 3]: ``frames`` is a batch of videos, ``images`` one video."""
    video = out.frames[0] if hasattr(out, "frames") else out.images
    frames = np.stack([np.asarray(frame) for frame in video])
    if frames.dtype != np.uint8:
        if not np.isfinite(frames).all():
            raise ValueError("The video holds NaN; expected numbers (try dtype=float32 or bfloat16).")
        frames = (frames.clip(0, 1) * 255).round().astype(np.uint8)
    return frames[..., :3]
