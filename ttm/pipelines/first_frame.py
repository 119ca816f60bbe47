"""The first frame of a few-shot video, drawn by the image model: with ControlNet from a mask and a prompt, or from the
prompt alone.

Letters: H W pixels, Z latent channels, h w the latent grid.

Source: the few-shot paper (arXiv 2503.18386), Eq. 3. Both ways are diffusers' own pipelines on our components.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from einops import rearrange
from PIL import Image
from torch import Tensor

from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE


def draw_first_frame(
    components: dict[str, Any],
    prompt: str,
    negative_prompt: str,
    picture: Image.Image | None,
    size: tuple[int, int],
    num_inference_steps: int,
    guidance_scale: float,
    control_scale: float,
    generator: Any,
    on_step: Callable[[int, Tensor], bool] | None = None,
) -> Tensor:
    """Draw one image.

    Args:
        components: vae, tokenizer, text_encoder, image_unet, and controlnet if there is a picture. The image model is
            the base's, untouched: it is sampled on Stable Diffusion's noise levels, whatever the clips were learnt on.
        prompt, negative_prompt: its texts.
        picture: of the mask, for ControlNet; None: the prompt alone decides.
        size: (height, width), pixels.
        num_inference_steps, guidance_scale: as in diffusers.
        control_scale: how strongly ControlNet acts.
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
    if picture is None:
        pipe: Any = StableDiffusionPipeline(**parts)
    else:
        pipe = StableDiffusionControlNetPipeline(**parts, controlnet=components["controlnet"])
        options = {"image": picture, "controlnet_conditioning_scale": control_scale}
    pipe.set_progress_bar_config(disable=True)

    def step(inner: Any, index: int, timestep: Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None and on_step(index, timestep):
            inner._interrupt = True
        return tensors

    # Latents as they are: decoding and encoding again would only blur them.
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
