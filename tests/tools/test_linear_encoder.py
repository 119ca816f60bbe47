"""The encoder in closed form: as good as a principal component analysis of the pixels, through the real network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from einops import rearrange
from torch import Tensor

from tools.ttm_tiny.linear_encoder import set_linear_encoder, turned_towards
from tools.ttm_tiny.train_autoencoder import CONFIG, to_tensor
from ttm.data.synthetic import SyntheticWorld


@pytest.fixture(scope="module")
def clips() -> Tensor:
    world = SyntheticWorld("train")
    return to_tensor(np.stack([world[index].frames[:9] for index in range(12)]))


@pytest.fixture(scope="module")
def vae(clips: Tensor) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**CONFIG)
    set_linear_encoder(vae, clips)
    return vae


@torch.no_grad()
def encoded(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    latents: Tensor = vae.encode(clips).latent_dist.mode()
    return latents


def error_of_best_line(x: Tensor, y: Tensor) -> float:
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    return float((x @ torch.linalg.lstsq(x, y).solution - y).square().mean())


def test_a_linear_decoder_of_the_latents_is_nearly_as_good_as_one_of_the_best_48_directions_of_the_pixels(
    vae: AutoencoderKLWan, clips: Tensor
) -> None:
    pixels = rearrange(clips[:, :, 1:], "n c (t g) (h q) (w r) -> (n t h w) (c g q r)", g=4, q=16, r=16)
    pixels = pixels - pixels.mean(0)
    torch.manual_seed(0)
    _, _, directions = torch.pca_lowrank(pixels, q=48, center=False, niter=6)
    best = float((pixels - pixels @ directions @ directions.T).square().mean())
    latents = rearrange(encoded(vae, clips)[:, :, 1:], "n z t h w -> (n t h w) z")
    assert 0.99 * best <= error_of_best_line(latents, pixels) < 1.1 * best


def test_a_standing_picture_gives_the_same_latents_at_every_time(vae: AutoencoderKLWan, clips: Tensor) -> None:
    latents = encoded(vae, clips[:, :, :1].expand(-1, -1, 9, -1, -1))
    assert (latents[:, :, 1:] - latents[:, :, :1]).square().mean() < 0.02 * latents.var()
    assert torch.allclose(latents[:, :, 1], latents[:, :, 2], atol=1e-3)


def test_latents_are_turned_towards_those_of_another_encoder(vae: AutoencoderKLWan, clips: Tensor) -> None:
    old = encoded(vae, clips)
    torch.manual_seed(1)
    new = AutoencoderKLWan(**CONFIG)
    set_linear_encoder(new, clips, like=old)
    assert torch.nn.functional.cosine_similarity(encoded(new, clips).flatten(), old.flatten(), dim=0) > 0.99


def test_a_turned_basis_spans_the_same_and_is_nearer_to_its_goal() -> None:
    torch.manual_seed(0)
    basis, goal = torch.linalg.qr(torch.randn(8, 3))[0].T, torch.randn(3, 8)
    turned = turned_towards(basis, goal)
    assert torch.allclose(turned.T @ turned, basis.T @ basis, atol=1e-5)
    assert (turned - goal).norm() < (basis - goal).norm()
