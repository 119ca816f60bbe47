"""Masked attention as pure functions of tensors; knows no host.

Letters: B batch, N tokens (time, row, column, in that order), L objects, S places of a local prompt, D
channels of a head, T' H' W' the token grid. Owner 0 is the background; object ``l`` has owner ``l + 1``.

Source: Through-The-Mask, Eq. 1-3. What the paper leaves open is settled here as follows.
- Ids live on the token grid. Cross-attention takes the set of the objects present at a token (occupancy),
  self-attention one winner a token (owner), which makes the objects a partition: then sorting the tokens by
  owner, attending within each owner and unsorting gives Eq. 3 exactly, without an N x N mask.
- The background is an object of its own for self-attention and has no local prompt.
- A query without any key is NaN in the equations as written; here it yields zeros, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ttm.models.token_packing import TokenPacking, pack_tokens, packed_self_attention

Region = Literal["mask", "box", "none"]
REGIONS: tuple[str, ...] = ("mask", "box", "none")

PRESENT = 0.05
"""Least share of a token's pixels and frames that makes an object present there; less is the object's rim."""

DENSE_UP_TO = 512
"""Most tokens for which one dense call beats sorting (2-core CPU, training step of attention alone: at 320
tokens x 16 samples in bf16 74 ms dense, 94 ms packed; at 1,024 x 4 samples 149 ms dense, 107 ms packed)."""


def object_token_mask(coverage: Tensor, region: str = "mask") -> Tensor:
    """Which objects are present at which token: M of Eq. 2, before the prompts are laid side by side.

    Args:
        coverage: float [B, L, T', H', W'] in 0..1, see :func:`ttm.motion.token_grid.object_coverage`.
        region: "mask": the tokens that the object covers; "box": every token inside the bounding box of
            these, token frame by token frame, as the paper has it; boxes may overlap.

    Returns:
        bool [B, N, L]. An object visible in a token frame is present at one token of that frame at least,
        however small it is.

    Raises:
        ValueError: coverage has not five axes or is no float; the region is neither of the two.
    """
    _check_coverage(coverage)
    if region not in ("mask", "box"):
        raise ValueError(f"region is {region!r}; expected 'mask' or 'box' (without masks there is no region).")
    best = coverage.amax(dim=(-2, -1), keepdim=True)
    present = (coverage >= PRESENT) | ((coverage == best) & (best > 0))
    if region == "box":
        rows = _between(present.any(dim=-1))
        columns = _between(present.any(dim=-2))
        present = rows[..., :, None] & columns[..., None, :]
    return rearrange(present, "b l t h w -> b (t h w) l")


def _between(present: Tensor) -> Tensor:
    """Fill a line of flags between its first and its last set one."""
    counts = present.int()
    return (counts.cumsum(-1) > 0) & (counts.flip(-1).cumsum(-1).flip(-1) > 0)


def token_owner(coverage: Tensor) -> Tensor:
    """Which object each token belongs to: one winner a token, so that owners partition the tokens.

    The largest coverage wins, the background's being what the objects leave; an object wins a tie against the
    background, the earlier object against the later. An object that would win nothing though it is visible
    takes the token that it covers most, or, where that is the only token of another object, the nearest one.

    Args:
        coverage: float [B, L, T', H', W'] in 0..1.

    Returns:
        long [B, N] in 0..L, 0 = background. Every visible object owns a token (as long as there are tokens).

    Raises:
        ValueError: coverage has not five axes or is no float.
    """
    _check_coverage(coverage)
    places = rearrange(coverage, "b l t h w -> b l (t h w)").float()
    background = (1 - places.sum(dim=1, keepdim=True)).clamp(min=0)
    num_objects = places.shape[1]
    winner = torch.cat([places, background], dim=1).argmax(dim=1)
    owner = torch.where(winner == num_objects, 0, winner + 1)
    numbers = torch.arange(1, num_objects + 1, device=owner.device)
    owned = (owner[:, None] == numbers[:, None]).any(dim=-1)
    homeless = (places.amax(dim=-1) > 0) & ~owned
    for sample, index in homeless.nonzero().tolist():
        _give_token(owner[sample], places[sample, index], index + 1, tuple(coverage.shape[2:]))
    return owner


def _give_token(owner: Tensor, places: Tensor, number: int, grid: tuple[int, ...]) -> None:
    """Give object ``number`` the token it covers most among those that are not another object's only one."""
    counts = torch.bincount(owner)
    free = (owner == 0) | (counts[owner] > 1)
    axes = torch.meshgrid(*(torch.arange(size, device=owner.device) for size in grid), indexing="ij")
    points = torch.stack([axis.flatten() for axis in axes], dim=-1).float()
    distance = (points - points[places.argmax()]).square().sum(dim=-1)
    # Coverage decides, distance only among equals: it is squeezed below the least step of a coverage.
    score = (places - 1e-6 * distance / (1 + distance)).masked_fill(~free, -torch.inf)
    if bool(free.any()):
        owner[score.argmax()] = number


SelfRegion = TokenPacking | Tensor | None


def masked_self_attention(q: Tensor, k: Tensor, v: Tensor, owner: Tensor, dense_up_to: int = DENSE_UP_TO) -> Tensor:
    """Eq. 3: each token attends to the tokens of its own owner, over space and time.

    Both ways to compute it are exact. Up to ``dense_up_to`` tokens one call with the N x N mask is cheaper;
    above, the tokens are packed (:func:`packed_self_attention`) and no such mask is built.

    Args:
        q, k, v: [B, heads, N, D].
        owner: long [B, N], see :func:`token_owner`.
        dense_up_to: most tokens for the dense call; 0 always packs.

    Returns:
        [B, heads, N, D], in q's dtype.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape or owner.shape != (q.shape[0], q.shape[2]):
        raise ValueError(
            f"q, k, v, owner are {list(q.shape)}, {list(k.shape)}, {list(v.shape)}, {list(owner.shape)};"
            " expected three times [B, heads, N, D] and [B, N]."
        )
    if q.shape[2] <= dense_up_to:
        return masked_self_attention_dense(q, k, v, same_owner(owner))
    return packed_self_attention(q, k, v, pack_tokens(owner))


def same_owner(owner: Tensor) -> Tensor:
    """M of Eq. 3 for owners that partition the tokens: [B, N] -> bool [B, N, N]."""
    return owner[:, :, None] == owner[:, None, :]


def same_region(occupancy: Tensor) -> Tensor:
    """M of Eq. 3 where regions may overlap: two tokens with an object in common; those without any, together.

    Args:
        occupancy: bool [B, N, L].

    Returns:
        bool [B, N, N], symmetric, true on the diagonal.
    """
    present = torch.cat([~occupancy.any(dim=-1, keepdim=True), occupancy], dim=-1).float()
    return present @ present.transpose(1, 2) > 0


def masked_self_attention_dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Eq. 3 with its mask written out: softmax(q k^T / sqrt(D) + log M) v.

    Args:
        q, k, v: [B, heads, N, D].
        mask: bool [B, N, N], true where query (first) may see key (second); every row has a key, as those of
            :func:`same_owner` and :func:`same_region` do.

    Returns:
        [B, heads, N, D].
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])


def attend_within(q: Tensor, k: Tensor, v: Tensor, region: SelfRegion) -> Tensor:
    """Eq. 3 with a region prepared once for all layers: packed, a mask, or None (no region: all with all)."""
    if isinstance(region, TokenPacking):
        return packed_self_attention(q, k, v, region)
    if region is None:
        return F.scaled_dot_product_attention(q, k, v)
    return masked_self_attention_dense(q, k, v, region)


@dataclass(frozen=True)
class CrossMask:
    """Which keys of the local prompts each token sees.

    Attributes:
        visible: bool [B, N, L * S]; rows without any key are all true, so that no softmax is empty.
        has_key: bool [B, N], false for these rows: what they attend to has to be zeroed.
    """

    visible: Tensor
    has_key: Tensor


def cross_mask(occupancy: Tensor, text_mask: Tensor) -> CrossMask:
    """M of Eq. 2 over the L prompts laid side by side, their padding masked.

    Args:
        occupancy: bool [B, N, L], see :func:`object_token_mask`.
        text_mask: bool [B, L, S], true for words, false for padding.

    Raises:
        ValueError: the shapes do not fit together, or are not boolean.
    """
    fits = occupancy.ndim == 3 and text_mask.ndim == 3 and occupancy.shape[::2] == text_mask.shape[:2]
    if not fits or occupancy.dtype != torch.bool or text_mask.dtype != torch.bool:
        raise ValueError(
            f"occupancy is {occupancy.dtype} {list(occupancy.shape)} and text_mask {text_mask.dtype}"
            f" {list(text_mask.shape)}; expected bool [B, N, L] and bool [B, L, S]."
        )
    visible = rearrange(occupancy[..., None] & text_mask[:, None], "b n l s -> b n (l s)")
    has_key = visible.any(dim=-1)
    return CrossMask(visible | ~has_key[..., None], has_key)


def masked_cross_attention(
    q: Tensor, k: Tensor, v: Tensor, occupancy: Tensor, text_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 1-2: softmax(q k^T / sqrt(D) + log M) v; a token sees the prompts of the objects at its place.

    Args:
        q: [B, heads, N, D], of the tokens.
        k, v: [B, heads, L * S, D], of the L local prompts side by side, object by object.
        occupancy: bool [B, N, L], see :func:`object_token_mask`.
        text_mask: bool [B, L, S], true for words, false for padding.

    Returns:
        (out [B, heads, N, D], has_key bool [B, N]). Rows without a key are zeros; an output projection has a
        bias, so zero them again after it.

    Raises:
        ValueError: the shapes do not fit together.
    """
    mask = cross_mask(occupancy, text_mask)
    batch, num_tokens, num_keys = mask.visible.shape
    if q.ndim != 4 or k.shape != v.shape or q.shape[::2] != (batch, num_tokens) or k.shape[2] != num_keys:
        raise ValueError(
            f"q, k, v are {list(q.shape)}, {list(k.shape)}, {list(v.shape)}; expected"
            f" [{batch}, heads, {num_tokens}, D] and twice [{batch}, heads, {num_keys}, D] (L * S keys)."
        )
    return attend_across(q, k, v, mask), mask.has_key


def attend_across(q: Tensor, k: Tensor, v: Tensor, mask: CrossMask) -> Tensor:
    """Eq. 1-2 with a mask prepared once for all layers; rows without a key are zeros."""
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.visible[:, None])
    return out * mask.has_key[:, None, :, None]


def _check_coverage(coverage: Tensor) -> None:
    if coverage.ndim != 5 or 0 in coverage.shape or not coverage.is_floating_point():
        raise ValueError(
            f"object coverage is {coverage.dtype} {list(coverage.shape)}; expected float [B, L, T', H', W'] in 0..1."
        )
