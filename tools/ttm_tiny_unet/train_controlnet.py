"""Train the ControlNet of ttm-tiny-unet alone: a frame of the mask trajectory, in the palette's colours, shapes the
picture.

    python -m tools.ttm_tiny_unet.train_controlnet --minutes 15 --start ttm/pretrained/ttm-tiny-unet

It is diffusers' ``ControlNetModel``, which ``train_unet`` trains with the U-Net; here the U-Net stays as it is.
Without --start it begins as a copy of the U-Net's encoder. The k-th object of the text has the palette's k-th colour,
as everywhere in the library.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tools.ttm_tiny.timed_training import Progress, train
from tools.ttm_tiny_unet.controlnet import new_controlnet, steered, trained_controlnet
from tools.ttm_tiny_unet.noisy_scenes import noisy_scenes
from tools.ttm_tiny_unet.train_unet import EMBEDDED


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
    controlnet = new_controlnet(unet) if arguments.start is None else trained_controlnet(arguments.start)
    print(f"{sum(p.numel() for p in controlnet.parameters()) / 1e6:.2f} M parameters", flush=True)
    errors = {"with": 1.0}

    def loss_at(step: int, fraction: float) -> Tensor:
        source.at_step(step)
        index, frame, latents, weights = source.pictures(16)
        noisy, noise, timesteps = source.noised(latents)
        text = source.texts(index, 0.5)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = steered(unet, controlnet, noisy, timesteps, text, source.masks(index, frame))
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
