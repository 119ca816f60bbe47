"""The encoder of ttm-tiny's autoencoder in closed form: a principal component analysis within the network's own layers.

Minutes of training on a CPU do not bring an encoder of this size near to what plain linear algebra reaches, so it is
set, not trained, and the decoder alone learns. The two down blocks of ``AutoencoderKLWan`` are a convolution of
stride 2 in space, one of stride 2 in time, and a shortcut that averages; their residual branches start at zero and
stay there. Each convolution takes the principal directions of what it merges, four neighbours or two times.
A set of directions may be turned freely within what it spans, which is used twice:

* in space towards the shortcut, so that what the shortcut adds lies where it is wanted;
* in time towards the mean, so that a standing picture gives what a lone first frame gives.

Letters: N clips, T frames, t latent frames, C channels, h w rows and columns, Z latent channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanResidualBlock
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

OFFSET, CONSTANT = 8.0, 30.0
"""The last norm and SiLU let features pass nearly unchanged that stand at this offset, in deviations, beside spare
channels of this constant: the norm is then nearly the same everywhere, and SiLU is nearly the identity."""

SPECTRUM = 0.8
"""A latent direction's deviation is that of its pixels to this power: 0 would make noise of fine detail as large as of
the whole picture's colour, 1 would leave detail to the last steps of sampling."""

LOG_VARIANCE = -6.0
"""Of the posterior: a deviation of 0.05, small beside the finest detail's."""

STRIDE = 3
"""Every third sample is enough for a fit."""


@torch.no_grad()
def set_linear_encoder(vae: AutoencoderKLWan, clips: Tensor, like: Tensor | None = None, seed: int = 0) -> None:
    """Set the encoder's weights so that its latents are the principal components of clips.

    Args:
        vae: two down blocks that halve time and space, with residual shortcuts, and no fewer channels than latent ones.
        clips: float [N, 3, T, H, W] in -1..1, T = 1 + 4 k; some hundreds, or the directions do not generalise.
        like: float [N, Z, t, h, w], normalised latents of the same clips by another encoder; the new ones are turned to
            be as like them as a rotation can make them, so that what was trained on those can go on. Without it the
            rotation is random: every channel then has about the same deviation.
        seed: of the random rotation.
    """
    encoder, latent_channels = vae.encoder, vae.config.z_dim
    for module in encoder.modules():
        if isinstance(module, WanResidualBlock):
            _zero(module.conv2)
        elif isinstance(module, WanAttentionBlock):
            _zero(module.proj)
    features = _set_first(encoder.conv_in, _packed(clips, vae.config.patch_size))
    features, _ = _set_halving(encoder.down_blocks[0], features, features.shape[2], last=False)
    features, plain = _set_halving(encoder.down_blocks[1], features, latent_channels, last=True)
    latents = _latents(plain.flatten(0, 3))
    if like is None:
        rotation = _random_rotation(latent_channels, seed)
    else:
        rotation = _rotation_towards(latents, rearrange(like, "n z t h w -> (n t h w) z"))
    _set_last(vae, 2 * features, latents @ rotation)


def principal_directions(x: Tensor, count: int) -> Tensor:
    """The orthonormal directions that hold most of the energy of x [N, D]: [count, D]."""
    _, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    return vectors[:, -count:].flip(1).T.to(x.dtype)


def turned_towards(basis: Tensor, goal: Tensor) -> Tensor:
    """The basis [k, D], turned within its span to be as like ``goal`` [k, D] as it can be (orthogonal Procrustes)."""
    u, _, v = torch.linalg.svd((basis @ goal.T).double())
    return (u @ v).T.to(basis.dtype) @ basis


def _packed(clips: Tensor, patch: int) -> Tensor:
    """Pixels of a patch as channels, in the order that the autoencoder packs them: [N, T, C, h, w]."""
    return rearrange(clips, "n c t (h q) (w r) -> n t (c r q) h w", q=patch, r=patch)


