"""Make the video autoencoder of ttm-tiny: an encoder in closed form, and a decoder trained on synthetic clips.

    python -m tools.ttm_tiny.train_autoencoder --minutes 60
    python -m tools.ttm_tiny.train_autoencoder --minutes 60 --like ttm/pretrained/ttm-tiny/vae
    python -m tools.ttm_tiny.train_autoencoder --minutes 20 --decoder-of ttm/pretrained/ttm-tiny/vae --run runs/decoder

The encoder is a principal component analysis (``linear_encoder``). The second form turns its latents to be as like
those of another autoencoder as a rotation can, so that stages trained on that one learn the new latents sooner. The
third goes on with a decoder: what the encoder gives stays as it is, and so do the models that were trained on it.

It is diffusers' ``AutoencoderKLWan`` with the residual shortcuts, the pixel packing and the latent geometry of
Wan 2.2 (no convolution runs at full resolution): 16 x in space, 4 x in time, 48 latent channels. It is
convolutional: it trains on crops of 64 and 128 pixels, of one frame, because that is where the photographs vary, and
of clips. A causal convolution sees zeros before the first frame, so on one frame it equals the plane convolution
of its last temporal tap, at a third of the work; the other taps start at zero, as an image model inflated to video.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tools.ttm_tiny.linear_encoder import set_linear_encoder
from tools.ttm_tiny.timed_training import Progress, train
from ttm.data.sprites import TRAINING_PHOTOGRAPHS, random_crop
from ttm.data.synthetic import SyntheticWorld
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.autoencoders import encode_video

CONFIG = {
    "base_dim": 64, "decoder_base_dim": 72, "z_dim": 48, "dim_mult": [1, 1, 1], "num_res_blocks": 1,
    "temperal_downsample": [True, True], "is_residual": True, "patch_size": 4, "in_channels": 48, "out_channels": 48,
    "scale_factor_temporal": 4, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip
KL_WEIGHT = 1e-4
ENCODER_SCENES = 320
"""Of which the encoder is made; directions of few scenes fit those scenes alone."""


@torch.no_grad()
def new_autoencoder(like: Path | None) -> AutoencoderKLWan:
    """The autoencoder with its encoder set, its latents' statistics measured and its decoder at random.

    Args:
        like: another autoencoder of the same geometry, whose latents the new ones are turned towards.
    """
    vae = AutoencoderKLWan(**CONFIG)
    clips = to_tensor(np.stack(list(_clips_and_palettes(SyntheticWorld("train"), ENCODER_SCENES, every=4))))
    latents = None
    if like is not None:
        model = AutoencoderKLWan.from_pretrained(like).float()
        latents = torch.cat([encode_video(model, clip[None]) for clip in clips])
    set_linear_encoder(vae, clips, latents)
    set_latent_statistics(vae)
    return vae


def _clips_and_palettes(world: SyntheticWorld, scenes: int, every: int) -> Iterator[NDArray[np.uint8]]:
    """The clips of the first scenes, each uint8 [T, H, W, 3], and of every so many the palette clip too."""
    for index in range(scenes):
        scene = world[index]
        yield scene.frames
        if index % every == 0:
            yield MaskTrajectory(scene.ids).to_video()


def inflate(part: nn.Module, zero_other_taps: bool) -> None:
    """Let a lone first frame take the plane convolution (exactly equal); at the start, zero the other temporal taps."""
    for module in part.modules():
        if not isinstance(module, WanCausalConv3d):
            continue
        if zero_other_taps and module.kernel_size[0] > 1 and module.kernel_size[1] > 1:
            module.weight.data[:, :, :-1] = 0
        module.forward = partial(_first_frame_in_the_plane, module)


def _first_frame_in_the_plane(conv: WanCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    if x.shape[2] > 1 or cache_x is not None:
        return WanCausalConv3d.forward(conv, x, cache_x)
    left, _, top, _, _, _ = conv._padding
    plane = functional.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, conv.stride[1:], (top, left))
    return plane.unsqueeze(2)


class CropSource:
    """Random crops from a pool of scenes that is renewed scene by scene."""

    def __init__(self, world: SyntheticWorld, pool_size: int, seed: int) -> None:
        self.world, self.rng = world, np.random.default_rng(seed)
        self.next_scene = int(self.rng.integers(10**6))
        self.pool: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self.pool_size = pool_size

    def renew(self) -> None:
        """Draw one new scene, in the place of a random old one once the pool is full."""
        scene = self.world[self.next_scene]
        self.next_scene += 1
        pair = (scene.frames, MaskTrajectory(scene.ids).to_video())
        if len(self.pool) < self.pool_size:
            self.pool.append(pair)
        else:
            self.pool[int(self.rng.integers(self.pool_size))] = pair

    def batch(self, count: int, num_frames: int, side: int = 64) -> Tensor:
        """Clips, a fifth of them palette clips, and photographs: float32 [count, 3, T, side, side] in [-1, 1]."""
        crops = []
        for _ in range(count):
            if num_frames == 1 and self.rng.random() < 0.35:
                photo = str(self.rng.choice(TRAINING_PHOTOGRAPHS))
                clip = random_crop(self.rng, photo, 128, smallest=0.4)[None]
            else:
                pair = self.pool[int(self.rng.integers(len(self.pool)))]
                clip = pair[int(self.rng.random() < 0.2)]
            t = int(self.rng.integers(clip.shape[0] - num_frames + 1))
            y, x = self.rng.integers(0, clip.shape[1] - side + 1, 2)
            crop = clip[t : t + num_frames, y : y + side, x : x + side]
            if self.rng.random() < 0.3:
                crop = crop[..., self.rng.permutation(3)]
            crops.append(crop)
        return to_tensor(np.stack(crops))


def to_tensor(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, T, H, W, 3] -> float32 [B, 3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, 1))).float() / 127.5 - 1


def round_trip_loss(vae: Any, x: Tensor) -> Tensor:
    """Mostly the squared error, as PSNR counts; the posterior is held near to a unit normal, lightly.

    Args:
        vae: an autoencoder of images or videos.
        x: what it is to give back, in -1..1.
    """
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample.float()
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    return _pixel_loss(y, x) + KL_WEIGHT * kl


def decoder_loss(vae: AutoencoderKLWan, x: Tensor) -> Tensor:
    """The same of a decoder alone. The encoder works in fp32: bf16 would round 1.4 dB away (a linear decoder's)."""
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.sample()
    with torch.autocast("cpu", torch.bfloat16):
        y = vae.decode(latents).sample.float()
    return _pixel_loss(y, x)


def _pixel_loss(y: Tensor, x: Tensor) -> Tensor:
    error = y - x
    return 0.3 * error.abs().mean() + 4 * error.square().mean()


@torch.no_grad()
def measure(vae: AutoencoderKLWan, scenes: int = 5) -> dict[str, float]:
    """PSNR in dB of held-out clips and of their first frames alone; mean IoU of the ids of their palette clips."""
    world = SyntheticWorld("test")
    psnr, first, hits = [], [], []
    for index in range(scenes):
        scene = world[index]
        x = to_tensor(np.stack([scene.frames, MaskTrajectory(scene.ids).to_video()]))
        latents = vae.encode(x).latent_dist.mode()
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(latents).sample.float()
        error = ((y[0] - x[0]) / 2).square().mean(dim=(0, 2, 3))
        psnr.append(-10 * np.log10(float(error.mean())))
        first.append(-10 * np.log10(float(error[0])))
        decoded = ((np.moveaxis(y[1].numpy(), 0, -1) + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
        ids = MaskTrajectory.from_video(decoded).ids
        for number in range(1, len(scene.objects) + 1):
            a, b = ids == number, scene.ids == number
            hits.append((a & b).sum() / max((a | b).sum(), 1))
    figures = {"psnr_db": psnr, "first_frame_psnr_db": first, "palette_iou": hits}
    return {name: float(np.mean(values)) for name, values in figures.items()}


@torch.no_grad()
def set_latent_statistics(vae: AutoencoderKLWan, scenes: int = 48) -> None:
    """Measure mean and deviation of each latent channel over clips and palette clips, into the config."""
    latents = []
    for clip in _clips_and_palettes(SyntheticWorld("val"), scenes, every=1):
        latents.append(vae.encode(to_tensor(clip[None])).latent_dist.mode())
    stacked = torch.cat(latents).transpose(0, 1).flatten(1)
    vae.register_to_config(latents_mean=stacked.mean(1).tolist(), latents_std=stacked.std(1).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny/vae"))
    parser.add_argument("--output", type=Path, default=Path("ttm/pretrained/ttm-tiny/vae"))
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--like", type=Path, help="turn the new latents to be like those of this autoencoder")
    start.add_argument("--decoder-of", type=Path, help="go on from these weights")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    if arguments.decoder_of is None:
        vae = new_autoencoder(arguments.like)
    else:
        vae = AutoencoderKLWan.from_pretrained(arguments.decoder_of).float()
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    inflate(vae.decoder, zero_other_taps=arguments.decoder_of is None)
    inflate(vae.encoder, zero_other_taps=False)
    print(f"{sum(p.numel() for p in vae.parameters() if p.requires_grad) / 1e6:.2f} M trained parameters", flush=True)
    source = CropSource(SyntheticWorld("train"), pool_size=400, seed=arguments.seed)
    for _ in range(100):
        source.renew()

    def loss_at(step: int, fraction: float) -> Tensor:
        if step % 4 == 0:
            count, num_frames, side = (12, 1, 64) if step % 8 else (4, 1, 128)
        else:  # the caches between chunks of 4 frames are full from the third chunk on: 5 frames would not train them
            count, num_frames, side = [(4, 9, 64), (1, 9, 128), (2, 17, 64)][step % 3]
        if step % 2 == 0:
            source.renew()
        x = source.batch(count, num_frames, side)
        return decoder_loss(vae, x)

    def on_checkpoint(progress: Progress) -> str:
        return " ".join(f"{name} {value:.3f}" for name, value in measure(vae).items())

    train(
        vae, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=arguments.learning_rate, on_checkpoint=on_checkpoint, muon=True,
    )  # fmt: skip
    vae.to(torch.float16).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
