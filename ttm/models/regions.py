"""Who may attend to what, made once a forward pass from the objects' coverage and read by every masked block.

Letters: B batch, N tokens (time, row, column), L objects, S places of a prompt, D width, T' h' w' the token
grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ttm.models.host import Grid
from ttm.models.masked_attention import (
    DENSE_UP_TO,
    CrossMask,
    SelfRegion,
    cross_mask,
    object_token_mask,
    pack_tokens,
    same_owner,
    same_region,
    token_owner,
)


@dataclass(frozen=True)
class Regions:
    """What the masked blocks of one token grid read.

    Attributes:
        within: of masked self-attention.
        across: of masked cross-attention; None without local prompts.
        prompts: [B, L * S, D] the local prompts side by side; None without.
    """

    within: SelfRegion
    across: CrossMask | None
    prompts: Tensor | None


def used_words(local: Tensor, words: Tensor | None) -> tuple[Tensor, Tensor]:
    """Local prompts [B, L, S, D] and their words bool [B, L, S] (None: all), cut after the last word of all.

    Places that are padding in every prompt cost time and change nothing.
    """
    if words is None:
        words = torch.ones(local.shape[:3], dtype=torch.bool, device=local.device)
    places = torch.arange(1, words.shape[2] + 1, device=words.device)
    used = max(int((words * places).amax()), 1)
    return local[:, :, :used], words[:, :, :used]


def make_regions(
    config: Any, batch: int, grid: Grid, coverage: Tensor | None, local: Tensor | None, words: Tensor | None
) -> Regions:
    """The regions of one token grid.

    Args:
        config: a host's, for its switches masked_self, masked_cross and region.
        batch: B.
        grid: (T', h', w').
        coverage: float [B, L, T', h', w'] in 0..1; None: all background.
        local: local prompts [B, L, S, D] as the blocks take them; None: no local prompts.
        words: bool [B, L, S]; with ``local``.
    """
    within = None
    if config.masked_self and coverage is not None:
        within = _region_within(coverage, config.region)
    if not config.masked_cross or local is None or words is None:
        return Regions(within, None, None)
    if config.region == "none" or coverage is None:
        everywhere = config.region == "none"
        shape = (batch, math.prod(grid), words.shape[1])
        occupancy = torch.full(shape, everywhere, device=words.device)
    else:
        occupancy = object_token_mask(coverage, config.region)
    return Regions(within, cross_mask(occupancy, words), rearrange(local, "b l s d -> b (l s) d"))


def _region_within(coverage: Tensor, region: str) -> SelfRegion:
    if region == "none":
        return None
    if region == "box":
        return same_region(object_token_mask(coverage, "box"))
    owner = token_owner(coverage)
    return same_owner(owner) if owner.shape[1] <= DENSE_UP_TO else pack_tokens(owner)
