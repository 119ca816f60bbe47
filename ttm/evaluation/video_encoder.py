"""A small network that turns a clip into a few numbers: what is shown, which way it moves, how it changes.

Only a stand-in for I3D where that is absent: it was trained on the synthetic world alone
(``tools/ttm_tiny/train_video_encoder.py``), by naming the objects, motions and changes of each clip.

Letters: B clips, C channels, T frames, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import cv2
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor, nn

from ttm.metrics.scoring import Clip
from ttm.metrics.weights import find_weights
from ttm.pipelines.embedded import EMBEDDED

SOURCE = "ttm-tiny-video"
_FILES = ("diffusion_pytorch_model.safetensors", "config.json")
_CLIPS_AT_ONCE = 32


class _Block(nn.Module):
    """A convolution over space, one over time, and what came in, all at half the side."""

    def __init__(self, channels: int, wider: int, time_stride: int) -> None:
        super().__init__()
        self.space = nn.Conv3d(channels, wider, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.time = nn.Conv3d(wider, wider, (3, 1, 1), (time_stride, 1, 1), (1, 0, 0))
        self.short = nn.Conv3d(channels, wider, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in (channels, wider))
        self.pool = nn.AvgPool3d((time_stride, 2, 2), ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.space(nn.functional.silu(self.norms[0](x)))
        inner = self.time(nn.functional.silu(self.norms[1](inner)))
        return cast(Tensor, inner + self.pool(self.short(x)))


class VideoEncoder(ModelMixin, ConfigMixin):
    """Factorised convolutions over space and time, pooled over both.

    Args:
        width: D, of the features.
        channels: of the stem and each block after it, multiples of 8.
        num_frames: frames that are looked at, spread evenly over the clip.
        side: of the square that frames are squashed to, in pixels.
    """

    @register_to_config
    def __init__(
        self, width: int = 64, channels: tuple[int, ...] = (16, 32, 64, 128), num_frames: int = 16, side: int = 48
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, channels[0], (1, 5, 5), (1, 2, 2), (0, 2, 2))
        pairs = zip(channels[:-1], channels[1:], strict=True)
        blocks = (_Block(narrow, wide, 1 if n == 0 else 2) for n, (narrow, wide) in enumerate(pairs))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.GroupNorm(8, channels[-1])
        self.features = nn.Linear(2 * channels[-1], width)

    def forward(self, clips: Tensor) -> Tensor:
        """Features [B, D] of clips [B, T, 3, H, W] in -1..1, T and H = W those of the config."""
        x = self.stem(rearrange(clips, "B T C H W -> B C T H W"))
        x = nn.functional.silu(self.norm(self.blocks(x)))
        pooled = [reduce(x, "B C T H W -> B C", "mean"), reduce(x, "B C T H W -> B C", "max")]
        return cast(Tensor, self.features(torch.cat(pooled, dim=1)))

    def prepare(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The clip that is looked at, uint8 [T, side, side, 3], of frames uint8 [any, H, W, 3]; few are repeated."""
        wanted = np.linspace(0, len(frames) - 1, self.config.num_frames).round().astype(int)
        side = (self.config.side, self.config.side)
        small = [cv2.resize(frames[n], side, interpolation=cv2.INTER_AREA) for n in wanted]
        return np.stack(small).astype(np.uint8)


def to_clips(pixels: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """[B, T, 3, H, W] in -1..1, of uint8 [B, T, H, W, 3]."""
    clips = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return rearrange(clips, "B T H W C -> B T C H W").float() / 127.5 - 1


class TinyVideoFeatures:
    """A clip's features by the embedded video encoder, for FVD's stand-in.

    Args:
        device: where it runs.

    Raises:
        ValueError: this installation has no ttm-tiny-video.
    """

    def __init__(self, device: str = "cpu") -> None:
        folder = EMBEDDED / SOURCE
        weights = find_weights(folder, _FILES, "stand-in features of videos", "a part of through-the-mask")
        encoder = VideoEncoder.from_pretrained(folder, torch_dtype=torch.float32)
        self._encoder = encoder.to(device).eval().requires_grad_(False)
        self.width = int(encoder.config.width)
        self.weights: dict[str, Any] = {**weights.to_dict(), "source": SOURCE}
        self.convention: dict[str, Any] = {
            "features": "STAND-IN: the small video encoder of through-the-mask; no published figure compares",
            "pixels": f"{encoder.config.num_frames} frames spread evenly over the clip, squashed to"
            f" {encoder.config.side} x {encoder.config.side}, areas averaged",
        }

    @torch.inference_mode()
    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """Float32 [D] a clip."""
        found: list[NDArray[np.float32]] = []
        for begin in range(0, len(clips), _CLIPS_AT_ONCE):
            pixels = np.stack([self._encoder.prepare(clip.frames) for clip in clips[begin : begin + _CLIPS_AT_ONCE]])
            found += list(self._encoder(to_clips(pixels, self._encoder.device)).float().cpu().numpy())
        return found
