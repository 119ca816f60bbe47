"""A second loss beside the latents': how far what a prediction stands for looks from what it should.

Letters: B batch, Z latent channels, t h w the latent grid, H W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stages.draws import sample_rng
from stages.task import Batch
from ttm.pipelines.autoencoders import LatentFormat, decode_latents


class DecodedError:
    """Mean absolute error of pixels (of -1..1) between the data that a prediction stands for and the true data.

    A squared error of latents counts a direction by its variance, whether it is seen or not, and is least at the mean
    of all that may be there. Pixels are what is seen, and an absolute error is least at their median. Decoding costs as
    much as the small hosts themselves; so each sample shows one of its frames, drawn for the sample, never the first,
    which is given.

    Args:
        vae: frozen, of single images, on the device of the predictions.
        seed: of the run.
        object_weight: how objects weigh, as in the latents' loss (``StageSettings``).

    Raises:
        ValueError: an autoencoder of clips, which can't decode one frame without those before it.
    """

    def __init__(self, vae: Any, seed: int, object_weight: float) -> None:
        if not LatentFormat.of(vae).image_by_image:
            raise ValueError(
                f"stage.decoded_weight is above 0 and the autoencoder {type(vae).__name__}; expected AutoencoderKL,"
                " whose frames are decoded one by one, or 0."
            )
        self.vae, self.seed, self.object_weight = vae, seed, object_weight

    def __call__(self, estimate: Tensor, batch: Batch, indices: NDArray[np.int64]) -> Tensor:
        """The error, a scalar.

        Args:
            estimate: what a model takes for ``batch.data``, [B, Z, t, h, w].
            batch: the samples.
            indices: their global indices, [B].
        """
        shown = self.shown(indices, estimate.shape[2])
        guess, true, covered = (_frames(part, shown) for part in (estimate, batch.data, batch.covered))
        made = decode_latents(self.vae, guess, clamp=False)
        with torch.no_grad():
            goal = decode_latents(self.vae, true.to(estimate.device), clamp=False)
        error = (made - goal).abs().mean(dim=(1, 2))
        if self.object_weight > 0:
            pixels = F.interpolate(covered.squeeze(2).to(error.device), size=error.shape[-2:], mode="bilinear")
            weights = 1 + self.object_weight * pixels.squeeze(1)
            error = error * (weights / weights.mean(dim=(1, 2), keepdim=True))
        return error.mean()

    def shown(self, indices: NDArray[np.int64], num_frames: int) -> Tensor:
        """Which of the latent frames each sample shows, int [B]."""
        first = min(1, num_frames - 1)
        drawn = [sample_rng(self.seed, int(index), "frame").integers(first, num_frames) for index in indices]
        return torch.from_numpy(np.array(drawn, np.int64))


def _frames(clips: Tensor, shown: Tensor) -> Tensor:
    """One frame of each clip [B, C, T, H, W], as clips of one frame [B, C, 1, H, W]."""
    places = torch.arange(len(shown), device=clips.device)
    return clips[places, :, shown.to(clips.device)].unsqueeze(2)
