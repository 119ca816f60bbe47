"""Clips to latents and back, by a video autoencoder and by an image autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from einops import rearrange
from torch import Tensor

from ttm.pipelines.autoencoders import IMAGES_AT_ONCE, LatentFormat, decode_latents, encode_video, latent_shape
from ttm.pipelines.image_to_video import Pipeline

Make = Callable[..., Any]


def _image_autoencoder(**changes: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        mid_block_add_attention=False,
        **changes,
    )
    return vae.eval()


@pytest.fixture(params=["wan", "ltx", "image"])
def vae(request: pytest.FixtureRequest, pipe: Pipeline, ltx_autoencoder: Make) -> Any:
    return {"wan": lambda: pipe.vae, "ltx": ltx_autoencoder, "image": _image_autoencoder}[request.param]()


def _frames(count: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, count, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_video_latents_are_normalised_with_the_autoencoders_numbers(pipe: Pipeline) -> None:
    frames = _frames(5, batch=2)
    with torch.no_grad():
        latents = encode_video(pipe.vae, frames)
        raw = pipe.vae.encode(frames).latent_dist.mode()
        assert latents.shape == (2, 4, 2, 4, 4) and latents.dtype == torch.float32
        for channel, (mean, std) in enumerate(
            zip(pipe.vae.config.latents_mean, pipe.vae.config.latents_std, strict=True)
        ):
            torch.testing.assert_close(latents[:, channel] * std + mean, raw[:, channel])
        torch.testing.assert_close(decode_latents(pipe.vae, latents), pipe.vae.decode(raw).sample)


def test_latents_of_ltx_are_normalised_with_its_buffers_and_its_scale(ltx_autoencoder: Make) -> None:
    vae, frames = ltx_autoencoder(scaling_factor=0.7), _frames(5, batch=2)
    with torch.no_grad():
        latents, raw = encode_video(vae, frames), vae.encode(frames).latent_dist.mode()
        mean, std = (rearrange(values, "z -> z 1 1 1") for values in (vae.latents_mean, vae.latents_std))
        torch.testing.assert_close(latents, (raw - mean) * 0.7 / std)
        torch.testing.assert_close(decode_latents(vae, latents), vae.decode(raw).sample.clamp(-1, 1))


def test_an_encoder_whose_first_latent_frame_sees_later_frames_is_refused(ltx_autoencoder: Make) -> None:
    with pytest.raises(ValueError, match="expected one with encoder_causal"):
        encode_video(ltx_autoencoder(encoder_causal=False), _frames(1))


def test_a_decoder_that_denoises_is_refused(ltx_autoencoder: Make) -> None:
    with pytest.raises(ValueError, match="expected one without timestep_conditioning"):
        encode_video(ltx_autoencoder(timestep_conditioning=True), _frames(1))


@pytest.mark.parametrize("shift", [None, 0.3])
def test_image_latents_are_those_of_stable_diffusion(shift: float | None) -> None:
    """Every frame alone: (z - shift) * scaling, and back, with more frames than go through at once."""
    vae, count = _image_autoencoder(scaling_factor=0.7, shift_factor=shift), IMAGES_AT_ONCE + 3
    frames = _frames(count, batch=2)
    with torch.no_grad():
        latents = encode_video(vae, frames)
        decoded = decode_latents(vae, latents)
        assert latents.shape == (2, 4, count, 4, 4) and decoded.shape == frames.shape
        for place, frame in ((0, 0), (1, IMAGES_AT_ONCE), (1, count - 1)):
            raw = vae.encode(frames[place : place + 1, :, frame]).latent_dist.mode()
            torch.testing.assert_close(latents[place, :, frame], (raw[0] - (shift or 0)) * 0.7)
            torch.testing.assert_close(decoded[place, :, frame], vae.decode(raw).sample[0].clamp(-1, 1))


def test_statistics_a_channel_stand_in_for_the_shift() -> None:
    mean, std = [0.1, 0.2, -0.3, 0.0], [0.5, 1.0, 2.0, 4.0]
    vae = _image_autoencoder(scaling_factor=0.5, latents_mean=mean, latents_std=std)
    with torch.no_grad():
        raw = vae.encode(_frames(1)[:, :, 0]).latent_dist.mode()
        expected = (raw - torch.tensor(mean)[:, None, None]) * 0.5 / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(encode_video(vae, _frames(1))[:, :, 0], expected)


def test_memory_does_not_grow_with_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, sizes = _image_autoencoder(), []
    for name in ("encode", "decode"):
        whole = getattr(vae, name)
        monkeypatch.setattr(vae, name, lambda part, whole=whole: (sizes.append(len(part)), whole(part))[1])
    with torch.no_grad():
        decode_latents(vae, encode_video(vae, _frames(2 * IMAGES_AT_ONCE + 1)))
    assert sizes == 2 * [IMAGES_AT_ONCE, IMAGES_AT_ONCE, 1]


def test_a_clips_first_latent_is_that_of_its_first_frame(vae: Any) -> None:
    """What lets training take E(x0) from the latents of the whole clip."""
    frames = _frames(9)
    with torch.no_grad():
        clip, alone = encode_video(vae, frames), encode_video(vae, frames[:, :, :1])
    torch.testing.assert_close(clip[:, :, :1], alone)


def test_the_shape_is_known_beforehand(vae: Any) -> None:
    with torch.no_grad():
        assert encode_video(vae, _frames(5)).shape == latent_shape(vae, 5, 32, 32)


def test_decoding_inverts_encoding_up_to_the_autoencoder(vae: Any) -> None:
    """With the statistics taken out both directions are the autoencoder's own."""
    frames = _frames(5)
    with torch.no_grad():
        if LatentFormat.of(vae).image_by_image:
            images = vae(rearrange(frames, "1 c t h w -> t c h w")).sample
            expected = rearrange(images, "t c h w -> 1 c t h w")
        else:
            expected = vae(frames).sample
        torch.testing.assert_close(decode_latents(vae, encode_video(vae, frames)), expected.clamp(-1, 1))


@pytest.mark.parametrize("shape", [(1, 3, 5, 30, 32), (3, 5, 32, 32), (1, 1, 5, 32, 32), (1, 3, 0, 32, 32)])
def test_clips_that_cannot_be_packed(vae: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected|packs"):
        encode_video(vae, torch.zeros(shape))


def test_only_the_video_autoencoder_asks_for_groups(pipe: Pipeline) -> None:
    with pytest.raises(ValueError, match="T = 1 \\+ 4 k"):
        encode_video(pipe.vae, _frames(4))
    with torch.no_grad():
        assert encode_video(_image_autoencoder(), _frames(4)).shape == (1, 4, 4, 4, 4)


def test_another_autoencoder_is_refused() -> None:
    with pytest.raises(ValueError, match="vae is a AutoencoderTiny; expected one of AutoencoderKLWan, "):
        encode_video(AutoencoderTiny(), _frames(1))


def test_frames_that_overflowed_are_an_error_and_not_a_black_video(vae: Any) -> None:
    latents = encode_video(vae, _frames(1))
    latents[..., 0, 0] = float("nan")
    with torch.no_grad(), pytest.raises(FloatingPointError, match="NaN or infinity in float32; .*bfloat16 or float32"):
        decode_latents(vae, latents)
