"""The autoencoder in closed form: as good as linear algebra on the pixels, through the real network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo
from einops import rearrange
from torch import Tensor

from tools.ttm_tiny.linear_autoencoder import set_linear_autoencoder
from tools.ttm_tiny.train_autoencoder import CONFIG, to_tensor
from ttm.data.synthetic import SyntheticWorld
from ttm.pipelines.autoencoders import encode_video


@pytest.fixture(scope="module")
def clips() -> Tensor:
    world = SyntheticWorld("train", size=64)
    return to_tensor(np.stack([world[index].frames[:9] for index in range(40)]))


@pytest.fixture(scope="module")
def vae(clips: Tensor) -> AutoencoderKLLTXVideo:
    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(**CONFIG).eval()
    set_linear_autoencoder(vae, clips)
    return vae


@torch.no_grad()
def encoded(vae: AutoencoderKLLTXVideo, clips: Tensor) -> Tensor:
    latents: Tensor = vae.encode(clips).latent_dist.mode()
    return latents


def blocks(clips: Tensor) -> Tensor:
    return rearrange(clips[:, :, 1:], "n c (t g) (h q) (w r) -> (n t h w) (c g q r)", g=4, q=16, r=16)


def error_of_best_line(x: Tensor, y: Tensor) -> float:
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    return float((x @ torch.linalg.lstsq(x, y).solution - y).square().mean())


def test_a_linear_decoder_of_the_latents_is_nearly_as_good_as_one_of_the_best_48_directions_of_the_pixels(
    vae: AutoencoderKLLTXVideo, clips: Tensor
) -> None:
    pixels = blocks(clips)
    centred = pixels - pixels.mean(0)
    torch.manual_seed(0)
    _, _, directions = torch.pca_lowrank(centred, q=48, center=False, niter=6)
    best = float((centred - centred @ directions @ directions.T).square().mean())
    latents = rearrange(encoded(vae, clips)[:, :, 1:], "n z t h w -> (n t h w) z")
    assert 0.99 * best <= error_of_best_line(latents, pixels) < 1.1 * best


@torch.no_grad()
def test_the_decoder_is_better_than_the_best_line_that_knows_no_neighbours(
    vae: AutoencoderKLLTXVideo, clips: Tensor
) -> None:
    latents = encoded(vae, clips)
    alone = error_of_best_line(rearrange(latents[:, :, 1:], "n z t h w -> (n t h w) z"), blocks(clips))
    decoded = vae.decode(latents).sample
    assert decoded.shape == clips.shape
    assert (decoded - clips)[:, :, 1:].square().mean() < alone
    assert (decoded - clips)[:, :, :1].square().mean() < alone  # and a lone first frame is no worse


@torch.no_grad()
def test_the_decoder_knows_where_in_a_cell_a_pixel_is(vae: AutoencoderKLLTXVideo) -> None:
    """Away from the border, a field of equal latents gives one pattern again and again, and no flat one."""
    torch.manual_seed(0)
    field = torch.randn(1, 48, 3, 1, 1).expand(-1, -1, -1, 8, 8)
    picture = vae.decode(field).sample[0, :, -1, 48:80, 48:80]
    cell = picture[:, :16, :16]
    torch.testing.assert_close(picture[:, 16:, 16:], cell, atol=1e-3, rtol=1e-3)
    assert (cell[:, :8, :8] - cell[:, 8:, 8:]).abs().mean() > 0.05


def test_a_standing_picture_gives_the_same_latents_at_every_time(vae: AutoencoderKLLTXVideo, clips: Tensor) -> None:
    latents = encoded(vae, clips[:, :, :1].expand(-1, -1, 9, -1, -1))
    assert torch.allclose(latents[:, :, 1:], latents[:, :, :1].expand(-1, -1, 2, -1, -1), atol=1e-3)


@torch.no_grad()
def test_latents_are_those_of_another_encoder_as_far_as_that_one_is_linear(
    vae: AutoencoderKLLTXVideo, clips: Tensor
) -> None:
    old = encode_video(vae, clips)
    torch.manual_seed(1)
    new = AutoencoderKLLTXVideo(**CONFIG).eval()
    set_linear_autoencoder(new, clips, like=old)
    assert (encode_video(new, clips) - old).square().mean() < 0.02 * old.square().mean()
