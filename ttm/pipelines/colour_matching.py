"""Later frames brought to the colours of the first: latents by their statistics, pixels by their histogram.

Letters: B batch, Z latent channels, T frames, h w the latent grid, H W pixels.

Both are off by default in the few-shot pipeline. LAMP (Wu et al. 2024) uses both at inference; they also take away
what should change (an object that turns green, a light that goes on).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import match_histograms
from torch import Tensor


def match_latent_statistics(latents: Tensor, first: Tensor, eps: float = 1e-5) -> Tensor:
    """Adaptive instance normalisation (AdaIN, Huang and Belongie 2017) of frames to a first frame.

    Every channel of every frame gets the mean and the standard deviation that the channel has in ``first``.

    Args:
        latents: float [B, Z, T, h, w].
        first: whose statistics to take, [B, Z, 1, h, w].
        eps: least standard deviation that is divided by; a constant channel stays constant.

    Returns:
        [B, Z, T, h, w].

    Raises:
        ValueError: the shapes don't fit.
    """
    if latents.ndim != 5 or first.shape != (*latents.shape[:2], 1, *latents.shape[3:]):
        raise ValueError(
            f"latents is {list(latents.shape)} and first {list(first.shape)}; expected [B, Z, T, h, w] and"
            " [B, Z, 1, h, w]."
        )
    places = (-2, -1)
    mean, wanted_mean = latents.mean(places, keepdim=True), first.mean(places, keepdim=True)
    spread, wanted_spread = (x.std(places, keepdim=True, correction=0) for x in (latents, first))
    return (latents - mean) / spread.clamp(min=eps) * wanted_spread + wanted_mean


def match_frame_histograms(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every later frame with the first frame's histogram, channel by channel.

    Args:
        frames: uint8 [T, H, W, 3].

    Returns:
        uint8 [T, H, W, 3]; frame 0 as it was.

    Raises:
        ValueError: another shape or dtype.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"frames is {frames.dtype} {list(frames.shape)}; expected uint8 [T, H, W, 3], not empty.")
    matched = [match_histograms(frame, frames[0], channel_axis=-1) for frame in frames[1:]]
    later = [np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in matched]
    return np.stack([frames[0], *later])
