"""Samples for a host that takes an image by itself: the first frame of the clip that the stage makes.

Letters: B batch, Z latent channels, t h w the latent grid, Ci of the image condition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.host import expect_component, load_image_encoder, load_vae, module_digest
from stages.settings import Settings
from stages.task import Batch, Task
from stages.whole_files import read_tensors, write_tensors
from ttm.motion.representation import motion_representation
from ttm.pipelines.autoencoders import decode_latents
from ttm.pipelines.host_image import check_first_frame_known, host_image, known_first_frame

GiveImage = Callable[[Tensor, int], dict[str, Tensor]]
"""E(first frame), float32 [B, Z, 1, h, w], and t -> fields of ``Conditions``."""


class ImageTask:
    """A stage's samples, each with the image for the host; see :class:`stages.task.Task`.

    Autoencoders encode frame 0 alone, so the first latent frame of a sample's clean latents is E(first frame).
    """

    def __init__(self, task: Task, give: GiveImage) -> None:
        self.task, self.give = task, give
        self.num_scenes, self.nothing, self.nothing_mask = task.num_scenes, task.nothing, task.nothing_mask

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        batch = self.task.batch(indices)
        own = self.give(batch.data[:, :, :1], batch.data.shape[2])
        return replace(batch, conditions=replace(batch.conditions, **own))


def check_host_image(settings: Settings, model: Any) -> None:
    """Refuse before slow work a host whose own image can't be given.

    Raises:
        ValueError: the pipeline lacks the image encoder that the host needs, or the first frame is not known before the
            clip is made.
    """
    if not model.image_channels:
        return
    if settings.stage.name == "image_to_motion":
        check_first_frame_known(motion_representation(settings.motion.name))
    if model.config.get("image_dim") is not None:
        for name in ("image_encoder", "image_processor"):
            expect_component(settings.host.pipeline, name)


def with_host_image(task: Task, settings: Settings, model: Any, device: torch.device) -> Task:
    """The samples as a host wants them: as they are, unless it takes an image by itself.

    Raises:
        ValueError: as :func:`check_host_image`.
    """
    check_host_image(settings, model)
    if not model.image_channels:
        return task
    if model.config.get("known_first_frame"):
        return ImageTask(task, lambda first, frames: {"image_latents": known_first_frame(first, frames)})
    return ImageTask(task, EncodedImages(settings, model, device))


class EncodedImages:
    """What Wan's image-to-video host is given of each first frame, encoded when first met and kept as a file.

    The cache of clips holds latents and no pixels, so the picture is what the autoencoder makes of E(first frame). A
    file is named by these latents and t, and its folder by the encoders, so it serves every run and process.

    Args:
        settings: of the run.
        model: the host.
        device: to encode on.
    """

    def __init__(self, settings: Settings, model: Any, device: torch.device) -> None:
        pipeline = settings.host.pipeline
        self.model, self.vae = model, load_vae(pipeline, device)
        self.images: tuple[Any, Any] = (None, None)
        name = module_digest(self.vae)  # the rows hold what its decoder makes, too
        if model.config.get("image_dim") is not None:
            self.images = load_image_encoder(pipeline, device)
            name += "-" + module_digest(self.images[0])
        self.folder = Path(settings.data.cache_dir) / f"host-image-{name}"

    def __call__(self, first: Tensor, num_latent_frames: int) -> dict[str, Tensor]:
        rows = [self._row(sample[None], num_latent_frames) for sample in first]
        return {name: torch.cat([row[name] for row in rows]).float() for name in rows[0]}

    @torch.no_grad()
    def _row(self, first: Tensor, num_latent_frames: int) -> dict[str, Tensor]:
        said = first.half().numpy().tobytes() + str((tuple(first.shape), num_latent_frames)).encode()
        path = self.folder / f"{hashlib.sha256(said).hexdigest()[:24]}.safetensors"
        if path.exists():
            return read_tensors(path, "remove it; it is made anew.")
        picture = decode_latents(self.vae, first.to(self.vae.device))
        found = host_image(self.vae, self.model, picture, num_latent_frames, *self.images)
        row = {name: value.half().cpu() for name, value in found.items()}
        write_tensors(path, row)
        return row
