"""Train the U-Net, the motion adapter and the ControlNet of ttm-tiny-unet together, on encoded pictures and clips.

    python -m tools.ttm_tiny_unet.train_unet --minutes 60
    python -m tools.ttm_tiny_unet.train_unet --minutes 60 --start ttm/pretrained/ttm-tiny-unet --run runs/unet_more

The U-Net is diffusers' ``UNet2DConditionModel`` as Stable Diffusion 1.x has it, with two levels (8 x 8 and 4 x 4
places); the motion modules are AnimateDiff's. Pictures train the U-Net alone, so that it draws without them; clips
train both. The first part of the time sees pictures only, the cheapest way to learn what things look like. After it
two in three pictures come with their masks, through ControlNet: how to draw an outline that is given is learnt by
both together, which a U-Net that stays as it is lets a ControlNet do less well.
The objective is Stable Diffusion's: predict the noise. Three clips in four keep their first frame clean, as the
few-shot variant does, and take the keys and values of their spatial self-attention from it (its Eq. 5): what a first
frame looks like and how it goes on is what motion modules that saw millions of clips know, and this many weights can't
learn from six. Half of these come without a text, which would tell the colours that the first frame shows, and two in
three with masks in their cross-attention (Eq. 6-7): how to take a look to another place is learnt where that place is
known. What reads the masks is thrown away, a few-shot model begins at zero there. Weights and layers stay Stable
Diffusion's and AnimateDiff's; a picture is its own first frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from tools.ttm_tiny.timed_training import Progress, train
from tools.ttm_tiny_unet.clip_attention import FirstFrameKeys, MaskedQueries
from tools.ttm_tiny_unet.controlnet import new_controlnet, steered, trained_controlnet
from tools.ttm_tiny_unet.noisy_scenes import TEXT_DROPOUT, noisy_scenes, with_clean_first_frame
from tools.ttm_tiny_unet.train_autoencoder import LATENT_CHANNELS

EMBEDDED = Path("ttm/pretrained/ttm-tiny-unet")
UNET_CONFIG: dict[str, Any] = {
    "sample_size": 8, "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS,
    "block_out_channels": (64, 32), "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 128, "attention_head_dim": 2, "norm_num_groups": 8,
}  # fmt: skip
ADAPTER_CONFIG: dict[str, Any] = {
    "block_out_channels": (64, 32), "motion_layers_per_block": 1, "motion_num_attention_heads": 2,
    "motion_max_seq_length": 32, "motion_norm_num_groups": UNET_CONFIG["norm_num_groups"],
}  # fmt: skip
PICTURES_ONLY = 0.4
PICTURES = 0.5
"""Share of the steps after that which see pictures; the others see clips."""
CONTROLLED = 0.67
"""Of those: which come with their masks, through ControlNet."""
CLEAN_FIRST_FRAME = 0.75
"""Share of the batches of clips whose first frames are clean, not judged, and what every frame looks at."""
CLEAN_TEXT_DROPOUT = 0.5
"""Of those: the first frame then is all that says what things look like."""
MASKED = 0.67
"""Of those: which come with their masks."""
_SHARED = ("conv_in", "time_embedding", "conv_norm_out", "conv_out")
_SHARED_IN_BLOCKS = ("resnets", "attentions", "downsamplers", "upsamplers")


def new_parts() -> tuple[UNet2DConditionModel, MotionAdapter]:
    """A U-Net at random, and a motion adapter that does nothing yet."""
    return UNet2DConditionModel(**UNET_CONFIG), new_adapter()


def trained_parts(folder: Path) -> tuple[UNet2DConditionModel, MotionAdapter]:
    """The U-Net and the motion adapter of a folder, fp32, to go on with."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    return unet.train(), MotionAdapter.from_pretrained(folder / "motion_adapter", torch_dtype=torch.float32).train()


def new_adapter() -> MotionAdapter:
    """Motion modules that do nothing yet."""
    adapter = MotionAdapter(**ADAPTER_CONFIG)
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return adapter


