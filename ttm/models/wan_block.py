"""The masked attention block of Through-The-Mask (Fig. 3) on Wan's transformer block.

Letters: B batch, N tokens (time, row, column), M tokens looked at, L objects, S places of a prompt, D width,
d width of a head.
"""

from __future__ import annotations

import torch
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from einops import rearrange
from torch import Tensor, nn

from ttm.models.masked_attention import CrossMask, SelfRegion, attend_across, attend_within
from ttm.models.regions import Regions


class MaskedBranch(nn.Module):
    """The projections of one masked attention; the last one is zero at first."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        self.to_out = nn.Linear(dim, dim)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def project(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, N, D], what they look at [B, M, D] -> q [B, heads, N, d], k and v [B, heads, M, d]."""
        q, k, v = self.norm_q(self.to_q(queries)), self.norm_k(self.to_k(keys)), self.to_v(keys)
        split = "b n (heads d) -> b heads n d"
        q, k, v = (rearrange(x, split, heads=self.num_heads).type_as(v) for x in (q, k, v))
        return q, k, v


class MaskedSelfAttention(MaskedBranch):
    """Eq. 3: each token attends to the tokens of its own object, over space and time."""

    def forward(self, tokens: Tensor, rotary_emb: tuple[Tensor, Tensor], region: SelfRegion) -> Tensor:
        """Tokens [B, N, D], the host's rotary tables (cos, sin) [1, N, 1, d], the region -> [B, N, D]."""
        q, k, v = self.project(tokens, tokens)
        out = attend_within(_rotate(q, rotary_emb), _rotate(k, rotary_emb), v, region)
        return self.to_out(rearrange(out, "b heads n d -> b n (heads d)"))


class MaskedCrossAttention(MaskedBranch):
    """Eq. 1-2: each token attends to the local prompts of the objects at its place."""

    def forward(self, tokens: Tensor, prompts: Tensor, mask: CrossMask) -> Tensor:
        """Tokens [B, N, D], local prompts side by side [B, L * S, D], who sees which -> [B, N, D]."""
        out = attend_across(*self.project(tokens, prompts), mask)
        out = self.to_out(rearrange(out, "b heads n d -> b n (heads d)"))
        # After the projection: a token without a key must not get its bias either.
        return out * mask.has_key[..., None]


def _rotate(x: Tensor, rotary_emb: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring channels of x [B, heads, N, d] by their token's angles; (cos, sin) as the host's."""
    cos, sin = (rearrange(table[..., 0::2], "one n 1 d -> one 1 n d") for table in rotary_emb)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).type_as(x)


class MaskedWanTransformerBlock(WanTransformerBlock):
    """Fig. 3: self -> masked self -> cross (global prompt) -> masked cross (local prompts), then the rest."""

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        qk_norm: str | None = "rms_norm_across_heads",
        cross_attn_norm: bool = False,
        eps: float = 1e-6,
        added_kv_proj_dim: int | None = None,
        masked_self: bool = True,
        masked_cross: bool = True,
    ) -> None:
        super().__init__(dim, ffn_dim, num_heads, qk_norm, cross_attn_norm, eps, added_kv_proj_dim)
        if masked_self:
            self.masked_norm1 = FP32LayerNorm(dim, eps, elementwise_affine=True)
            self.masked_attn1 = MaskedSelfAttention(dim, num_heads, eps)
        if masked_cross:
            self.masked_norm2 = FP32LayerNorm(dim, eps, elementwise_affine=True)
            self.masked_attn2 = MaskedCrossAttention(dim, num_heads, eps)
        self.masked_self = masked_self
        self.masked_cross = masked_cross

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: tuple[Tensor, Tensor],
        regions: Regions,
    ) -> Tensor:
        """Tokens [B, N, D], global prompt [B, S, D], modulation [B, 6, D] or, by token, [B, N, 6, D]."""
        x = hidden_states
        modulation = self.scale_shift_table[None] + (temb if temb.ndim == 4 else temb[:, None]).float()
        shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation.unbind(dim=2)

        attended = self.attn1((self.norm1(x.float()) * (1 + scale) + shift).type_as(x), None, None, rotary_emb)
        x = (x.float() + attended * gate).type_as(x)
        if self.masked_self:
            x = x + self.masked_attn1(self.masked_norm1(x), rotary_emb, regions.within)
        x = x + self.attn2(self.norm2(x.float()).type_as(x), encoder_hidden_states, None, None)
        if self.masked_cross and regions.prompts is not None and regions.across is not None:
            x = x + self.masked_attn2(self.masked_norm2(x), regions.prompts, regions.across)
        fed = self.ffn((self.norm3(x.float()) * (1 + ff_scale) + ff_shift).type_as(x))
        return (x.float() + fed.float() * ff_gate).type_as(x)
