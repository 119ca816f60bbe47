"""Batches of noised pictures and clips with their texts and masks, for U-Net, motion modules and ControlNet.

Letters: B batch, N scenes, C channels of the latents, T frames, h w places of a latent frame, S D tokens and width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tools.ttm_tiny_unet.encoded_scenes import KEPT_IDS, EncodedScenes, embed, load
from ttm.pipelines.few_shot_base import STABLE_DIFFUSION_NOISE

OBJECT_WEIGHT = 3.0
TEXT_DROPOUT = 0.1


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

    def masks(self, index: Tensor, frame: Tensor) -> Tensor:
        """The ids of pictures, uint8 [B, H, W], by their scenes and frames [B] each."""
        return self.scenes.ids[index, frame // KEPT_IDS]

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
