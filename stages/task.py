"""The seam between the training loop and a stage.

Letters: B batch, Z latent channels, t h w the latent grid, S text tokens, D text width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttm.pipelines.conditioning import Conditions


@dataclass(frozen=True)
class Batch:
    """B samples.

    Attributes:
        data: clean latents, float32 [B, Z, t, h, w].
        conditions: nothing dropped yet.
        covered: how much of each latent cell objects cover, float32 [B, 1, t, h, w] in 0..1; for the loss's weights.
            In stage 2 what they cover in frame 0 counts at every time.
        clean_frames: so many latent frames from the first on get no noise and have no part in the loss.
    """

    data: Tensor
    conditions: Conditions
    covered: Tensor
    clean_frames: int = 0


class Task(Protocol):
    """One stage's samples. All of it is a function of the global sample indices."""

    num_scenes: int
    nothing: Tensor  # embedding of the text that says nothing, [1, S, D]
    nothing_mask: Tensor  # bool [1, S]

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The samples with these global indices, on the CPU."""
