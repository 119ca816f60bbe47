"""First-frame sharing: noise of which every frame holds a share of one common latent.

Letters: B batch, Z latent channels, T frames, h w the latent grid.

Source: the few-shot paper (arXiv 2503.18386), Eq. 8, after LAMP (Wu et al. 2024). LAMP shares a drawn noise e_0; the
few-shot paper shares the first frame's latent z_0, so that its colours are in every frame from the first step on.
Both mix it into a frame's own noise e_i with one ratio r:

    e_i' = r e_0 + (1 - r) e_i

What is shared may be another latent for every frame: the first frame carried along the masks
(:mod:`ttm.motion.carried_frame`). Eq. 8 shares the first frame as it is, and so calls the object back to its first
place, the more so the larger r is; carried, it calls each object to where its mask is. That is not in the paper.

For e_0 and e_i of unit variance and independent, the variance of e_i' is r^2 + (1 - r)^2: 0.68 at r = 0.2, a standard
deviation of 0.82. A sampler that starts at its strongest noise level expects 1, so the mixture looks to it like a
clip that is a little less noisy than it is told. The renormalised form divides by sqrt(r^2 + (1 - r)^2), which brings
the variance back to 1 and changes no correlation: two frames share r^2 / (r^2 + (1 - r)^2) either way (0.059 at 0.2).
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ttm.pipelines.inputs import check_scale

SHARING_RATIO = 0.2
"""The ratio that the few-shot paper found best."""


def share_first_frame(noise: Tensor, shared: Tensor, ratio: float = SHARING_RATIO, renormalise: bool = False) -> Tensor:
    """Eq. 8: mix one latent into the noise of every frame.

    Args:
        noise: the frames' own noise, float [B, Z, T, h, w].
        shared: what they share, the first frame's latent, [B, Z, 1, h, w]; or one for each frame, [B, Z, T, h, w].
        ratio: r, 0 (nothing is shared; the noise is returned as it is) to 1 (nothing else is left).
        renormalise: divide by sqrt(r^2 + (1 - r)^2), so that the variance stays 1. The latent is taken to have unit
            variance, as autoencoders' latents have after their scaling.

    Returns:
        [B, Z, T, h, w].

    Raises:
        ValueError: the ratio lies outside 0..1, or the shapes don't fit.
    """
    check_ratio(ratio)
    if noise.ndim != 5 or shared.shape not in (noise.shape, (*noise.shape[:2], 1, *noise.shape[3:])):
        raise ValueError(
            f"noise is {list(noise.shape)} and shared {list(shared.shape)}; expected [B, Z, T, h, w] and"
            " [B, Z, 1 or T, h, w]."
        )
    if ratio == 0:
        return noise
    mixed = ratio * shared + (1 - ratio) * noise
    return mixed / math.sqrt(mixture_variance(ratio)) if renormalise else mixed


def mixture_variance(ratio: float) -> float:
    """Variance of the mixture of two independent latents of unit variance: r^2 + (1 - r)^2."""
    return ratio**2 + (1 - ratio) ** 2


def check_ratio(ratio: Any) -> float:
    """A sharing ratio, 0 to 1, or ValueError."""
    value = check_scale(ratio, "sharing_ratio")
    if value > 1:
        raise ValueError(f"sharing_ratio is {ratio}; expected 0 (nothing is shared) to 1.")
    return value
