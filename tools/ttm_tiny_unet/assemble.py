"""Put the trained components of ttm-tiny-unet together into a pipeline folder.

    python -m tools.ttm_tiny_unet.assemble --image-model
    python -m tools.ttm_tiny_unet.assemble --stage-1 runs/A --stage-2 runs/B

The first form makes the folder one of Stable Diffusion with ControlNet, which is all that the few-shot variant needs.
The folder is in Stable Diffusion's layout already (vae, tokenizer, text_encoder, unet; motion_adapter and controlnet
beside them); this adds the two stages' U-Nets, their schedulers and the pipeline's index, and checks the size.
The segmenter is ttm-tiny's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)

from tools.ttm_tiny_unet.noisy_scenes import load_text
from tools.ttm_tiny_unet.train_unet import EMBEDDED
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE
from ttm.pipelines.image_to_video import Pipeline

LIMIT_MB = 18.0
SETTINGS: dict[str, Any] = {
    "num_frames": 17, "height": 128, "width": 128, "fps": 8.0, "max_sequence_length": 40,
    "num_inference_steps": 5, "guidance_scale": 1.5, "image_guidance_scale": 1.5,
    "motion_num_inference_steps": 20, "motion_guidance_scale": 4.0, "motion_image_guidance_scale": 3.0,
    "segmenter_from": "ttm-tiny",
}  # fmt: skip


def assemble(output: Path, stage_1: Path | None = None, stage_2: Path | None = None) -> Pipeline:
    """Load every component of the pipeline, write its folder, and return the pipeline.

    Args:
        output: the folder.
        stage_1: output folder of a training of image_to_motion (transformer/ and scheduler/); None: keep what is there.
        stage_2: of motion_to_video, likewise.

    Raises:
        ValueError: the weights of the folder take more than ``LIMIT_MB``.
    """
    tokenizer, text_encoder = load_text(output)
    pipe = Pipeline(
        vae=AutoencoderKL.from_pretrained(output / "vae"),
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        **_stage(stage_1, output, "motion_"),
        **_stage(stage_2, output, ""),
        **SETTINGS,
    )
    pipe.to(torch.float16)
    pipe.save_pretrained(output)
    check_size(output)
    return pipe


def assemble_image_model(output: Path) -> None:
    """Write the index of Stable Diffusion with ControlNet, and its scheduler, beside the components.

    Raises:
        ValueError: the weights of the folder take more than ``LIMIT_MB``.
    """
    tokenizer, text_encoder = load_text(output)
    pipe = StableDiffusionControlNetPipeline(
        vae=AutoencoderKL.from_pretrained(output / "vae"),
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=UNet2DConditionModel.from_pretrained(output / "unet"),
        controlnet=ControlNetModel.from_pretrained(output / "controlnet"),
        scheduler=DDIMScheduler(**STABLE_DIFFUSION_NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_config(output)
    pipe.scheduler.save_pretrained(output / "scheduler")
    # transformers computes in the dtype that stands here, diffusers in float32: let both do the same.
    config = output / "text_encoder/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    check_size(output)


def _stage(run: Path | None, output: Path, prefix: str) -> dict[str, Any]:
    """A stage's U-Net and scheduler, by their names in the pipeline."""
    folder, inside = (output, prefix) if run is None else (run, "")
    return {
        f"{prefix}transformer": MaskedUNetMotionModel.from_pretrained(folder / f"{inside}transformer"),
        f"{prefix}scheduler": DDIMScheduler.from_pretrained(folder / f"{inside}scheduler"),
    }


def check_size(folder: Path) -> None:
    """Say what the weights of a folder take.

    Raises:
        ValueError: more than ``LIMIT_MB``.
    """
    megabytes = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    print(f"{folder}: {megabytes:.1f} MB of weights")
    if megabytes > LIMIT_MB:
        raise ValueError(f"The weights take {megabytes:.1f} MB; expected at most {LIMIT_MB}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=EMBEDDED)
    parser.add_argument("--stage-1", type=Path, help="a training's output folder; default: what the folder holds")
    parser.add_argument("--stage-2", type=Path, help="likewise")
    parser.add_argument("--image-model", action="store_true", help="without the stages")
    arguments = parser.parse_args()
    if arguments.image_model:
        assemble_image_model(arguments.output)
    else:
        assemble(arguments.output, arguments.stage_1, arguments.stage_2)


if __name__ == "__main__":
    main()
