"""Train the image autoencoder of ttm-tiny-unet on frames of synthetic clips, their palette frames and photographs.

    python -m tools.ttm_tiny_unet.train_autoencoder --minutes 60
    python -m tools.ttm_tiny_unet.train_autoencoder --decoder-of ttm/pretrained/ttm-tiny-unet/vae --run runs/decoder

The second form goes on with the decoder alone: the latents, and what was trained on them, stay as they are.
It is diffusers' ``AutoencoderKL`` as Stable Diffusion has it, with one level more: 16 x in space, 24 latent channels,
so that a frame of 128 x 128 is 8 x 8 places and a clip of 17 frames 1,088. It has no attention, so it trains on crops
of 64 pixels at first; then on whole frames, since its group norms take their statistics over the whole picture.
A frame of a mask trajectory in the palette's colours passes through it as any other picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from torch import Tensor, nn

from tools.ttm_tiny.timed_training import Progress, train
from tools.ttm_tiny.train_autoencoder import CropSource, pixel_loss
from ttm.data.synthetic import SyntheticWorld
from ttm.motion.mask_trajectory import MaskTrajectory

LEVELS = (16, 32, 64, 96, 96)
LATENT_CHANNELS = 24
CONFIG = {
    "down_block_types": ("DownEncoderBlock2D",) * len(LEVELS), "up_block_types": ("UpDecoderBlock2D",) * len(LEVELS),
    "block_out_channels": LEVELS, "layers_per_block": 1, "latent_channels": LATENT_CHANNELS, "norm_num_groups": 8,
    "sample_size": 128, "mid_block_add_attention": False, "scaling_factor": 1.0,
}  # fmt: skip
KL_WEIGHT = 1e-4
CROPS_UNTIL = 0.6
"""Share of the time on crops. Trained on crops alone, it was at 25.8 dB on such crops and at 24.3 on whole frames."""


def new_autoencoder() -> AutoencoderKL:
    """One that starts as a chain of linear maps: it learns several times faster than from the usual start.

    Every residual branch begins at zero, every convolution on the main path keeps the variance, those after an
    enlargement are near the identity, and the latents carry little noise.
    """
    vae = AutoencoderKL(**CONFIG)
    for name, module in vae.named_modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, nn.Conv2d) and not name.endswith(("conv1", "conv2", "quant_conv")):
            enlarged = "upsamplers" in name
            nn.init.normal_(module.weight, 0, (0.3 if enlarged else 1.0) * module.weight[0].numel() ** -0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            if enlarged:
                module.weight.data[:, :, 1, 1] += torch.eye(len(module.weight))
    vae.quant_conv.bias.data[vae.config.latent_channels :] = -6.0  # the logarithm of the latents' variance
    return vae


def with_fixed_latents(folder: Path) -> AutoencoderKL:
    """A trained autoencoder, fp32, of which only the decoder learns."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).train()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return vae


def to_pictures(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 [..., H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    flat = np.ascontiguousarray(np.moveaxis(frames.reshape(-1, *frames.shape[-3:]), -1, 1))
    return torch.from_numpy(flat).float() / 127.5 - 1


def to_frames(pictures: Tensor) -> NDArray[np.uint8]:
    """[N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3]."""
    return ((pictures.float().movedim(1, -1) + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).numpy()


@torch.no_grad()
def round_trip(vae: AutoencoderKL, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames uint8 [N, H, W, 3] through the encoder and the decoder and back."""
    with torch.autocast("cpu", torch.bfloat16):
        return to_frames(vae.decode(vae.encode(to_pictures(frames)).latent_dist.mode()).sample)


def measure(vae: AutoencoderKL, scenes: int = 8) -> dict[str, float]:
    """PSNR in dB of frames of held-out scenes; mean IoU of the objects of their palette frames."""
    world = SyntheticWorld("test")
    psnr, hits = [], []
    for index in range(scenes):
        scene = world[index]
        frames, ids = scene.frames[::8], scene.ids[::8]
        error = (round_trip(vae, frames).astype(np.float32) - frames) / 255
        psnr.append(-10 * np.log10(np.square(error).mean()))
        found = MaskTrajectory.from_video(round_trip(vae, MaskTrajectory(ids).to_video())).ids
        for number in range(1, len(scene.objects) + 1):
            a, b = found == number, ids == number
            hits.append((a & b).sum() / max((a | b).sum(), 1))
    return {"psnr_db": float(np.mean(psnr)), "palette_iou": float(np.mean(hits))}


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, scenes: int = 32) -> None:
    """Make every latent channel of mean 0 and deviation 1, inside the two convolutions around the latents.

    ``AutoencoderKL`` knows one factor for all channels; the 1 x 1 convolutions can hold one a channel, and a shift.
    The pictures stay what they were, and ``scaling_factor`` is 1.
    """
    world, latents = SyntheticWorld("val"), []
    for index in range(scenes):
        scene = world[index]
        x = to_pictures(np.concatenate([scene.frames[::4], MaskTrajectory(scene.ids[::8]).to_video()]))
        latents.append(vae.encode(x).latent_dist.mode())
    stacked = torch.cat(latents).transpose(0, 1).flatten(1)
    mean, deviation = stacked.mean(1), stacked.std(1)
    channels = len(mean)
    into, out_of = vae.quant_conv, vae.post_quant_conv
    into.weight[:channels] /= deviation[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= deviation[None, :, None, None]


def round_trip_loss(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """The error of pictures x [B, 3, H, W] in -1..1; the posterior is held near to a unit normal, lightly."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample.float()
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    return pixel_loss(y, x) + KL_WEIGHT * kl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny-unet/vae"))
    parser.add_argument("--output", type=Path, default=Path("ttm/pretrained/ttm-tiny-unet/vae"))
    parser.add_argument("--decoder-of", type=Path, help="go on from these weights, and train their decoder alone")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    vae = new_autoencoder() if arguments.decoder_of is None else with_fixed_latents(arguments.decoder_of)
    print(f"{sum(p.numel() for p in vae.parameters() if p.requires_grad) / 1e6:.2f} M trained parameters", flush=True)
    source = CropSource(SyntheticWorld("train"), pool_size=300, seed=arguments.seed)
    for _ in range(40):
        source.renew()

    def loss_at(step: int, fraction: float) -> Tensor:
        if step % 6 == 0:
            source.renew()
        count, side = (8, 64) if fraction < CROPS_UNTIL else (2, 128)
        return round_trip_loss(vae, source.batch(count, 1, side)[:, :, 0])

    def on_checkpoint(progress: Progress) -> str:
        return " ".join(f"{name} {value:.3f}" for name, value in measure(vae).items())

    train(
        vae, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=arguments.learning_rate, on_checkpoint=on_checkpoint, muon=True,
    )  # fmt: skip
    if arguments.decoder_of is None:
        standardise_latents(vae)
    vae.to(torch.float16).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
