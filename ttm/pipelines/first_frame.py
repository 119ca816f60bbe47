"""The first frame of a few-shot video, drawn by the image model: with ControlNet from a mask and a prompt, or from the
prompt alone.

Letters: H W pixels, Z latent channels, h w the latent grid.

Source: the few-shot paper (arXiv 2503.18386), Eq. 3. Both ways are diffusers' own pipelines on our components.
Guidance by ControlNet is not the paper's: what InstructPix2Pix does with its image, done with the mask's picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE


@dataclass(frozen=True)
class Control:
    """What ControlNet is to do.

    Attributes:
        picture: of the mask.
        conditioning_scale: how much of it is added inside the U-Net, as in diffusers.
        guidance_scale: how far the prediction goes from the one without ControlNet, e(0), to that with it, e(C):
            e(0) + s (e(C) - e(0)), with the text in both; 1 = diffusers' own, and half the work.
    """

    picture: Image.Image
    conditioning_scale: float = 1.0
    guidance_scale: float = 1.0


def draw_first_frame(
    components: dict[str, Any],
    prompt: str,
    negative_prompt: str,
    control: Control | None,
    size: tuple[int, int],
    num_inference_steps: int,
    guidance_scale: float,
    generator: Any,
    on_step: Callable[[int, Tensor], bool] | None = None,
) -> Tensor:
    """Draw one image.

    Args:
        components: vae, tokenizer, text_encoder, image_unet, and controlnet for ``control``. The image model is
            the base's, untouched: it is sampled on Stable Diffusion's noise levels, whatever the clips were learnt on.
        prompt, negative_prompt: its texts.
        control: by ControlNet; None: the prompt alone decides.
        size: (height, width), pixels.
        num_inference_steps, guidance_scale: as in diffusers.
        generator: of the noise.
        on_step: called with the number and the timestep of each step; True leaves out the rest.

    Returns:
        normalised latents of the image, float32 [1, Z, 1, h, w].
    """
    parts = {name: components[name] for name in ("vae", "tokenizer", "text_encoder")}
    parts |= {
        "unet": components["image_unet"],
        "scheduler": DDIMScheduler(**STABLE_DIFFUSION_NOISE),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    options: dict[str, Any] = {}
    if control is None:
        pipe: Any = StableDiffusionPipeline(**parts)
    else:
        pipe = StableDiffusionControlNetPipeline(**parts, controlnet=components["controlnet"])
        options = {"image": control.picture, "controlnet_conditioning_scale": control.conditioning_scale}
    pipe.set_progress_bar_config(disable=True)

    def step(inner: Any, index: int, timestep: Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None and on_step(index, timestep):
            inner._interrupt = True
        return tensors

    # Latents as they are: decoding and encoding again would only blur them.
    with _guided_by_control(parts["unet"], 1.0 if control is None else control.guidance_scale):
        latents: Tensor = pipe(
            prompt,
            height=size[0],
            width=size[1],
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            generator=generator,
            output_type="latent",
            callback_on_step_end=step,
            **options,
        ).images
    return rearrange(latents.float(), "1 z h w -> 1 z 1 h w")


@contextmanager
def _guided_by_control(unet: nn.Module, scale: float) -> Iterator[None]:
    """Within, each prediction of the U-Net is guided from the one that ControlNet has no part in."""
    if scale == 1:
        yield
        return

    def guide(module: nn.Module, args: Any, kwargs: dict[str, Any], output: tuple[Tensor]) -> tuple[Tensor]:
        left_out = {"down_block_additional_residuals": None, "mid_block_additional_residual": None}
        without = module.forward(*args, **{**kwargs, **left_out})[0]
        return (without + scale * (output[0] - without),)

    hook = unet.register_forward_hook(guide, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
