"""What a model is asked to predict, and at which noise levels.

Letters: B batch, C channels, T frames, H W places. x is data, e is noise, both [B, C, T, H, W].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from stages.draws import sample_rng
from stages.settings import BETA_SCHEDULES, WEIGHTINGS, ObjectiveSettings


class Objective(Protocol):
    """The seam between the training loop and the kind of diffusion."""

    def levels(self, seed: int, indices: NDArray[np.int64]) -> Tensor:
        """One noise level a sample, float32 [B], a function of (seed, global sample index)."""

    def noisy(self, data: Tensor, noise: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The model's input [B, C, T, H, W] and its timesteps, float32 [B] in 0..1000."""

    def target(self, data: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What the model should predict, [B, C, T, H, W]."""

    def data(self, noisy: Tensor, prediction: Tensor, levels: Tensor) -> Tensor:
        """The clean data that a prediction stands for, [B, C, T, H, W]; the true data where it is the target."""

    def importance(self, levels: Tensor) -> Tensor | None:
        """How much each sample's error counts, float32 [B]; None: all the same."""

    def scheduler(self) -> Any:
        """The scheduler of diffusers that samples from a model so trained; it is saved beside the model."""


@dataclass(frozen=True)
class LevelSampling:
    """How often each noise level is trained on, 0 = data, 1 = noise.

    Attributes:
        name: "logit_normal" (Esser et al. 2024: sigmoid of a normal variable) or "uniform".
        mean, std: of that normal variable.
        shift: moves levels towards noise, s u / (1 + (s - 1) u); 1 leaves them.

    Raises:
        ValueError: an unknown name, a std or shift that is not positive.
    """

    name: str = "logit_normal"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("logit_normal", "uniform"):
            raise ValueError(f"sampling is {self.name!r}; expected 'logit_normal' or 'uniform'.")
        if self.std <= 0 or self.shift <= 0:
            raise ValueError(f"std is {self.std} and shift {self.shift}; expected positive numbers.")

    def draw(self, seed: int, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """One level a sample, [B] in 0..1."""
        levels = np.empty(len(indices), np.float64)
        for place, index in enumerate(indices):
            rng = sample_rng(seed, int(index), "level")
            if self.name == "uniform":
                levels[place] = rng.random()
            else:
                levels[place] = 1 / (1 + np.exp(-(self.mean + self.std * rng.standard_normal())))
        return self.shift * levels / (1 + (self.shift - 1) * levels)


class FlowMatching:
    """Straight paths from data to noise (Lipman et al. 2023; Liu et al. 2023), in Wan's sign.

    z = (1 - sigma) x + sigma e; the model predicts dz/dsigma = e - x at timestep 1000 sigma, so an Euler step of
    ``FlowMatchEulerDiscreteScheduler`` from sigma = 1 to 0 along the true velocity gives x.

    Args:
        sampling: of sigma; its shift is also the scheduler's.
    """

    def __init__(self, sampling: LevelSampling | None = None) -> None:
        self.sampling = sampling or LevelSampling()

    def levels(self, seed: int, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.sampling.draw(seed, indices).astype(np.float32))

    def noisy(self, data: Tensor, noise: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        sigma = rearrange(levels, "b -> b 1 1 1 1")
        return torch.lerp(data, noise, sigma), levels * 1000

    def target(self, data: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return noise - data

    def data(self, noisy: Tensor, prediction: Tensor, levels: Tensor) -> Tensor:
        return noisy - rearrange(levels, "b -> b 1 1 1 1") * prediction

    def importance(self, levels: Tensor) -> Tensor | None:
        return None

    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        return FlowMatchEulerDiscreteScheduler(shift=self.sampling.shift)


class Diffusion:
    """A variance-preserving chain of 1000 steps (Ho et al. 2020): z = sqrt(a_t) x + sqrt(1 - a_t) e.

    "v_prediction" (Salimans and Ho 2022): the model predicts v = sqrt(a_t) e - sqrt(1 - a_t) x. The betas are rescaled
    so that a at the last step is 0 (zero terminal SNR, Lin et al. 2024), and sampling begins there (trailing
    spacing); Through-The-Mask calls this critical for stage 1. "epsilon": the model predicts e, with Stable
    Diffusion's own betas and spacing. The numbers a_t are the scheduler's, so training and sampling can't differ.

    Args:
        prediction: "v_prediction" or "epsilon".
        sampling: of t / 1000; uniform where the paper says nothing else. Sampling a model ignores its shift.
        beta_schedule, beta_start, beta_end: as in ``DDIMScheduler``. Stable Diffusion: "scaled_linear"; AnimateDiff's
            motion modules were trained with "linear" between the same ends.
        weighting: "none", or, of epsilon alone, "v": an error of the noise counts 1 / a_t times, as much as the error
            of v that it is (SNR + 1 weighting, Salimans and Ho 2022). What is where is decided at the noisiest
            steps, where the noise is nearly the input itself and a plain error hardly sees whether the model knows.

    Raises:
        ValueError: another prediction, schedule or weighting.
    """

    def __init__(
        self,
        prediction: str,
        sampling: LevelSampling | None = None,
        beta_schedule: str = "scaled_linear",
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        weighting: str = "none",
    ) -> None:
        if prediction not in ("v_prediction", "epsilon"):
            raise ValueError(f"prediction is {prediction!r}; expected 'v_prediction' or 'epsilon'.")
        if beta_schedule not in BETA_SCHEDULES:
            raise ValueError(f"beta_schedule is {beta_schedule!r}; expected one of {', '.join(BETA_SCHEDULES)}.")
        if weighting not in WEIGHTINGS or (weighting == "v" and prediction != "epsilon"):
            raise ValueError(f"weighting is {weighting!r} of {prediction}; expected 'none', or 'v' of epsilon.")
        self.sampling, self.weighting = sampling or LevelSampling("uniform"), weighting
        self.prediction, v = prediction, prediction == "v_prediction"
        self._scheduler = DDIMScheduler(
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            prediction_type=prediction,
            rescale_betas_zero_snr=v,
            timestep_spacing="trailing" if v else "leading",
            steps_offset=0 if v else 1,
            set_alpha_to_one=v,
            clip_sample=False,
        )

    def levels(self, seed: int, indices: NDArray[np.int64]) -> Tensor:
        steps = self._scheduler.config.num_train_timesteps
        whole = np.floor(steps * self.sampling.draw(seed, indices))
        return torch.from_numpy(np.minimum(whole, steps - 1).astype(np.float32))

    def noisy(self, data: Tensor, noise: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        signal, spread = self._amplitudes(levels)
        return signal * data + spread * noise, levels

    def target(self, data: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        signal, spread = self._amplitudes(levels)
        return signal * noise - spread * data

    def data(self, noisy: Tensor, prediction: Tensor, levels: Tensor) -> Tensor:
        signal, spread = self._amplitudes(levels)
        if self.prediction == "epsilon":
            return (noisy - spread * prediction) / signal
        return signal * noisy - spread * prediction

    def importance(self, levels: Tensor) -> Tensor | None:
        if self.weighting == "none":
            return None
        return self._amplitudes(levels)[0].flatten() ** -2

    def scheduler(self) -> DDIMScheduler:
        return DDIMScheduler.from_config(self._scheduler.config)

    def _amplitudes(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t), each [B, 1, 1, 1, 1]."""
        kept = rearrange(self._scheduler.alphas_cumprod.to(levels.device)[levels.long()], "b -> b 1 1 1 1")
        return kept.sqrt(), (1 - kept).sqrt()


def build_objective(settings: ObjectiveSettings) -> Objective:
    """The objective that the settings name."""
    sampling = LevelSampling(settings.sampling, settings.mean, settings.std, settings.shift)
    if settings.name == "flow_matching":
        return FlowMatching(sampling)
    betas = settings.beta_schedule, settings.beta_start, settings.beta_end
    return Diffusion(settings.name, sampling, *betas, settings.weighting)


def weighted_error(
    prediction: Tensor, target: Tensor, weights: Tensor | None, importance: Tensor | None = None
) -> Tensor:
    """Mean squared error over the batch in fp32, a scalar.

    Args:
        prediction, target: [B, C, T, H, W].
        weights: [B, 1, T, H, W], or None for equal ones; only their ratios within a sample count, so that a clip
            with large objects weighs as much as one with small ones.
        importance: of each sample, [B], or None for equal ones.
    """
    error = (prediction.float() - target.float()).square()
    if weights is not None:
        error = error * (weights / weights.mean(dim=(1, 2, 3, 4), keepdim=True))
    if importance is not None:
        error = error * rearrange(importance, "b -> b 1 1 1 1")
    return error.mean()
