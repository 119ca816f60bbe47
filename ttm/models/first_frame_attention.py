"""The two attentions of the few-shot variant: keys and values of frame 1 (Eq. 5), the mask in the scores (Eq. 6-7).

Letters: B batch, T frames, n places of a frame, D width, L objects, h w the grid of a level.

Source: Mask-guided video generation (arXiv 2503.18386), which extends LAMP.

Eq. 5. Every frame takes its keys and values from frame 1: softmax(W_Q z_i (W_K z_1)^T / sqrt(d)) W_V z_1 for
every frame i, in every spatial self-attention. The host's attention computes it with its own weights, given frame 1 as
what it looks at; frame 1 itself looks at frame 1, as before, so at T = 1 the model is the image model.

Eq. 6-7. The formulas are lost from the text that we have. What it says: features z, foreground mask m and text
c are each projected (6), and the mask enters "the calculation of the attention scores in cross-attention" (7).
Our reading:

    Q = W_Q (z + W_M m),   K = W_K c,   V = W_V c          (6)
    softmax(Q K^T / sqrt(d)) V                             (7)

that is, the scores are those of the host plus (W_Q W_M m) K^T: how well each word fits the foreground, learned
for every head, added where the mask is. Its reasons:
- Projecting z and m side by side, Q = W [z; m], is the same sum, so the two most natural formulas agree.
- A mask that multiplies the scores or forbids words (log m) has nothing to learn and needs no projection, but the text
  projects it; and with a binary mask it would leave the background without any word.
- W_M alone is new, has no bias and starts at zero: the untrained model is the host, a mask of zeros (a dropped
  condition) is no mask, and queries, keys and values stay the host's layers, which the paper trains too. The
  foreground is the union of the objects, as in the paper, whose masks are one picture of all that moves.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor, nn


def attend_to_first_frame(attention: Any, tokens: Tensor, num_frames: int, **kwargs: Any) -> Tensor:
    """Eq. 5: a spatial self-attention whose keys and values come from the first frame of each clip.

    The frames of a clip look at the same keys, so they are queries of one call, and no key is copied T times.

    Args:
        attention: the host's, a ``diffusers`` Attention.
        tokens: normed tokens [B * T, n, D].
        num_frames: T.
        kwargs: passed on to the attention.

    Returns:
        [B * T, n, D].
    """
    queries = rearrange(tokens, "(b t) n d -> b (t n) d", t=num_frames)
    first = queries[:, : tokens.shape[1]]
    attended = attention(queries, encoder_hidden_states=first, **kwargs)
    return rearrange(attended, "b (t n) d -> (b t) n d", t=num_frames)


def foreground(coverage: Tensor) -> Tensor:
    """m of Eq. 6: the share of each place that any object covers, float [B, L, T, h, w] -> [B * T, n, 1]."""
    union = coverage.sum(dim=1).clamp(max=1)
    return rearrange(union, "b t h w -> (b t) (h w) 1")


class MaskProjection(nn.Linear):
    """W_M of Eq. 6, zero at first: the mask in the width of the features, to be added to what asks the text."""

    def __init__(self, dim: int) -> None:
        super().__init__(1, dim, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, mask: Tensor) -> Tensor:
        """Mask [B * T, n, 1] -> [B * T, n, D]."""
        return super().forward(mask.to(self.weight.dtype))
