"""How a host that takes an image by itself is given it: functions of tensors that know no model.

An image condition is two things side by side on the channels: where the picture is known (1 or 0), and its latents
there (0 elsewhere). Zeros everywhere say that there is no image, so it is dropped as every other condition is.

Letters: B batch, C channels of the latents, Ci of the image condition, T h w the latent grid, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

LEAST_SIGMA = 1e-3
"""Noise levels below a step of the training's 1000 are no levels."""


def image_or_nothing(latents: Tensor, image: Tensor | None, channels: int) -> Tensor:
    """The image condition [B, Ci, T, h, w] in the latents' dtype, zeros where there is none.

    Args:
        latents: noisy latents [B, C, T, h, w].
        image: the condition, or None.
        channels: Ci, what the host takes; 0: nothing.

    Raises:
        ValueError: the condition is of another shape, or the host takes none.
    """
    wanted = (latents.shape[0], channels, *latents.shape[2:])
    if image is None:
        return latents.new_zeros(wanted)
    if tuple(image.shape) != wanted or not channels:
        expected = f"{list(wanted)}" if channels else "None: this host takes no image of its own"
        raise ValueError(f"image_latents is {list(image.shape)}; expected {expected}.")
    return image.type_as(latents)


def with_first_frame(latents: Tensor, image: Tensor) -> Tensor:
    """Known latents in the place of the noisy ones: [B, C, T, h, w] and [B, 1 + C, T, h, w] -> [B, C, T, h, w]."""
    known, picture = image[:, :1], image[:, 1:]
    return (1 - known) * latents + known * picture


def token_timesteps(timestep: Tensor, image: Tensor, patch: Sequence[int]) -> Tensor:
    """The timestep of each token, float [B, N]: 0 where the picture is known (Wan 2.2 TI2V).

    Args:
        timestep: [B], or [B, N].
        image: the condition [B, 1 + C, T, h, w].
        patch: latent frames, rows and columns of a token.
    """
    t, h, w = patch
    unknown = rearrange(1 - image[:, 0, ::t, ::h, ::w].float(), "b t h w -> b (t h w)")
    return unknown * (timestep if timestep.ndim == 2 else timestep[:, None])


def with_known_velocity(sample: Tensor, latents: Tensor, timestep: Tensor, image: Tensor) -> Tensor:
    """Flow matching's velocity where the picture x0 is known: (z - x0) / sigma, with sigma = timestep / 1000.

    Args:
        sample: what the host predicts, [B, C, T, h, w].
        latents: z, as it was before the picture took its place.
        timestep: [B] in 0..1000, or [B, N] (the largest counts).
        image: the condition [B, 1 + C, T, h, w].
    """
    known, picture = image[:, :1] > 0, image[:, 1:].float()
    sigma = (timestep.amax(dim=1) if timestep.ndim == 2 else timestep).float() / 1000
    velocity = (latents.float() - picture) / rearrange(sigma.clamp(min=LEAST_SIGMA), "b -> b 1 1 1 1")
    return torch.where(known, velocity.type_as(sample), sample)
