"""What the few-shot variant does in a U-Net's attentions, done to diffusers' own while the base of it is trained.

Letters: B batch, T frames, h w the latent grid, n places of a level, D width.

Nothing of it stays in the U-Net. ``ttm/models/first_frame_attention.py`` is the real thing, and says which equations.
"""

from __future__ import annotations

import math
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from ttm.models.first_frame_attention import MaskProjection

MASK_SCALE = 10.0
"""A mask is shown so much larger: Muon moves a projection of one number slowly, and weight decay pulls it back."""


def spatial_blocks(unet: UNet2DConditionModel) -> list[BasicTransformerBlock]:
    """Every block that has a spatial self-attention and a cross-attention, in the order of the modules."""
    return [block for block in unet.modules() if isinstance(block, BasicTransformerBlock)]


class FirstFrameKeys(AttnProcessor2_0):
    """Computes the spatial self-attention of a U-Net; while told to, with the keys and values of the first frame."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.num_frames: int | None = None
        for block in spatial_blocks(unet):
            block.attn1.set_processor(self)

    def look_at_first_frame(self, num_frames: int | None) -> None:
        """Take tokens [B * T, n, D] for those of clips of so many frames; None: every frame looks at itself."""
        self.num_frames = num_frames

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As diffusers calls it."""
        if self.num_frames is not None:
            first = rearrange(hidden_states, "(b t) n d -> b t n d", t=self.num_frames)[:, 0]
            encoder_hidden_states = repeat(first, "b n d -> (b t) n d", t=self.num_frames)
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


class MaskedQueries(nn.Module):
    """Computes the cross-attention of a U-Net; while told to, with masks in what asks the text (Eq. 6-7).

    Its projections, one an attention and zero at first, are no part of the U-Net.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        blocks = spatial_blocks(unet)
        self.projections = nn.ModuleList(MaskProjection(block.attn2.query_dim) for block in blocks)
        self.coverage: Tensor | None = None
        for block, projection in zip(blocks, self.projections, strict=True):
            block.attn2.set_processor(_MaskedQuery(self, projection))

    def show(self, coverage: Tensor | None) -> None:
        """From now on clips have masks, the share of each place that any covers, float [B, T, h, w]; None: no masks."""
        self.coverage = coverage

    def of_level(self, places: int) -> Tensor | None:
        """The masks of the level with so many places, [B * T, n, 1], or None."""
        if self.coverage is None:
            return None
        side = math.isqrt(places)  # clips are square
        coverage = functional.adaptive_avg_pool2d(MASK_SCALE * self.coverage, (side, side))
        return rearrange(coverage, "b t h w -> (b t) (h w) 1")


class _MaskedQuery(AttnProcessor2_0):
    def __init__(self, masks: MaskedQueries, projection: nn.Module) -> None:
        super().__init__()
        self.masks, self.projection = masks, projection

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As diffusers calls it."""
        masks = self.masks.of_level(hidden_states.shape[1])
        if masks is not None:
            hidden_states = hidden_states + self.projection(masks)
        return super().__call__(attn, hidden_states, *args, **kwargs)
