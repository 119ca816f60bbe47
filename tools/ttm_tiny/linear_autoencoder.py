"""The best linear autoencoder, set by linear algebra within the layers of ``AutoencoderKLLTXVideo``.

Minutes of training on a CPU bring an autoencoder of this size nowhere near to what plain linear algebra reaches, so
it begins there: the encoder is the principal components of blocks of pixels, the decoder the least squares of the
pixels given a latent and its neighbours. That takes a decoder whose upsampling knows where in a cell a pixel lies:
each of this one's convolutions makes all eight places of a cell at once, as channels. (One that repeats a cell and then
convolves, as that of ``AutoencoderKLWan``, does not: a flat field of latents stays flat.)

A block is what one latent sees: 4 frames of 16 x 16 pixels. Frame 0 counts as a block in which it stands still.
Two norms and SiLUs lie on the way, before each last convolution. Beside spare channels of a large constant the
norm is the same everywhere, and near zero SiLU is x / 2: both pass what is small.

Letters: N clips, T frames, t latent frames, C channels, h w rows and columns, Z latent channels, D values of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

LATENT_CONSTANT, PIXEL_CONSTANT = 300.0, 25.0
"""Of the spare channels. What passes beside them is bent by 0.2% of its deviation in the encoder, by 2% in the decoder,
whose residual blocks must still be able to learn beside them."""

SPECTRUM = 0.8
"""A latent direction's deviation is that of its pixels to this power: 0 would make noise of fine detail as large as of
the whole picture's colour, 1 would leave detail to the last steps of sampling."""

STRIDE = 7
"""Every seventh sample is enough for directions; it goes around the places of a row."""

LOG_VARIANCE = -6.0
"""Of the posterior: a deviation of 0.05, small beside the finest detail's."""


@torch.no_grad()
def set_linear_autoencoder(
    vae: AutoencoderKLLTXVideo, clips: Tensor, like: Tensor | None = None, seed: int = 0
) -> None:
    """Set the weights so that latents are principal components of the clips, and decoding is the best linear map back.

    Residual blocks start at zero and stay for training to use.

    Args:
        vae: two blocks of one width that halve time and space, an encoder without residual blocks.
        clips: float [N, 3, T, H, W] in -1..1, T = 1 + 4 k; some hundreds, or the directions do not generalise.
        like: float [N, Z, t, h, w], latents of the same clips by another encoder; the new ones are then the linear
            functions of a block that come nearest to them, so that what was trained on those goes on. Without it
            they are principal components, turned at random: every channel then has about the same deviation.
        seed: of the random rotation.
    """
    count = vae.config.latent_channels
    packed = packed_patches(clips, vae.config.patch_size)
    if like is None:
        weight, bias = _principal_latents(packed, count, seed)
    else:
        weight, bias = _fitted(_blocks(packed, 2), rearrange(like, "n z t h w -> (n t h w) z"))
    _set_encoder(vae.encoder, weight, bias, packed)
    latents = torch.cat([vae.encode(clip[None]).latent_dist.mode() for clip in clips])
    _set_decoder(vae.decoder, latents, packed)


def packed_patches(clips: Tensor, patch: int) -> Tensor:
    """Pixels of a patch as channels, in the order that the autoencoder packs them: [N, T, C, h, w]."""
    return rearrange(clips, "n c t (h q) (w r) -> n t (c r q) h w", q=patch, r=patch)


def principal_directions(x: Tensor, count: int) -> Tensor:
    """The orthonormal directions that hold most of the energy of x [N, D]: [count, D]."""
    _, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    return vectors[:, -count:].flip(1).T.to(x.dtype)


def _blocks(packed: Tensor, halvings: int) -> Tensor:
    """What each cell sees after so many halvings, its first frame standing still before: [positions, D]."""
    size = 2**halvings
    still = packed[:, :1].expand(-1, size - 1, -1, -1, -1)
    whole = torch.cat([still, packed], dim=1)
    return rearrange(whole, "n (t a) c (h b) (w d) -> (n t h w) (c a b d)", a=size, b=size, d=size)


