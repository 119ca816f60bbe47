"""The library's other models on a suite: the TI2V twin of Through-The-Mask, and the few-shot variant.

``model=ti2v:FOLDER``: a ``ttm.Pipeline`` whose stage 2 was trained without trajectories, every mask background; it gets
the picture and the sentence and nothing else, as the paper's TI2V baseline does, at an equal number of parameters.
``model=few-shot:FOLDER``: a ``FewShotPipeline``; it follows the suite's true trajectories, and draws the first frame
itself where a sample has none.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generators import Made, first_frame, weights_hash
from benchmarks.manifest import Sample
from benchmarks.true_clips import timed_trajectory
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import whole_plan

CLIP = ("num_frames", "height", "width")


class FirstFrameAlone:
    """Stage 2 of a pipeline on nothing but picture and sentence: the TI2V twin.

    Args:
        pipe: a ``ttm.Pipeline``, on its device.
        name: what to call it.
        weights: hash of its files.
        sampling: num_frames, height, width, num_inference_steps, guidance_scale, image_guidance_scale; None = the
            pipeline's own.
    """

    def __init__(self, pipe: Any, name: str, weights: str, sampling: Mapping[str, Any]) -> None:
        self.name, self._pipe = name, pipe
        self._sampling = {key: value for key, value in sampling.items() if value is not None}
        self.identity = {"ti2v": weights, "sampling": self._sampling}
        pipe.set_progress_bar_config(disable=True)

    def generate(self, sample: Sample, seed: int) -> Made:
        """One video; it follows no trajectory."""
        import torch

        from ttm.pipelines.autoencoders import latent_shape
        from ttm.pipelines.inputs import fit_image
        from ttm.pipelines.stage_pipeline import draw_noise

        stage = self._pipe.motion_to_video
        num_frames, height, width = (int(self._sampling.get(name, stage.config[name])) for name in CLIP)
        scales = (self._sampling.get(n) for n in ("num_inference_steps", "guidance_scale", "image_guidance_scale"))
        sampling = stage.check_sampling(*scales, None, ("latents",))
        shape = latent_shape(stage.vae, num_frames, height, width)
        noise = draw_noise(shape, torch.Generator().manual_seed(seed), stage.vae.device)
        picture = fit_image(first_frame(sample), height, width)
        nothing = MaskTrajectory(np.zeros((num_frames, height, width), np.uint8))
        with torch.no_grad():
            (video,) = stage.render(picture, whole_plan(sample.prompt), nothing, noise, sampling)
        return Made(np.stack([np.asarray(frame.convert("RGB")) for frame in video]), float(stage.config.fps))

    def inputs(self, sample: Sample) -> list[Path]:
        """None."""
        return []


class FewShot:
    """A few-shot pipeline on a suite of trajectories.

    Args:
        pipe: a ``FewShotPipeline``, on its device.
        name: what to call it.
        weights: hash of its files.
        sampling: arguments of every call; None counts as not given.
    """

    def __init__(self, pipe: Any, name: str, weights: str, sampling: Mapping[str, Any]) -> None:
        self.name, self._pipe = name, pipe
        self._sampling = {key: value for key, value in sampling.items() if value is not None}
        self.identity = {"few-shot": weights, "sampling": self._sampling, "fps": float(pipe.config.fps)}
        pipe.set_progress_bar_config(disable=True)

    def generate(self, sample: Sample, seed: int) -> Made:
        """One video, as long as the sample's trajectory and at the model's own rate, and the masks that it followed.

        Raises:
            ValueError: the sample has no trajectory, or anything that the pipeline says.
        """
        import torch

        if sample.trajectory is None:
            raise ValueError("The sample has no trajectory; expected one for a few-shot model to follow.")
        truth, fps = MaskTrajectory.load(sample.trajectory), float(self._pipe.config.fps)
        length = 1 + int((truth.num_frames - 1) / truth.fps * fps + 1e-6)
        masks = timed_trajectory(sample.trajectory, length, fps)
        picture = first_frame(sample) if sample.image or sample.video else None
        generator = torch.Generator().manual_seed(seed)
        out = self._pipe(sample.prompt, masks, picture, generator=generator, **self._sampling)
        frames = np.stack([np.asarray(frame.convert("RGB")) for frame in out.frames[0]])
        return Made(frames, masks.fps, out.trajectory, trajectory_given=True)

    def inputs(self, sample: Sample) -> list[Path]:
        """None."""
        return []


def load_few_shot(folder: Path, name: str, sampling: Mapping[str, Any], device: str, dtype: str) -> FewShot:
    """Open what ``python -m stages.few_shot`` wrote.

    Raises:
        ValueError: no such folder, or a damaged one.
    """
    import torch

    from ttm.pipelines.few_shot import FewShotPipeline

    pipe = FewShotPipeline.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
    weights = weights_hash(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    return FewShot(pipe, name, weights, sampling)
