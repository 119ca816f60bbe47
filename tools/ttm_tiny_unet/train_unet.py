"""Train the U-Net and the motion adapter of ttm-tiny-unet together, on encoded pictures and clips.

    python -m tools.ttm_tiny_unet.train_unet --minutes 60
    python -m tools.ttm_tiny_unet.train_unet --minutes 60 --start ttm/pretrained/ttm-tiny-unet --run runs/unet_more

The U-Net is diffusers' ``UNet2DConditionModel`` as Stable Diffusion 1.x has it, with two levels (8 x 8 and 4 x 4
places); the motion modules are AnimateDiff's. Pictures train the U-Net alone, so that it draws without them; clips
train both. The first part of the time sees pictures only, the cheapest way to learn what things look like.
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

import numpy as np
import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.ttm_tiny.timed_training import Progress, train
from tools.ttm_tiny_unet.clip_attention import FirstFrameKeys, MaskedQueries
from tools.ttm_tiny_unet.encoded_scenes import KEPT_IDS, EncodedScenes, embed, load
from tools.ttm_tiny_unet.train_autoencoder import LATENT_CHANNELS
from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE

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
OBJECT_WEIGHT = 3.0
TEXT_DROPOUT = 0.1
PICTURES_ONLY = 0.4
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


class NoisyScenes:
    """Draws batches of noised pictures and clips with their texts, and weighs the error towards objects.

    Args:
        scenes: what to draw from.
        embeddings: of the captions, the prompts and the empty text, [2 N + 1, S, D].
        seed: of the choices.
    """

    def __init__(self, scenes: EncodedScenes, embeddings: Tensor, seed: int) -> None:
        self.scenes, self.embeddings = scenes, embeddings
        self.seed, self.random = seed, torch.Generator().manual_seed(seed)
        self.noise = DDIMScheduler(**STABLE_DIFFUSION_NOISE)

    def at_step(self, step: int) -> None:
        """Draw what belongs to this step from now on: a run that goes on sees what it would have seen uninterrupted."""
        self.random.manual_seed(int(np.random.SeedSequence((self.seed, step)).generate_state(1)[0]))

    def _integers(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.random)

    def texts(self, index: Tensor, caption_share: float, dropout: float = TEXT_DROPOUT) -> Tensor:
        """An embedding for each scene: its caption, its prompt, or now and then nothing."""
        chance = torch.rand((2, len(index)), generator=self.random)
        row = torch.where(chance[0] < caption_share, index, index + len(self.scenes))
        return self.embeddings[torch.where(chance[1] < dropout, 2 * len(self.scenes), row)]

    def pictures(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scene and frame of each picture [B] each, latents [B, C, h, w] and weights [B, 1, h, w].

        A frame is one of those whose ids are kept.
        """
        index = self._integers(len(self.scenes), count)
        limits = torch.tensor([self.scenes.faithful_frames[int(i)] for i in index])
        frame = (torch.rand(count, generator=self.random) * limits).long() // KEPT_IDS * KEPT_IDS
        weights = 1 + OBJECT_WEIGHT * self.scenes.coverage[index, frame].float()[:, None] / 255
        return index, frame, self.scenes.latents[index, :, frame].float(), weights

    def clips(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scene of each clip [B], latents [B, C, T, h, w] and weights [B, 1, T, h, w]."""
        index = self._integers(len(self.scenes), count)
        weights = 1 + OBJECT_WEIGHT * self.scenes.coverage[index].float()[:, None] / 255
        return index, self.scenes.latents[index].float(), weights

    def noised(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noised latents, noise, timesteps [B]."""
        noise = torch.randn(latents.shape, generator=self.random)
        timesteps = self._integers(STABLE_DIFFUSION_NOISE["num_train_timesteps"], len(latents))
        return self.noise.add_noise(latents, noise, timesteps), noise, timesteps

    def chance(self, share: float) -> bool:
        """Whether something happens that does so in this share of the cases."""
        return bool(torch.rand((), generator=self.random) < share)

    def loss(self, prediction: Tensor, noise: Tensor, weights: Tensor, timesteps: Tensor) -> Tensor:
        """The error of the noise, weighed by 1 / a_t: as much as the error of v (Salimans and Ho 2022, SNR + 1).

        What is where is decided at the noisiest steps. There the noise itself is nearly the input, so a plain error
        hardly sees whether the model knows; a small model trained for minutes then draws patches anywhere.
        """
        kept = self.noise.alphas_cumprod[timesteps].view(-1, *(1,) * (noise.dim() - 1))
        return weighted_error(prediction / kept.sqrt(), noise / kept.sqrt(), weights)


def with_clean_first_frame(noisy: Tensor, latents: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy clips [B, C, T, h, w] and weights with the first frames clean, of weight 0."""
    noisy, weights = noisy.clone(), weights.clone()
    noisy[:, :, 0] = latents[:, :, 0]
    weights[:, :, 0] = 0
    return noisy, weights


def weighted_error(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error with weights of mean one."""
    return ((prediction.float() - target).square() * weights).mean() / weights.mean()


def load_text(pipeline: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The tokenizer and the frozen text encoder, fp32."""
    encoder = CLIPTextModel.from_pretrained(pipeline / "text_encoder", dtype=torch.float32)
    return CLIPTokenizer.from_pretrained(pipeline / "tokenizer"), encoder.eval().requires_grad_(False)


def noisy_scenes(folder: Path, pipeline: Path, seed: int) -> NoisyScenes:
    """The encoded scenes of a folder with their texts embedded."""
    scenes = load(folder)
    return NoisyScenes(scenes, embed(*load_text(pipeline), [*scenes.captions, *scenes.prompts, ""]), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--scenes", type=Path, default=Path("runs/ttm-tiny-unet/scenes"))
    parser.add_argument("--run", type=Path, default=Path("runs/ttm-tiny-unet/unet"))
    parser.add_argument("--output", type=Path, default=EMBEDDED)
    parser.add_argument("--start", type=Path, help="go on from this folder's unet and motion_adapter")
    parser.add_argument("--pictures-only", type=float, default=PICTURES_ONLY, help="share of the time without clips")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    source = noisy_scenes(arguments.scenes, arguments.output, arguments.seed)
    unet, adapter = new_parts() if arguments.start is None else trained_parts(arguments.start)
    video, keys, masks = with_motion(unet, adapter), FirstFrameKeys(unet), MaskedQueries(unet)
    sizes = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (unet, adapter)]
    print(f"{sizes[0]:.2f} M and {sizes[1]:.2f} M parameters, {len(source.scenes)} scenes", flush=True)
    errors = dict.fromkeys(("pictures", "clips", "clips from a first frame", "clips with masks"), 1.0)

    def loss_at(step: int, fraction: float) -> Tensor:
        source.at_step(step)
        of_pictures = fraction < arguments.pictures_only or step % 3 == 0
        if of_pictures:
            index, _, latents, weights = source.pictures(24)
        else:
            index, latents, weights = source.clips(3)
        noisy, noise, timesteps = source.noised(latents)
        from_first = not of_pictures and source.chance(CLEAN_FIRST_FRAME)
        with_masks = from_first and source.chance(MASKED)
        dropout = CLEAN_TEXT_DROPOUT if from_first else TEXT_DROPOUT
        text = source.texts(index, 0.5 if of_pictures else 0.05, dropout)
        keys.look_at_first_frame(latents.shape[2] if from_first else None)
        masks.show(source.scenes.coverage[index].float() / 255 if with_masks else None)
        if of_pictures:
            prediction = unet(noisy, timesteps, text).sample
        else:
            if from_first:
                noisy, weights = with_clean_first_frame(noisy, latents, weights)
            prediction = video(noisy, timesteps, text.repeat_interleave(noisy.shape[2], 0)).sample
        loss = source.loss(prediction, noise, weights, timesteps)
        of_clips = "clips with masks" if with_masks else "clips from a first frame" if from_first else "clips"
        kind = "pictures" if of_pictures else of_clips
        errors[kind] += 0.02 * (float(loss.detach()) - errors[kind])
        return loss

    def on_checkpoint(progress: Progress) -> str:
        return " ".join(f"{name} {value:.4f}" for name, value in errors.items())

    train(
        nn.ModuleDict({"video": video, "masks": masks}), loss_at, arguments.run,
        minutes=arguments.minutes, peak_learning_rate=arguments.learning_rate, on_checkpoint=on_checkpoint, muon=True,
        checkpoint_every_seconds=120,
    )  # fmt: skip
    unet.to(torch.float16).save_pretrained(arguments.output / "unet")
    adapter.to(torch.float16).save_pretrained(arguments.output / "motion_adapter")


if __name__ == "__main__":
    main()
