"""Hosts that take an image by themselves: as diffusers' model does, and what is known is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from ttm.models.transformer_wan import MaskedWanTransformer3DModel

WAN: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 8,
    "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip
NEW = {"condition_channels": 8, "num_masked_blocks": 1}


def pair(**changes: Any) -> tuple[WanTransformer3DModel, MaskedWanTransformer3DModel]:
    torch.manual_seed(0)
    known = changes.pop("known_first_frame", False)
    plain = WanTransformer3DModel(**{**WAN, **changes}).eval()
    return plain, MaskedWanTransformer3DModel.from_host(plain, **NEW, known_first_frame=known)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.no_grad()
def test_channels_beside_the_noise_and_pictures_before_the_text() -> None:
    plain, model = pair(in_channels=12, image_dim=6, added_kv_proj_dim=24)
    latents, image, text, pictures = noise(2, 4, 3, 8, 8), noise(2, 8, 3, 8, 8), noise(2, 512, 8), noise(2, 5, 6)
    times = torch.tensor([100.0, 900.0])
    found = model(latents, times, text, image_latents=image, encoder_hidden_states_image=pictures).sample
    assert torch.equal(found, plain(torch.cat([latents, image], 1), times, text, pictures).sample)
    assert (model.latent_channels, model.image_channels) == (4, 8)


@torch.no_grad()
def test_a_known_first_frame_takes_the_place_of_the_noise_at_timestep_0() -> None:
    plain, model = pair(known_first_frame=True)
    latents, first, text = noise(2, 4, 3, 8, 8), noise(2, 4, 1, 8, 8), noise(2, 5, 8)
    image = torch.zeros(2, 5, 3, 8, 8)
    image[0, 0, 0], image[0, 1:, :1] = 1, first[0]  # the second sample is given none: text-to-video
    times = torch.tensor([500.0, 250.0])
    tokens = times[:, None].repeat(1, 3 * 4 * 4)
    tokens[0, : 4 * 4] = 0
    seen = latents.clone()
    seen[0, :, :1] = first[0]
    found, expected = model(latents, times, text, image_latents=image).sample, plain(seen, tokens, text).sample
    assert torch.equal(found[:, :, 1:], expected[:, :, 1:]) and torch.equal(found[1], expected[1])
    # At sigma = 0.5 the velocity towards the known frame is twice what is left of the way.
    torch.testing.assert_close(found[0, :, :1], 2 * (latents[0, :, :1] - first[0]))
    everywhere = times[:, None].repeat(1, 48)
    assert torch.equal(model(latents, times, text).sample, plain(latents, everywhere, text).sample)


def test_a_known_frame_has_no_error_in_training() -> None:
    _, model = pair(known_first_frame=True)
    data, e, sigma = noise(1, 4, 3, 8, 8), noise(1, 4, 3, 8, 8).flip(-1), 0.3
    image = torch.zeros(1, 5, 3, 8, 8)
    image[:, 0, 0], image[:, 1:, :1] = 1, data[:, :, :1]
    sample = model(torch.lerp(data, e, sigma), torch.tensor([1000 * sigma]), noise(1, 5, 8), image_latents=image).sample
    torch.testing.assert_close(sample[:, :, :1], (e - data)[:, :, :1], atol=1e-5, rtol=1e-5)
    assert sample[:, :, 1:].requires_grad


def test_shapes_and_settings_that_do_not_fit_are_named() -> None:
    latents, text, times = noise(1, 4, 3, 8, 8), noise(1, 5, 8), torch.tensor([5.0])
    with pytest.raises(ValueError, match=r"image_latents is \[1, 2, 3, 8, 8\]; expected \[1, 8, 3, 8, 8\]"):
        pair(in_channels=12)[1](latents, times, text, image_latents=noise(1, 2, 3, 8, 8))
    with pytest.raises(ValueError, match="expected None: this host takes no image of its own"):
        pair()[1](latents, times, text, image_latents=noise(1, 2, 3, 8, 8))
    with pytest.raises(ValueError, match="in_channels is 12; expected 4, for 4 out_channels"):
        MaskedWanTransformer3DModel(**{**WAN, "in_channels": 12}, known_first_frame=True)