def with_motion(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """The U-Net with the adapter's modules between its layers: the same parameters, not copies."""
    video = UNetMotionModel.from_unet2d(unet, adapter)
    for name in _SHARED:
        setattr(video, name, getattr(unet, name))
    for ours, theirs in _blocks(video, unet):
        for name in _SHARED_IN_BLOCKS:
            if getattr(theirs, name, None) is not None:
                setattr(ours, name, getattr(theirs, name))
    for ours, theirs in _blocks(video, adapter):
        ours.motion_modules = theirs.motion_modules
    return video


def _blocks(one: Any, other: Any) -> list[tuple[Any, Any]]:
    down, up = zip(one.down_blocks, other.down_blocks, strict=True), zip(one.up_blocks, other.up_blocks, strict=True)
    return [*down, *up, (one.mid_block, other.mid_block)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--scenes", type=Path, default=Path("runs/ttm-tiny-unet/scenes"))
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny-unet/unet"))
    parser.add_argument("--output", type=Path, default=EMBEDDED)
    parser.add_argument("--start", type=Path, help="go on from this folder's parts")
    parser.add_argument("--pictures-only", type=float, default=PICTURES_ONLY, help="share of the time without clips")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    source = noisy_scenes(arguments.scenes, arguments.output, arguments.seed)
    unet, adapter = new_parts() if arguments.start is None else trained_parts(arguments.start)
    controlnet = new_controlnet(unet) if arguments.start is None else trained_controlnet(arguments.start)
    video, keys, masks = with_motion(unet, adapter), FirstFrameKeys(unet), MaskedQueries(unet)
    sizes = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (unet, adapter, controlnet)]
    print(" + ".join(f"{size:.2f} M" for size in sizes) + f" parameters, {len(source.scenes)} scenes", flush=True)
    kinds = ("pictures", "pictures with masks", "clips", "clips from a first frame", "clips with masks")
    errors = dict.fromkeys(kinds, 1.0)

    def loss_at(step: int, fraction: float) -> Tensor:
        source.at_step(step)
        if fraction < arguments.pictures_only or source.chance(PICTURES):
            kind, loss = loss_of_pictures(fraction >= arguments.pictures_only and source.chance(CONTROLLED))
        else:
            kind, loss = loss_of_clips()
        errors[kind] += 0.02 * (float(loss.detach()) - errors[kind])
        return loss

    def loss_of_pictures(controlled: bool) -> tuple[str, Tensor]:
        index, frame, latents, weights = source.pictures(24)
        noisy, noise, timesteps = source.noised(latents)
        text = source.texts(index, 0.5)
        keys.look_at_first_frame(None)
        masks.show(None)
        if controlled:
            prediction = steered(unet, controlnet, noisy, timesteps, text, source.masks(index, frame))
        else:
            prediction = unet(noisy, timesteps, text).sample
        return "pictures with masks" if controlled else "pictures", source.loss(prediction, noise, weights, timesteps)

    def loss_of_clips() -> tuple[str, Tensor]:
        index, latents, weights = source.clips(3)
        noisy, noise, timesteps = source.noised(latents)
        from_first = source.chance(CLEAN_FIRST_FRAME)
        with_masks = from_first and source.chance(MASKED)
        text = source.texts(index, 0.05, CLEAN_TEXT_DROPOUT if from_first else TEXT_DROPOUT)
        keys.look_at_first_frame(latents.shape[2] if from_first else None)
        masks.show(source.scenes.coverage[index].float() / 255 if with_masks else None)
        if from_first:
            noisy, weights = with_clean_first_frame(noisy, latents, weights)
        prediction = video(noisy, timesteps, text.repeat_interleave(noisy.shape[2], 0)).sample
        kind = "clips with masks" if with_masks else "clips from a first frame" if from_first else "clips"
        return kind, source.loss(prediction, noise, weights, timesteps)

    def on_checkpoint(progress: Progress) -> str:
        return " ".join(f"{name} {value:.4f}" for name, value in errors.items())

    train(
        nn.ModuleDict({"video": video, "masks": masks, "controlnet": controlnet}), loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=arguments.learning_rate, on_checkpoint=on_checkpoint, muon=True,
        checkpoint_every_seconds=120,
    )  # fmt: skip
    unet.to(torch.float16).save_pretrained(arguments.output / "unet")
    adapter.to(torch.float16).save_pretrained(arguments.output / "motion_adapter")
    controlnet.to(torch.float16).save_pretrained(arguments.output / "controlnet")


if __name__ == "__main__":
    main()