def _set_first(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """The first convolution turns each patch into its principal components, most energy first."""
    channels = x.shape[2]
    directions = principal_directions(rearrange(x, "n t c h w -> (n t h w) c")[::STRIDE], channels)
    _zero(conv)
    conv.weight[:channels, :, -1, 1, 1] = directions
    turned = torch.einsum("oc,ntchw->ntohw", directions, x)
    return functional.pad(turned, (0, 0, 0, 0, 0, conv.out_channels - channels))


def _set_halving(block: Any, x: Tensor, count: int, last: bool) -> tuple[Tensor, Tensor]:
    """Set a down block's two convolutions to keep ``count`` directions of 2 x 2 neighbours, then of two times.

    Args:
        block: a ``WanResidualDownBlock`` that halves space and time.
        x: what enters it, [N, T, C, h, w].
        count: how many channels carry something.
        last: scale to deviation 1 / 2 and set the offset, half of it: the shortcut of the block that follows doubles.

    Returns:
        What leaves it [N, t, C, h / 2, w / 2], and its first ``count`` channels before scale and offset.
    """
    channels = x.shape[2]
    near = rearrange(x, "n t c (h q) (w r) -> n t h w (c q r)", q=2, r=2)
    # The shortcut averages a channel over 2 x 2 and two times; the time before a first frame counts as zero.
    averages = torch.eye(channels).repeat_interleave(4, dim=1) / 8
    shortcut = near @ averages.T
    directions = principal_directions(near.flatten(0, 3)[::STRIDE], count)
    directions = turned_towards(directions, averages[:count])
    single = near @ directions.T
    pairs = torch.cat([single[:, 1::2], single[:, 2::2]], dim=-1)
    in_time = principal_directions(pairs.flatten(0, 3)[::STRIDE], count)
    in_time = turned_towards(in_time, torch.eye(count).repeat(1, 2)) / 2**0.5
    plain = torch.cat([single[:, :1], pairs @ in_time.T], dim=1)

    scale, offset = torch.ones(count), torch.zeros(channels)
    if last:
        samples = plain.flatten(0, 3)
        scale = 0.5 / samples.std(0)
        offset[:count], offset[count:] = OFFSET / 2 - samples.mean(0) * scale, CONSTANT / 2
    wanted = functional.pad(plain * scale, (0, channels - count)) + offset

    space, time = block.downsampler.resample[1], block.downsampler.time_conv
    _zero(space)
    weight = functional.pad(directions * scale[:, None], (0, 0, 0, channels - count)) - averages
    space.weight[:, :, :2, :2] = rearrange(weight, "o (c q r) -> o c q r", q=2, r=2)
    space.bias.copy_(offset)
    given = near @ weight.T + offset
    given = torch.cat([given[:, 1::2], given[:, 2::2]], dim=-1)
    added = shortcut[:, 1::2] + shortcut[:, 2::2]
    fit = _least_squares(given.flatten(0, 3)[::STRIDE], (wanted[:, 1:] - added).flatten(0, 3)[::STRIDE], 1e-9)
    _zero(time)
    time.weight[:, :, 1:, 0, 0] = rearrange(fit[:-1], "(k c) o -> o c k", k=2)
    time.bias.copy_(fit[-1])
    later = given @ fit[:-1] + fit[-1] + added
    return rearrange(torch.cat([wanted[:, :1], later], dim=1), "n t h w c -> n t c h w"), plain


def _random_rotation(size: int, seed: int) -> Tensor:
    rotation: Tensor = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)))[0]
    return rotation


def _rotation_towards(x: Tensor, goal: Tensor) -> Tensor:
    """The rotation [Z, Z] that makes x [N, Z] as like ``goal`` [N, Z] as one can."""
    u, _, v = torch.linalg.svd((x.T @ (goal - goal.mean(0))).double())
    return (u @ v).to(x.dtype)


def _latents(features: Tensor) -> Tensor:
    """What the latents shall be before they are turned, [N, Z]: principal components of chosen deviations."""
    centred = features - features.mean(0)
    energies, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    deviations = energies.sqrt()
    chosen = deviations**SPECTRUM
    return centred @ directions * (chosen / chosen.square().mean().sqrt() / deviations)


def _set_last(vae: AutoencoderKLWan, features: Tensor, latents: Tensor) -> None:
    """The last norm lets the features pass; the last convolution, by least squares, makes them the latents."""
    encoder, count = vae.encoder, latents.shape[1]
    size = features.square().mean(2, keepdim=True).sqrt()
    encoder.norm_out.gamma.fill_(float(size.mean()))
    passed = functional.silu(features / size * size.mean())
    fit = _least_squares(rearrange(passed, "n t c h w -> (n t h w) c"), latents, 1e-5)
    _zero(encoder.conv_out)
    encoder.conv_out.weight[:count, :, -1, 1, 1] = fit[:-1].T
    encoder.conv_out.bias[:count] = fit[-1]
    encoder.conv_out.bias[count:] = LOG_VARIANCE
    _zero(vae.quant_conv)
    vae.quant_conv.weight[:, :, 0, 0, 0] = torch.eye(2 * count)


def _least_squares(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Weights and, last, bias of the best linear map of x [N, D] to y [N, K]: [D + 1, K]."""
    x = functional.pad(x, (0, 1), value=1.0)
    left = (x.T @ x / len(x)).double() + ridge * torch.eye(x.shape[1])
    return torch.linalg.solve(left, (x.T @ y / len(x)).double()).to(x.dtype)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
