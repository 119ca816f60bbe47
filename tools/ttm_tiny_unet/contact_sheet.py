"""What the image and video parts of ttm-tiny-unet make, on one sheet, through diffusers' own pipelines.

    python -m tools.ttm_tiny_unet.contact_sheet --output runs/ttm-tiny-unet/sheet.png

Rows, from the top: held-out pictures and their round trip through the autoencoder; pictures from captions;
masks of held-out scenes and what ControlNet makes of them with the scene's caption; two clips, every second frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from PIL import Image

from tools.ttm_tiny_unet.noisy_scenes import load_text
from tools.ttm_tiny_unet.train_autoencoder import round_trip
from tools.ttm_tiny_unet.train_text_encoder import caption
from tools.ttm_tiny_unet.train_unet import EMBEDDED
from ttm.data.synthetic import SyntheticWorld
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE

SIZE = 128
COLUMNS = 9
CAPTIONS = (
    "a red ball", "a blue star", "a green square and an orange triangle", "a cat", "a purple heart", "a yellow cross",
    "a white ring and a pink diamond", "an astronaut", "a red ball, a blue square and a yellow star",
)  # fmt: skip
PROMPTS = ("The red ball moves right.", "The blue star moves up and the green square moves left.")


def _components(folder: Path) -> dict[str, Any]:
    tokenizer, text_encoder = load_text(folder)
    return {
        "vae": AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32),
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32),
        "scheduler": DDIMScheduler(**STABLE_DIFFUSION_NOISE),
    }


def _row(pictures: list[Any]) -> NDArray[np.uint8]:
    padded = [np.asarray(picture, np.uint8) for picture in pictures[:COLUMNS]]
    padded += [np.zeros((SIZE, SIZE, 3), np.uint8)] * (COLUMNS - len(padded))
    return np.concatenate(padded, axis=1)


def sheet(folder: Path, steps: int, guidance_scale: float, seed: int) -> NDArray[np.uint8]:
    """The rows, one under the other, uint8."""
    parts, unchecked = _components(folder), {"safety_checker": None, "feature_extractor": None}
    options: dict[str, Any] = {
        "num_inference_steps": steps, "guidance_scale": guidance_scale, "height": SIZE, "width": SIZE
    }  # fmt: skip
    random = torch.Generator().manual_seed(seed)
    scenes = [SyntheticWorld("test")[index] for index in range(COLUMNS)]
    firsts = np.stack([scene.frames[0] for scene in scenes])
    masks = np.concatenate([MaskTrajectory(scene.ids[:1]).to_video() for scene in scenes])
    rows = [_row(list(firsts)), _row(list(round_trip(parts["vae"], firsts)))]
    draw = StableDiffusionPipeline(**parts, **unchecked, requires_safety_checker=False)
    draw.set_progress_bar_config(disable=True)
    rows.append(_row(draw(list(CAPTIONS), generator=random, **options).images))
    if (folder / "controlnet").is_dir():
        controlnet = ControlNetModel.from_pretrained(folder / "controlnet", torch_dtype=torch.float32)
        follow = StableDiffusionControlNetPipeline(
            **parts, **unchecked, controlnet=controlnet, requires_safety_checker=False
        )
        follow.set_progress_bar_config(disable=True)
        told = [caption(scene.plan.phrases) for scene in scenes]
        pictures = [Image.fromarray(mask) for mask in masks]
        rows += [_row(list(masks)), _row(follow(told, image=pictures, generator=random, **options).images)]
    adapter = MotionAdapter.from_pretrained(folder / "motion_adapter", torch_dtype=torch.float32)
    animate = AnimateDiffPipeline(**parts, motion_adapter=adapter)
    animate.set_progress_bar_config(disable=True)
    for clip in animate(list(PROMPTS), num_frames=17, generator=random, **options).frames:
        rows.append(_row(clip[::2]))
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    parser.add_argument("--output", type=Path, default=Path("runs/ttm-tiny-unet/sheet.png"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    picture = sheet(arguments.folder, arguments.steps, arguments.guidance_scale, arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
