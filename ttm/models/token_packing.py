"""Attention within the parts of a partition, exact and without an N x N mask: sort, attend, unsort.

Letters: B batch, N tokens, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

VARLEN_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class TokenPacking:
    """The tokens of a batch, sorted by sample and owner.

    Attributes:
        order: long [B * N], flat token indices in packed order.
        inverse: long [B * N], undoes ``order``.
        lengths: tokens of each segment (a sample's owner) in packed order; none is empty, the sum is B * N.
        offsets: int32 [len(lengths) + 1], the segments' beginnings and the end, as varlen kernels take them.
    """

    order: Tensor
    inverse: Tensor
    lengths: tuple[int, ...]
    offsets: Tensor


def pack_tokens(owner: Tensor) -> TokenPacking:
    """Sort the tokens by owner: once a clip, for all layers and denoising steps.

    Args:
        owner: integers [B, N], at least 0.

    Raises:
        ValueError: owner has not two axes, is empty, or is no integer.
    """
    if owner.ndim != 2 or 0 in owner.shape or owner.is_floating_point():
        raise ValueError(f"owner is {owner.dtype} {list(owner.shape)}; expected integers [B, N], not empty.")
    samples = torch.arange(owner.shape[0], device=owner.device)[:, None]
    segment = (owner.long() + samples * (owner.max().long() + 1)).flatten()
    order = segment.argsort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    counts = torch.unique_consecutive(segment[order], return_counts=True)[1]
    offsets = F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
    return TokenPacking(order, inverse, tuple(counts.tolist()), offsets)


# A compiled block would be compiled anew for every tuple of lengths, that is, for nearly every clip.
@torch.compiler.disable
def packed_self_attention(q: Tensor, k: Tensor, v: Tensor, packing: TokenPacking) -> Tensor:
    """Eq. 3 by sorting: attend within each segment of the packing, then unsort. Memory O(N), no mask.

    On a GPU in half precision the segments go through one variable-length kernel (torch >= 2.10); otherwise
    through one scaled_dot_product_attention call each.

    Args:
        q, k, v: [B, heads, N, D].
        packing: of this B and N.

    Returns:
        [B, heads, N, D], equal to the dense form up to float error.
    """
    assert packing.order.numel() == q.shape[0] * q.shape[2]
    packed = [rearrange(x, "b heads n d -> (b n) heads d")[packing.order] for x in (q, k, v)]
    kernel = _varlen_kernel(v)
    if kernel is not None:
        longest = max(packing.lengths)
        attended = kernel(*packed, packing.offsets, packing.offsets, longest, longest)
    else:
        split = [rearrange(x, "n heads d -> 1 heads n d").split(packing.lengths, dim=2) for x in packed]
        segments = zip(*split, strict=True)
        attended = torch.cat([F.scaled_dot_product_attention(*segment) for segment in segments], dim=2)
        attended = rearrange(attended, "1 heads n d -> n heads d")
    return rearrange(attended[packing.inverse], "(b n) heads d -> b heads n d", b=q.shape[0])


def _varlen_kernel(v: Tensor) -> Callable[..., Any] | None:
    """The variable-length kernel, if this torch has one and it takes such tensors."""
    if v.device.type != "cuda" or v.dtype not in VARLEN_DTYPES or v.shape[-1] % 8 or v.shape[-1] > 256:
        return None
    if torch.version.hip is not None or torch.cuda.get_device_capability(v.device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn
