"""Clips to normalised latents and back, whichever autoencoder packs them.

Two kinds: ``AutoencoderKLWan`` and ``AutoencoderKLLTXVideo`` take a clip as a whole (frame 0 alone, then frames in
groups), ``AutoencoderKL`` (Stable Diffusion) takes one image at a time, so that a clip has as many latent frames
as frames. Everything else asks the functions here, and never which of them it is.

Letters: B batch, T frames, H W pixels, t h w latent frames, rows and columns, Z latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLLTXVideo, AutoencoderKLWan
from einops import rearrange
from torch import Tensor

AUTOENCODERS = (AutoencoderKLWan, AutoencoderKLLTXVideo, AutoencoderKL)
IMAGES_AT_ONCE = 8
"""Images that an image autoencoder gets in one call, so that memory does not grow with a clip's length."""


@dataclass(frozen=True)
class LatentFormat:
    """What an autoencoder's latents are like.

    Attributes:
        channels: Z.
        group: frames of one latent frame after the first.
        space: pixels of a latent's side.
        mean, std: of each channel, as the autoencoder states them; length Z.
        image_by_image: the autoencoder takes single images [N, 3, H, W], not clips.
    """

    channels: int
    group: int
    space: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_by_image: bool

    @classmethod
    def of(cls, vae: Any) -> LatentFormat:
        """Of one of ``AUTOENCODERS``.

        Raises:
            ValueError: another class; an encoder that is not causal; a decoder that wants a timestep (LTX-Video from
                0.9.1 on).
        """
        config = vae.config
        if isinstance(vae, AutoencoderKLWan):
            statistics = tuple(config.latents_mean), tuple(config.latents_std)
            return cls(config.z_dim, config.scale_factor_temporal, config.scale_factor_spatial, *statistics, False)
        if isinstance(vae, AutoencoderKLLTXVideo):
            if not config.encoder_causal:
                raise ValueError(
                    "The encoder of this AutoencoderKLLTXVideo sees later frames in the first latent frame;"
                    " expected one with encoder_causal."
                )
            if config.timestep_conditioning:
                raise ValueError(
                    "The decoder of this AutoencoderKLLTXVideo is one that denoises, at a timestep of its own;"
                    " expected one without timestep_conditioning."
                )
            scale = vae.latents_std / config.scaling_factor
            statistics = tuple(vae.latents_mean.tolist()), tuple(scale.tolist())
            group, space = vae.temporal_compression_ratio, vae.spatial_compression_ratio
            return cls(config.latent_channels, group, space, *statistics, False)
        if isinstance(vae, AutoencoderKL):
            space = 2 ** (len(config.block_out_channels) - 1)
            return cls(config.latent_channels, 1, space, *_image_statistics(config), True)
        expected = ", ".join(kind.__name__ for kind in AUTOENCODERS)
        raise ValueError(f"vae is a {type(vae).__name__}; expected one of {expected}.")


def _image_statistics(config: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Stable Diffusion's (z - shift) * scaling, or SDXL's (z - mean) * scaling / std, as a mean and a std."""
    channels = config.latent_channels
    mean = config.latents_mean or [config.shift_factor or 0.0] * channels
    std = config.latents_std or [1.0] * channels
    return tuple(mean), tuple(value / config.scaling_factor for value in std)


def latent_shape(vae: Any, num_frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
    """(1, Z, t, h, w) of a clip's latents."""
    form = LatentFormat.of(vae)
    return 1, form.channels, (num_frames - 1) // form.group + 1, height // form.space, width // form.space


def encode_video(vae: Any, frames: Tensor) -> Tensor:
    """Encode a clip, and normalise its latents with the autoencoder's own statistics.

    The mode of the posterior is taken, so that the same clip always has the same latents. The first latent
    frame is that of frame 0 alone.

    Args:
        vae: one of ``AUTOENCODERS``.
        frames: float [B, 3, T, H, W] in -1..1, on the autoencoder's device; T = 1 + k * time factor.

    Returns:
        float32 [B, Z, t, h, w] of about unit variance.

    Raises:
        ValueError: another shape, or a T, H or W that the autoencoder can't pack.
    """
    form = LatentFormat.of(vae)
    if frames.ndim != 5 or frames.shape[1] != 3 or 0 in frames.shape:
        shape = list(frames.shape)
        raise ValueError(f"frames has shape {shape}; expected [B, 3, T, H, W] with no empty axis.")
    if (frames.shape[2] - 1) % form.group or frames.shape[3] % form.space or frames.shape[4] % form.space:
        raise ValueError(
            f"frames has shape {list(frames.shape)}; this autoencoder packs T = 1 + {form.group} k frames, and H"
            f" and W that are multiples of {form.space}."
        )

    def encode(part: Tensor) -> Tensor:
        mode: Tensor = vae.encode(part.to(vae.dtype)).latent_dist.mode()
        return mode.float()

    latents = _image_by_image(encode, frames) if form.image_by_image else encode(frames)
    mean, std = _statistics(form, latents)
    return (latents - mean) / std


def decode_latents(vae: Any, latents: Tensor, *, clamp: bool = True) -> Tensor:
    """The inverse of :func:`encode_video`, as far as the autoencoder goes.

    Args:
        vae: one of ``AUTOENCODERS``.
        latents: float [B, Z, t, h, w], normalised.
        clamp: bring what lies beyond -1..1 to its ends; False where a gradient has to pass.

    Returns:
        float32 [B, 3, T, H, W] in -1..1.

    Raises:
        FloatingPointError: a frame is not finite, as when half precision overflows in the autoencoder or before it;
            as pixels it would be black.
    """
    form = LatentFormat.of(vae)
    mean, std = _statistics(form, latents)
    latents = latents.float() * std + mean

    def decode(part: Tensor) -> Tensor:
        sample: Tensor = vae.decode(part.to(vae.dtype)).sample
        return sample.float()

    video = _image_by_image(decode, latents) if form.image_by_image else decode(latents)
    if not torch.isfinite(video).all():
        raise FloatingPointError(
            f"The autoencoder's frames hold NaN or infinity in {str(vae.dtype).removeprefix('torch.')}; expected finite"
            " numbers: take bfloat16 or float32."
        )
    return video.clamp(-1, 1) if clamp else video


def _image_by_image(code: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """Apply a function of images [N, C, H, W] to a clip [B, C, T, H, W], a few images at a time."""
    images = rearrange(clip, "b c t h w -> (b t) c h w")
    coded = torch.cat([code(part) for part in images.split(IMAGES_AT_ONCE)])
    return rearrange(coded, "(b t) c h w -> b c t h w", b=clip.shape[0])


def _statistics(form: LatentFormat, latents: Tensor) -> tuple[Tensor, Tensor]:
    values = torch.tensor([form.mean, form.std], device=latents.device)
    mean, std = rearrange(values, "two z -> two 1 z 1 1 1")
    return mean, std
