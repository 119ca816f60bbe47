"""The ControlNet of ttm-tiny-unet: diffusers' class, and what it is shown.

Letters: B batch, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from ttm.motion.mask_trajectory import PALETTE

CONDITION_CHANNELS = (8, 16, 32, 48, 64)
"""One more than Stable Diffusion's four: the autoencoder is /16."""


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A copy of the U-Net's encoder that adds nothing yet."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=CONDITION_CHANNELS).train()


def trained_controlnet(folder: Path) -> ControlNetModel:
    """That of a folder, fp32, to go on with."""
    return ControlNetModel.from_pretrained(folder / "controlnet", torch_dtype=torch.float32).train()


def mask_pictures(ids: Tensor) -> Tensor:
    """Ids uint8 [B, H, W] -> the palette's colours, float32 [B, 3, H, W] in [0, 1]."""
    return torch.from_numpy(PALETTE.copy())[ids.long()].movedim(-1, 1).float() / 255


def steered(
    unet: UNet2DConditionModel, controlnet: ControlNetModel, noisy: Tensor, timesteps: Tensor, text: Tensor, ids: Tensor
) -> Tensor:
    """The U-Net's prediction for noised pictures [B, C, h, w] with the masks of ids [B, H, W] through ControlNet."""
    down, middle = controlnet(noisy, timesteps, text, mask_pictures(ids), return_dict=False)
    prediction: Tensor = unet(
        noisy, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample
    return prediction
