"""Train the ControlNet of ttm-tiny-unet: a frame of the mask trajectory, in the palette's colours, shapes the picture.

    python -m tools.ttm_tiny_unet.train_controlnet --minutes 15

It is diffusers' ``ControlNetModel``, begun from the U-Net, which stays as it is. The k-th object of the text has the
palette's k-th colour, as everywhere in the library.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from tools.ttm_tiny.timed_training import Progress, train
from tools.ttm_tiny_unet.encoded_scenes import KEPT_IDS
from tools.ttm_tiny_unet.train_unet import EMBEDDED, noisy_scenes
from ttm.motion.mask_trajectory import PALETTE

CONDITION_CHANNELS = (8, 16, 32, 48, 64)
"""One more than Stable Diffusion's four: the autoencoder is /16."""


def mask_pictures(ids: Tensor) -> Tensor:
    """Ids uint8 [B, H, W] -> the palette's colours, float32 [B, 3, H, W] in [0, 1]."""
    return torch.from_numpy(PALETTE.copy())[ids.long()].movedim(-1, 1).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--scenes", type=Path, default=Path("runs/ttm-tiny-unet/scenes"))
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny-unet/controlnet"))
    parser.add_argument("--output", type=Path, default=EMBEDDED)
    parser.add_argument("--start", type=Path, help="go on from this folder's controlnet")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    source = noisy_scenes(arguments.scenes, arguments.output, arguments.seed)
    unet = UNet2DConditionModel.from_pretrained(arguments.output / "unet", torch_dtype=torch.float32)
    unet.requires_grad_(False)
    if arguments.start is None:
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=CONDITION_CHANNELS)
    else:
        controlnet = ControlNetModel.from_pretrained(arguments.start / "controlnet", torch_dtype=torch.float32)
    controlnet.train().requires_grad_(True)
    print(f"{sum(p.numel() for p in controlnet.parameters()) / 1e6:.2f} M parameters", flush=True)
    errors = {"with": 1.0}

    def loss_at(step: int, fraction: float) -> Tensor:
        source.at_step(step)
        index, frame, latents, weights = source.pictures(16)
        noisy, noise, timesteps = source.noised(latents)
        text = source.texts(index, 0.5)
        condition = mask_pictures(source.scenes.ids[index, frame // KEPT_IDS])
        with torch.autocast("cpu", torch.bfloat16):
            down, middle = controlnet(noisy, timesteps, text, condition, return_dict=False)
            prediction = unet(
                noisy, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
        loss = source.loss(prediction.float(), noise, weights, timesteps)
        errors["with"] += 0.02 * (float(loss.detach()) - errors["with"])
        return loss

    def on_checkpoint(progress: Progress) -> str:
        return f"error {errors['with']:.4f}"

    train(
        controlnet, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=arguments.learning_rate, on_checkpoint=on_checkpoint, muon=True,
        checkpoint_every_seconds=90,
    )  # fmt: skip
    controlnet.to(torch.float16).save_pretrained(arguments.output / "controlnet")


if __name__ == "__main__":
    main()
