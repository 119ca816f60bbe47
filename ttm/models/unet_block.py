"""The spatial transformer block of an SD 1.x U-Net that knows its clip: masked branches, attention to frame 1.

Letters: B batch, T frames, n places of a frame, N = T * n tokens (time, row, column), L objects, S places of a
prompt, D width, C width of the text, d width of a head.

How a block learns of its clip. The host hands ``cross_attention_kwargs`` to its spatial blocks and to no other,
as an argument, so the :class:`Clip` travels there. An argument is what gradient checkpointing keeps: the block
is computed again in the backward pass, when a context that was set on the blocks for the time of a forward pass
would be gone, or another pass's.

Positions. The host's spatial attention has none, and neither has the masked self-attention: with the host's
weights it begins as the host's attention spread over the object's tokens of all frames. Which frame a token is
from it can tell by what the motion modules (which have sinusoids of their own) write into the tokens from the
first block on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock, _chunked_feed_forward
from einops import rearrange
from torch import Tensor, nn

from ttm.models.first_frame_attention import MaskProjection, attend_to_first_frame
from ttm.models.masked_attention import CrossMask, SelfRegion, attend_across, attend_within
from ttm.models.regions import Regions


@dataclass(frozen=True)
class Clip:
    """What the spatial blocks know of the clip beside their frame; made once a forward pass.

    Attributes:
        num_frames: T.
        regions: of each level (how often the grid was halved) that has masked blocks.
        foreground: [B * T, n, 1] of each level, for mask cross-attention; empty without coverage.
    """

    num_frames: int
    regions: Mapping[int, Regions]
    foreground: Mapping[int, Tensor]


CLIP = "clip"
"""Its key in ``cross_attention_kwargs``."""


class MaskedBranch(nn.Module):
    """The projections of one masked attention, shaped as the host's; the last one is zero at first."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, key_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_dim
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(key_dim, inner, bias=False)
        self.to_v = nn.Linear(key_dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def project(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, N, D], what they look at [B, M, .] -> q [B, heads, N, d], k and v [B, heads, M, d]."""
        split = "b n (heads d) -> b heads n d"
        q, k, v = self.to_q(queries), self.to_k(keys), self.to_v(keys)
        q, k, v = (rearrange(x, split, heads=self.num_heads) for x in (q, k, v))
        return q, k, v


class MaskedSelfAttention(MaskedBranch):
    """Eq. 3: each token attends to the tokens of its own object, over space and time."""

    def forward(self, tokens: Tensor, region: SelfRegion) -> Tensor:
        """Tokens [B, N, D] of whole clips, the region -> [B, N, D]."""
        out = attend_within(*self.project(tokens, tokens), region)
        return self.to_out(rearrange(out, "b heads n d -> b n (heads d)"))


class MaskedCrossAttention(MaskedBranch):
    """Eq. 1-2: each token attends to the local prompts of the objects at its place."""

    def forward(self, tokens: Tensor, prompts: Tensor, mask: CrossMask) -> Tensor:
        """Tokens [B, N, D], local prompts side by side [B, L * S, C], who sees which -> [B, N, D]."""
        out = attend_across(*self.project(tokens, prompts), mask)
        out = self.to_out(rearrange(out, "b heads n d -> b n (heads d)"))
        # After the projection: a token without a key must not get its bias either.
        return out * mask.has_key[..., None]


class SpatialBlock(BasicTransformerBlock):
    """Self -> masked self -> cross (global prompt) -> masked cross (local prompts) -> feed-forward.

    Without a branch it is the host's block; its layers are the host's.

    Args:
        host: the block whose place it takes; of the same sizes.
        level: how often the grid was halved before this block.
        masked_self, masked_cross: the branches of Through-The-Mask.
        first_frame_attention, mask_cross_attention: those of the few-shot variant.
    """

    def __init__(
        self,
        host: BasicTransformerBlock,
        level: int,
        masked_self: bool,
        masked_cross: bool,
        first_frame_attention: bool,
        mask_cross_attention: bool,
    ) -> None:
        dim, heads, head_dim = host.dim, host.num_attention_heads, host.attention_head_dim
        with torch.device("meta"):
            super().__init__(dim, heads, head_dim, cross_attention_dim=host.cross_attention_dim)
        _take_layers(self, host)
        self.level = level
        self.first_frame_attention = first_frame_attention
        self.masked_attn1 = self.masked_attn2 = self.mask_projection = None
        if masked_self:
            self.masked_norm1 = nn.LayerNorm(dim)
            self.masked_attn1 = MaskedSelfAttention(dim, heads, head_dim, dim)
        if masked_cross:
            self.masked_norm2 = nn.LayerNorm(dim)
            self.masked_attn2 = MaskedCrossAttention(dim, heads, head_dim, host.cross_attention_dim)
        if mask_cross_attention:
            self.mask_projection = MaskProjection(dim)

    @property
    def masked(self) -> bool:
        """It has a masked branch."""
        return self.masked_attn1 is not None or self.masked_attn2 is not None

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Tokens [B * T, n, D], global prompt of each frame [B * T, S, C] -> [B * T, n, D].

        ``cross_attention_kwargs`` holds the :class:`Clip`; the rest of it goes to the host's attentions.
        Timestep and class labels stand there because the host passes them; its blocks use neither.
        """
        kwargs = dict(cross_attention_kwargs or {})
        clip: Clip = kwargs.pop(CLIP)
        x = hidden_states
        x = self._attend_to_frame(self.norm1(x), attention_mask, clip, kwargs) + x
        x = self._attend_to_own_object(x, clip)
        asking = self._with_mask(self.norm2(x), clip)
        x = self.attn2(asking, encoder_hidden_states, encoder_attention_mask, **kwargs) + x
        x = self._attend_to_own_prompt(x, clip)
        fed = self.norm3(x)
        if self._chunk_size is not None:
            return _chunked_feed_forward(self.ff, fed, self._chunk_dim, self._chunk_size) + x
        return self.ff(fed) + x

    def _attend_to_frame(
        self, normed: Tensor, attention_mask: Tensor | None, clip: Clip, kwargs: dict[str, Any]
    ) -> Tensor:
        if self.first_frame_attention:
            return attend_to_first_frame(self.attn1, normed, clip.num_frames, **kwargs)
        return self.attn1(normed, attention_mask=attention_mask, **kwargs)

    def _attend_to_own_object(self, x: Tensor, clip: Clip) -> Tensor:
        if self.masked_attn1 is None:
            return x
        tokens = _by_clip(self.masked_norm1(x), clip)
        return x + _by_frame(self.masked_attn1(tokens, clip.regions[self.level].within), clip)

    def _with_mask(self, normed: Tensor, clip: Clip) -> Tensor:
        if self.mask_projection is None or self.level not in clip.foreground:
            return normed
        return normed + self.mask_projection(clip.foreground[self.level])

    def _attend_to_own_prompt(self, x: Tensor, clip: Clip) -> Tensor:
        regions = clip.regions.get(self.level)
        if self.masked_attn2 is None or regions is None or regions.prompts is None or regions.across is None:
            return x
        tokens = _by_clip(self.masked_norm2(x), clip)
        return x + _by_frame(self.masked_attn2(tokens, regions.prompts, regions.across), clip)


class TemporalBlock(BasicTransformerBlock):
    """A motion module's transformer block, which diffusers leaves out of gradient checkpointing.

    Its tokens are all of the clip's, and at Stable Diffusion's size what a training step keeps of them is most of its
    memory once the spatial blocks are checkpointed.

    Args:
        host: the block whose place it takes; of the same sizes.
    """

    def __init__(self, host: BasicTransformerBlock) -> None:
        with torch.device("meta"):
            super().__init__(
                host.dim,
                host.num_attention_heads,
                host.attention_head_dim,
                cross_attention_dim=host.cross_attention_dim,
                double_self_attention=host.double_self_attention,
                positional_embeddings=host.positional_embeddings,
                num_positional_embeddings=host.num_positional_embeddings,
            )
        _take_layers(self, host)
        self.gradient_checkpointing = False

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Tokens [B * n, T, D] -> [B * n, T, D]."""
        compute = partial(super().forward, **kwargs)
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(compute, hidden_states)
        return compute(hidden_states)


def _take_layers(block: nn.Module, host: nn.Module) -> None:
    for name, layer in host.named_children():
        setattr(block, name, layer)


def _by_clip(tokens: Tensor, clip: Clip) -> Tensor:
    """Eq. 3 spans time: the frames of a clip become one sequence."""
    return rearrange(tokens, "(b t) n d -> b (t n) d", t=clip.num_frames)


def _by_frame(tokens: Tensor, clip: Clip) -> Tensor:
    return rearrange(tokens, "b (t n) d -> (b t) n d", t=clip.num_frames)
