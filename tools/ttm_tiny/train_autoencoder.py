"""Make the video autoencoder of ttm-tiny: the best linear one, with residual blocks that learn on synthetic clips.

    python -m tools.ttm_tiny.train_autoencoder --minutes 60
    python -m tools.ttm_tiny.train_autoencoder --minutes 60 --like ttm/pretrained/ttm-tiny/vae
    python -m tools.ttm_tiny.train_autoencoder --minutes 20 --decoder-of ttm/pretrained/ttm-tiny/vae --run runs/decoder

It begins at the best linear encoder and decoder (``linear_autoencoder``), and the decoder's residual blocks, which add
nothing at first, learn what is not linear. The second form makes its latents as like those of another autoencoder as a
linear encoder can, so that stages trained on that one go on in the new latents. The third goes on with a decoder: what
the encoder gives stays as it is, and so do the models that were trained on it.

It is diffusers' ``AutoencoderKLLTXVideo`` with the pixel packing and the latent geometry of Wan 2.2 (no convolution
runs at full resolution): 16 x in space, 4 x in time, 48 latent channels. It is convolutional: the decoder trains on
crops of 64 and 128 pixels, of clips and of single frames, because that is where the photographs vary.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, AutoModel
from numpy.typing import NDArray
from torch import Tensor

from tools.ttm_tiny.linear_autoencoder import set_linear_autoencoder
from tools.ttm_tiny.timed_training import Progress, train
from ttm.data.sprites import TRAINING_PHOTOGRAPHS, random_crop
from ttm.data.synthetic import SyntheticWorld
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.autoencoders import encode_video

CONFIG = {
    "latent_channels": 48, "patch_size": 4, "downsample_type": ("conv", "conv"),
    "block_out_channels": (64, 64), "layers_per_block": (0, 0, 0), "spatio_temporal_scaling": (True, True),
    "down_block_types": ("LTXVideoDownBlock3D", "LTXVideoDownBlock3D"),
    "decoder_block_out_channels": (64, 64), "decoder_layers_per_block": (2, 2, 0), "upsample_factor": (1, 1),
    "decoder_spatio_temporal_scaling": (True, True), "upsample_residual": (False, False),
    "decoder_inject_noise": (False, False, False),
}  # fmt: skip
LINEAR_SCENES = 320
"""Of which the linear autoencoder is made; directions of few scenes fit those scenes alone."""

POOL = 400
"""Scenes that crops are taken from at a time; training begins with a quarter of them."""


@torch.no_grad()
def new_autoencoder(like: Path | None) -> AutoencoderKLLTXVideo:
    """The autoencoder as far as linear algebra brings it.

    Args:
        like: another autoencoder of the same geometry, whose latents, normalised, the new ones shall be like.
    """
    vae = AutoencoderKLLTXVideo(**CONFIG)
    clips = to_tensor(np.stack(list(_clips_and_palettes(SyntheticWorld("train"), LINEAR_SCENES, every=4))))
    latents = None
    if like is not None:
        model = AutoModel.from_pretrained(str(like)).float()
        latents = torch.cat([encode_video(model, clip[None]) for clip in clips])
    set_linear_autoencoder(vae, clips, latents)
    if like is None:
        set_latent_statistics(vae)
    return vae


def _clips_and_palettes(world: SyntheticWorld, scenes: int, every: int) -> Iterator[NDArray[np.uint8]]:
    """The clips of the first scenes, each uint8 [T, H, W, 3], and of every so many the palette clip too."""
    for index in range(scenes):
        scene = world[index]
        yield scene.frames
        if index % every == 0:
            yield MaskTrajectory(scene.ids).to_video()


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


def decoder_loss(vae: AutoencoderKLLTXVideo, x: Tensor) -> Tensor:
    """Of the decoder; the encoder works in fp32."""
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.sample()
    with torch.autocast("cpu", torch.bfloat16):
        y = vae.decode(latents).sample.float()
    return pixel_loss(y, x)


def pixel_loss(y: Tensor, x: Tensor) -> Tensor:
    """Mostly the squared error of y, as PSNR counts; pictures or clips in -1..1."""
    error = y - x
    return 0.3 * error.abs().mean() + 4 * error.square().mean()


@torch.no_grad()
def measure(vae: AutoencoderKLLTXVideo, scenes: int = 5) -> dict[str, float]:
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
def set_latent_statistics(vae: AutoencoderKLLTXVideo, scenes: int = 48) -> None:
    """Measure mean and deviation of each latent channel over clips and palette clips, into the autoencoder."""
    latents = []
    for clip in _clips_and_palettes(SyntheticWorld("val"), scenes, every=1):
        latents.append(vae.encode(to_tensor(clip[None])).latent_dist.mode())
    stacked = torch.cat(latents).transpose(0, 1).flatten(1)
    vae.latents_mean.copy_(stacked.mean(1))
    vae.latents_std.copy_(stacked.std(1))


def _told(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny/vae"))
    parser.add_argument("--output", type=Path, default=Path("ttm/pretrained/ttm-tiny/vae"))
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--like", type=Path, help="turn the new latents to be like those of this autoencoder")
    start.add_argument("--decoder-of", type=Path, help="go on from these weights")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    if arguments.decoder_of is None:
        vae = new_autoencoder(arguments.like)
    else:
        vae = AutoencoderKLLTXVideo.from_pretrained(arguments.decoder_of).float()
    for name, parameter in vae.named_parameters():  # the linear path stays: steps that suit the blocks would ruin it
        parameter.requires_grad_(name.startswith("decoder.") and ".resnets." in name)
    print(f"at the start: {_told(measure(vae))}", flush=True)
    print(f"{sum(p.numel() for p in vae.parameters() if p.requires_grad) / 1e6:.2f} M trained parameters", flush=True)
    source = CropSource(SyntheticWorld("train", pieces=0.3), pool_size=POOL, seed=arguments.seed)
    for _ in range(POOL // 4):
        source.renew()

    def loss_at(step: int, fraction: float) -> Tensor:
        if step % 4 == 0:
            count, num_frames, side = (12, 1, 64) if step % 8 else (4, 1, 128)
        else:
            count, num_frames, side = [(4, 9, 64), (1, 9, 128), (2, 17, 64)][step % 3]
        if step % 2 == 0:
            source.renew()
        x = source.batch(count, num_frames, side)
        return decoder_loss(vae, x)

    def on_checkpoint(progress: Progress) -> str:
        return _told(measure(vae))

    train(
        vae, loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=arguments.learning_rate, on_checkpoint=on_checkpoint, muon=True,
    )  # fmt: skip
    vae.to(torch.float16).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
