"""What a model is asked to predict, and at which noise levels.

Letters: B batch, C channels, T frames, H W places. x is data, e is noise, both [B, C, T, H, W].
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from stages.draws import sample_rng
from stages.settings import ObjectiveSettings


class Objective(Protocol):
    """The seam between the training loop and the kind of diffusion; v-prediction fits the same three calls."""

    def levels(self, seed: int, indices: NDArray[np.int64]) -> Tensor:
        """One noise level a sample, float32 [B], a function of (seed, global sample index)."""

    def noisy(self, data: Tensor, noise: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The model's input [B, C, T, H, W] and its timesteps, float32 [B] in 0..1000."""

    def target(self, data: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What the model should predict, [B, C, T, H, W]."""


class FlowMatching:
    """Straight paths from data to noise (Lipman et al. 2023; Liu et al. 2023), in Wan's sign.

    z = (1 - sigma) x + sigma e; the model predicts dz/dsigma = e - x at timestep 1000 sigma, so an Euler step of
    ``FlowMatchEulerDiscreteScheduler`` from sigma = 1 to 0 along the true velocity gives x.

    Args:
        sampling: "logit_normal" (Esser et al. 2024: sigmoid of a normal variable) or "uniform".
        mean, std: of that normal variable.
        shift: moves levels towards noise as the scheduler's ``shift`` does, sigma' = s sigma / (1 + (s - 1) sigma).

    Raises:
        ValueError: an unknown sampling, a std or shift that is not positive.
    """

    def __init__(
        self, sampling: str = "logit_normal", mean: float = 0.0, std: float = 1.0, shift: float = 1.0
    ) -> None:
        if sampling not in ("logit_normal", "uniform"):
            raise ValueError(f"sampling is {sampling!r}; expected 'logit_normal' or 'uniform'.")
        if std <= 0 or shift <= 0:
            raise ValueError(f"std is {std} and shift {shift}; expected positive numbers.")
        self.sampling, self.mean, self.std, self.shift = sampling, mean, std, shift

    def levels(self, seed: int, indices: NDArray[np.int64]) -> Tensor:
        sigmas = np.empty(len(indices), np.float64)
        for place, index in enumerate(indices):
            rng = sample_rng(seed, int(index), "level")
            if self.sampling == "uniform":
                sigmas[place] = rng.random()
            else:
                sigmas[place] = 1 / (1 + np.exp(-(self.mean + self.std * rng.standard_normal())))
        shifted = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)
        return torch.from_numpy(shifted.astype(np.float32))

    def noisy(self, data: Tensor, noise: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        sigma = rearrange(levels, "b -> b 1 1 1 1")
        return torch.lerp(data, noise, sigma), levels * 1000

    def target(self, data: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return noise - data


def build_objective(settings: ObjectiveSettings) -> Objective:
    """The objective that the settings name."""
    return FlowMatching(settings.sampling, settings.mean, settings.std, settings.shift)


def weighted_error(prediction: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Mean squared error over the batch in fp32, a scalar.

    Args:
        prediction, target: [B, C, T, H, W].
        weights: [B, 1, T, H, W], or None for equal ones; only their ratios within a sample count, so that a clip
            with large objects weighs as much as one with small ones.
    """
    error = (prediction.float() - target.float()).square()
    if weights is None:
        return error.mean()
    weights = weights / weights.mean(dim=(1, 2, 3, 4), keepdim=True)
    return (error * weights).mean()
