"""Guidance of the first frame by ControlNet, held against a loop written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE, Base
from ttm.pipelines.first_frame import Control, draw_first_frame

SIZE, STEPS = 16, 3
Parts = dict[str, Any]


@pytest.fixture(scope="module")
def parts(save_stable_diffusion: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A base of random weights, ControlNet's last layers included, which are zero at first."""
    made = Base(str(save_stable_diffusion(tmp_path_factory.mktemp("base")))).components(torch.float32)
    for value in made["controlnet"].parameters():
        torch.nn.init.normal_(value, std=0.2)
    return made


@pytest.fixture
def picture() -> Image.Image:
    colours = np.zeros((SIZE, SIZE, 3), np.uint8)
    colours[4:10, 3:12, 0] = 255
    return Image.fromarray(colours)


def draw(parts: Parts, control: Control | None, text_scale: float = 1.0, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return draw_first_frame(
            parts, "a dog runs", "a cat", control, (SIZE, SIZE), STEPS, text_scale, generator, **options
        )[:, :, 0]


def written_out(parts: Parts, picture: Image.Image, strength: float, scale: float, text_scale: float) -> torch.Tensor:
    unet, controlnet = parts["image_unet"], parts["controlnet"]
    shown = torch.from_numpy(np.asarray(picture, np.float32) / 255).movedim(-1, 0)[None]
    scheduler = DDIMScheduler(**STABLE_DIFFUSION_NOISE)
    scheduler.set_timesteps(STEPS)

    def embedded(text: str) -> torch.Tensor:
        tokenizer = parts["tokenizer"]
        tokens = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        return parts["text_encoder"](tokens.input_ids).last_hidden_state

    def predicted(latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        without = unet(latents, timestep, text).sample
        down, middle = controlnet(latents, timestep, text, shown, strength, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return without + scale * (unet(latents, timestep, text, **residuals).sample - without)

    latents = torch.randn((1, 4, SIZE // 2, SIZE // 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, unwanted = embedded("a dog runs"), embedded("a cat")
        for timestep in scheduler.timesteps:
            prediction = predicted(latents, timestep, unwanted)
            prediction = prediction + text_scale * (predicted(latents, timestep, wanted) - prediction)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


@pytest.mark.parametrize(("scale", "text_scale"), [(1.0, 1.5), (2.0, 1.5), (0.5, 3.0)])
def test_guidance_by_controlnet_is_the_loop_written_out(
    parts: Parts, picture: Image.Image, scale: float, text_scale: float
) -> None:
    drawn = draw(parts, Control(picture, 1.5, scale), text_scale)
    torch.testing.assert_close(drawn, written_out(parts, picture, 1.5, scale, text_scale), rtol=1e-3, atol=1e-4)


def test_none_of_it_is_the_prompt_alone(parts: Parts, picture: Image.Image) -> None:
    torch.testing.assert_close(draw(parts, Control(picture, 1.5, 0.0)), draw(parts, None))
    assert not torch.allclose(draw(parts, Control(picture, 1.5, 1.0)), draw(parts, None))


def test_the_unet_is_left_as_it_was(parts: Parts, picture: Image.Image) -> None:
    plain = draw(parts, Control(picture))

    def fail(*_: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(parts, Control(picture, 1.0, 3.0), on_step=fail)
    assert torch.equal(draw(parts, Control(picture)), plain)
