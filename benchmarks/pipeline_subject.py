"""The library's own pipeline, as a benchmark sees it.

Imported only after hydra has started: it imports sam2, which puts hydra's global state to its own use.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from benchmarks.subject import Generated, Pixels, Size
from ttm.models.masked_attention import object_token_mask, token_owner
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import decode_latents, encode_video, latent_shape
from ttm.pipelines.conditioning import trajectory_coverage
from ttm.pipelines.embedded import embedded_folder
from ttm.pipelines.inputs import fit_ids, fit_image, to_model, to_uint8

DTYPES = ("float32", "bfloat16", "float16")
REMEMBERED = 256
"""Clips whose round trip is kept: about 200 MB at 17 x 128 x 128."""


class PipelineSubject:
    """A :class:`benchmarks.subject.Subject` made of a ``ttm.Pipeline``.

    Args:
        pipe: the pipeline, on its device.
        source: what it was opened from: "ttm-tiny", a folder, or a Hub id; its last part names it in a report.
        sampling: arguments of every sampling that are not the pipeline's own (num_inference_steps,
            guidance_scale, …).
    """

    def __init__(self, pipe: Any, source: str, sampling: dict[str, Any] | None = None) -> None:
        self.pipe, self.source, self.name = pipe, source, Path(source).name or source
        self.size: Size = (int(pipe.config.height), int(pipe.config.width))
        self.num_frames = int(pipe.config.num_frames)
        self._sampling = {key: value for key, value in (sampling or {}).items() if value is not None}
        self._decoded: dict[bytes, Pixels] = {}
        pipe.set_progress_bar_config(disable=True)

    def round_trip(self, frames: Pixels) -> Pixels:
        """Frames through the autoencoder and back; remembered, because several measures ask for the same clips."""
        key = hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).digest()
        if key not in self._decoded:
            vae = self.pipe.vae
            with torch.no_grad():
                decoded = to_uint8(decode_latents(vae, encode_video(vae, to_model(frames, vae.device))))
            while len(self._decoded) >= REMEMBERED:
                self._decoded.pop(next(iter(self._decoded)))
            self._decoded[key] = decoded
        return self._decoded[key].copy()

    def segment(self, image: Pixels, phrases: list[str]) -> Pixels:
        """First-frame ids of the phrases' objects."""
        return np.asarray(self.pipe.segmenter.segment(image, phrases))

    def track(self, frames: Pixels, first_ids: Pixels) -> Pixels:
        """First-frame ids followed through a video."""
        return np.asarray(self.pipe.segmenter.track(frames, first_ids))

    def predict_motion(self, image: Pixels, first_ids: Pixels, plan: PromptPlan, seed: int) -> MaskTrajectory:
        """Stage 1 alone."""
        stage = self.pipe.image_to_motion
        out = stage(image, plan, first_ids, generator=_generator(seed), **self._sampling)
        return out.trajectory

    def render(self, image: Pixels, trajectory: MaskTrajectory, plan: PromptPlan, seed: int) -> Pixels:
        """Stage 2 alone."""
        stage = self.pipe.motion_to_video
        out = stage(image, plan, trajectory, generator=_generator(seed), **self._sampling)
        return _frames(out.frames[0])

    def generate(
        self, image: Pixels, prompt: str, seed: int, first_ids: Pixels | None = None, size: Size | None = None
    ) -> Generated:
        """Everything."""
        height, width = size or self.size
        out = self.pipe(
            image,
            prompt,
            masks=first_ids,
            height=height,
            width=width,
            generator=_generator(seed),
            **self._sampling,
        )
        return Generated(_frames(out.frames[0]), out.trajectory, out.plan)

    def object_tokens(self, trajectory: MaskTrajectory, num_objects: int) -> tuple[int, int]:
        """How many objects have a token of stage 2: in the sets of cross-attention, as owners in self-attention."""
        latents = latent_shape(self.pipe.vae, trajectory.num_frames, trajectory.height, trajectory.width)[2:]
        ids = torch.from_numpy(trajectory.ids[None])
        coverage = trajectory_coverage(ids, num_objects, latents, self.pipe.transformer.token_patch)
        sets = object_token_mask(coverage).any(dim=1)[0]
        return int(sets.sum()), int((token_owner(coverage).unique() > 0).sum())

    def fit(self, image: Pixels, size: Size | None = None) -> Pixels:
        """The image at the working size."""
        return fit_image(image, *(size or self.size))

    def fit_ids(self, ids: Pixels, size: Size | None = None) -> Pixels:
        """First-frame ids at the working size."""
        return fit_ids(ids, *(size or self.size))


def load_subject(model: str, device: str, dtype: str, sampling: dict[str, Any]) -> PipelineSubject:
    """Open a pipeline: "ttm-tiny", a folder, or a Hub id.

    Raises:
        ValueError: no such pipeline or precision.
    """
    from ttm import Pipeline

    pipe = Pipeline.from_pretrained(model, dtype=read_dtype(dtype))
    if device != "cpu":
        pipe = pipe.to(device)
    return PipelineSubject(pipe, model, sampling)


def read_dtype(name: str) -> torch.dtype:
    """The precision of a ``dtype=`` setting, or ValueError."""
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; expected one of {', '.join(DTYPES)}.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def weight_files(pipe: Any) -> list[Path]:
    """The files that a pipeline was loaded from: embedded, in a folder, or in the Hub's cache."""
    files: list[Path] = []
    for name in ("_name_or_path", "segmenter_from"):
        source = str(pipe.config.get(name) or "")
        folder = embedded_folder(source) or Path(source or "no model")
        if not folder.is_dir():
            folder = _cached(source) or folder
        if folder.is_dir():
            files += [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors") and path.is_file()]
    return files


def _cached(source: str) -> Path | None:
    """Where the Hub's cache keeps the newest revision of a repository that was loaded from it."""
    for name in ("model_index.json", "config.json"):
        try:
            found = try_to_load_from_cache(source, name)
        except HFValidationError:  # no name of a repository
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _frames(images: list[Any]) -> Pixels:
    return np.stack([np.asarray(image.convert("RGB")) for image in images])
