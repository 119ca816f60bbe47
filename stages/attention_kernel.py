"""Which kernel scaled dot product attention runs on while training.

On a CPU, PyTorch's flash kernel in bfloat16 is slower than two batched matrix products with the probabilities in
memory: forward and backward at 16 x 4 heads x 320 tokens x 48 channels took 50 ms against 21 on two cores, and
with 48 keys 28 against 7. At these sizes the probabilities are small, so nothing speaks for flash there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_SCORES = 1 << 26  # a larger matrix of probabilities (128 MB in bf16) is left to PyTorch's own kernels


@contextlib.contextmanager
def matmul_attention() -> Iterator[None]:
    """Within this context ``F.scaled_dot_product_attention`` is softmax(q k^T / sqrt(D)) v as written.

    Calls with causal order, dropout, grouped heads, or a very large product of lengths go to PyTorch's own kernels.
    The function is replaced for the whole process: a ``TorchFunctionMode`` would be suspended during ``backward``,
    where gradient checkpointing runs the forward again and must run the same kernel.
    """
    own = F.scaled_dot_product_attention

    def chosen(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        small = query.shape[:-1].numel() * key.shape[-2] <= MOST_SCORES
        if small and not (dropout_p or is_causal or enable_gqa):
            return _attention(query, key, value, attn_mask, scale)
        return own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    F.scaled_dot_product_attention = chosen
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return torch.matmul(scores.softmax(dim=-1).to(value.dtype), value)


def attention_kernel(choice: str, device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context for a forward and backward pass.

    Args:
        choice: "sdpa" (PyTorch's kernels), "matmul", or "auto": matmul on a CPU in bf16, sdpa elsewhere.
        device: where the model runs.
        precision: "bf16" or "no".
    """
    matmul = choice == "matmul" or (choice == "auto" and device.type == "cpu" and precision == "bf16")
    return matmul_attention() if matmul else contextlib.nullcontext()