def _principal_latents(packed: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weight [Z, D] and bias [Z] of latents that are principal components of chosen deviations, turned at random."""
    blocks = _blocks(packed, 2)
    mean = blocks.mean(0)
    directions = principal_directions(blocks - mean, count)
    deviations = ((blocks - mean) @ directions.T).std(0)
    chosen = deviations**SPECTRUM
    scale = chosen / chosen.square().mean().sqrt() / deviations
    turn = torch.linalg.qr(torch.randn(count, count, generator=torch.Generator().manual_seed(seed)))[0]
    weight = turn @ (directions * scale[:, None])
    return weight, -weight @ mean


def _fitted(x: Tensor, y: Tensor, ridge: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K] of the best linear map of x [N, D] to y [N, K]."""
    sums = _Sums()
    sums.add(x, y)
    return sums.solved(ridge)


@dataclass
class _Sums:
    """Least squares over samples that come in parts; the sums of different samples add up."""

    left: Any = 0.0
    right: Any = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        x = functional.pad(x, (0, 1), value=1.0)
        self.left, self.right = self.left + (x.T @ x).double(), self.right + (x.T @ y).double()

    def solved(self, ridge: float) -> tuple[Tensor, Tensor]:
        count = self.left[-1, -1]
        fit = torch.linalg.solve(self.left / count + ridge * torch.eye(len(self.left)), self.right / count).float()
        return fit[:-1].T, fit[-1]


def _set_encoder(encoder: Any, weight: Tensor, bias: Tensor, packed: Tensor) -> None:
    """The latents' weight [Z, D] in two steps: what each half-size cell has to tell, then the latents of eight such."""
    first, second = (block.downsamplers[0].conv for block in encoder.down_blocks)
    size = {"c": packed.shape[2], "a": 2, "b": 2, "d": 2, "i": 2, "j": 2, "k": 2}
    parts = rearrange(weight, "z (c a i b j d k) -> (z a b d) (c i j k)", **size)
    half = _blocks(packed, 1)[::STRIDE]
    # Of all that the parts ask of a cell, the directions that matter most for its content.
    asked = parts @ half.T
    told = principal_directions(asked.T, min(first.out_channels, len(parts)))

    _pass_through(encoder.conv_in.conv, tap=-1)
    _zero(first)
    first.weight[: len(told), : packed.shape[2], 1:, 1:, 1:] = rearrange(
        told @ parts, "o (c i j k) -> o c i j k", i=2, j=2, k=2
    )
    _zero(second)
    count = len(weight)
    second.weight[:count, : len(told), 1:, 1:, 1:] = rearrange(told, "o (z a b d) -> z o a b d", a=2, b=2, d=2)
    second.bias[:count], second.bias[count:] = bias, LATENT_CONSTANT
    # norm_out divides by the channels' root mean square; SiLU halves.
    norm = LATENT_CONSTANT * math.sqrt(1 - count / second.out_channels)
    out = encoder.conv_out.conv
    _zero(out)
    out.weight[:count, :count, -1, 1, 1] = 2 * norm * torch.eye(count)
    out.bias[count:] = LOG_VARIANCE


def _set_decoder(decoder: Any, latents: Tensor, packed: Tensor) -> None:
    """Each upsampling by least squares: from a cell and its neighbours to the eight cells that it becomes."""
    pixels = packed.shape[2]
    _start_at_zero(decoder)
    _pass_through(decoder.conv_in.conv, tap=1)
    first, second = (block.upsamplers[0].conv.conv for block in decoder.up_blocks)
    width = second.in_channels
    blocks = _blocks(packed, 1)
    places = {"n": len(packed), "h": packed.shape[3] // 2, "w": packed.shape[4] // 2}
    wanted = rearrange(blocks @ principal_directions(blocks[::STRIDE], width).T, "(n t h w) c -> n c t h w", **places)
    half = _set_doubling(first, latents, wanted)
    _set_doubling(second, half, rearrange(packed, "n t c h w -> n c t h w"))
    spare = second.out_channels // 8 - pixels
    second.bias[8 * pixels :] = PIXEL_CONSTANT
    norm = PIXEL_CONSTANT * math.sqrt(spare / (spare + pixels))
    decoder.conv_out.conv.weight[:, :pixels, 1, 1, 1] = 2 * norm * torch.eye(pixels)
    for block in decoder.up_blocks[1].resnets:  # so that they see the pixels and not the constant
        block.conv1.conv.weight[:, :pixels] *= norm
        block.conv1.conv.weight[:, pixels:] *= 0.1


def _set_doubling(conv: Any, cells: Tensor, wanted: Tensor) -> Tensor:
    """Set an upsampler's convolution, and return what it gives.

    Args:
        conv: of C' input channels and 8 K outputs; the first C of them and 8 C'' are set, the others zero.
        cells: [N, C, t, h, w].
        wanted: [N, C'', 2 t - 1, 2 h, 2 w].
    """
    rest, first = _Sums(), _Sums()
    for near, clip in zip(_neighbourhoods(cells), wanted, strict=True):
        whole = functional.pad(clip, (0, 0, 0, 0, 1, 0))
        targets = rearrange(whole, "k (t a) (h b) (w d) -> t (h w) a (k b d)", a=2, b=2, d=2)
        rest.add(near[1:].flatten(0, 1), targets[1:].flatten(2).flatten(0, 1))
        first.add(near[0], targets[0, :, 1])
    count, rows = cells.shape[1], 8 * wanted.shape[1]
    # A cell becomes two times, cell 0 the later one alone.
    early, late = rest.right[:, : rows // 2], rest.right[:, rows // 2 :]
    sums = _Sums(rest.left, early), _Sums(rest.left + first.left, late + first.right)
    solved = [part.solved(1e-5) for part in sums]
    weight = rearrange(
        [w for w, _ in solved], "a (k b d) (c u v x) -> (k a b d) c u v x", b=2, d=2, c=count, u=3, v=3, x=3
    )
    _zero(conv)
    conv.weight[:rows, :count] = weight
    conv.bias[:rows] = rearrange([b for _, b in solved], "a (k b d) -> (k a b d)", b=2, d=2)
    given = torch.cat([_convolved(conv, clip[None]) for clip in cells])[:, :rows]
    return rearrange(given, "n (k a b d) t h w -> n k (t a) (h b) (w d)", a=2, b=2, d=2)[:, :, 1:]


def _neighbourhoods(cells: Tensor) -> Iterator[Tensor]:
    """Of each clip, every cell with its 26 neighbours, as the convolution sees them: [t, h w, C * 27]."""
    for clip in cells:
        padded = _padded(clip[None])[0]
        yield rearrange(padded.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1), "c t h w u v x -> t (h w) (c u v x)")


def _padded(x: Tensor) -> Tensor:
    """As the autoencoder pads: the first and last time repeated, zeros around."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return functional.pad(x, (1, 1, 1, 1))


def _convolved(conv: Any, x: Tensor) -> Tensor:
    spare = conv.in_channels - x.shape[1]
    return functional.conv3d(_padded(functional.pad(x, (0, 0, 0, 0, 0, 0, 0, spare))), conv.weight, conv.bias)


def _start_at_zero(part: nn.Module) -> None:
    """Each residual block adds nothing; every other convolution is to be set."""
    for name, module in part.named_modules():
        if isinstance(module, nn.Conv3d) and (".conv2." in name or name.startswith("conv_out")):
            _zero(module)


def _pass_through(conv: nn.Conv3d, tap: int) -> None:
    """Channel k goes on as channel k, what else there is as zero; ``tap`` is the time itself, of a causal kernel -1."""
    _zero(conv)
    count = min(conv.in_channels, conv.out_channels)
    conv.weight[:count, :count, tap, 1, 1] = torch.eye(count)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
