"""Sampling steps behind four calls, whichever kind of diffusion the scheduler is for.

``FlowMatchEulerDiscreteScheduler`` takes the noise levels of :mod:`ttm.pipelines.sigma_schedules`. Every other
scheduler of diffusers sets timesteps of its own: ``DDIMScheduler`` with v-prediction, betas rescaled to zero
terminal SNR and trailing spacing (Lin et al. 2024) is Through-The-Mask's U-Net; with noise (epsilon) as the
prediction it is Stable Diffusion's. Sampling is deterministic: eta is 0.

With zero terminal SNR the first step sees pure noise, and v there is minus the data: x0 = -v, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ttm.pipelines.sigma_schedules import sigma_schedule


@dataclass(frozen=True)
class Sampler:
    """A scheduler as the sampling loop uses it.

    Attributes:
        scheduler: of diffusers.
        sigmas: name of the noise levels for flow matching; other schedulers don't ask.
    """

    scheduler: Any
    sigmas: str = "linear"

    @property
    def flow_matching(self) -> bool:
        """Whether the scheduler takes noise levels from us."""
        return isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler)

    def check(self, num_inference_steps: int) -> None:
        """Find out before a model runs what sampling would fail or go wrong at.

        Raises:
            ValueError: a name of noise levels that is unknown, more steps than the scheduler has timesteps, or a
                scheduler whose settings spoil latents.
        """
        config, kind = self.scheduler.config, type(self.scheduler).__name__
        if self.flow_matching:
            sigma_schedule(self.sigmas, num_inference_steps)
            if config.get("use_dynamic_shifting"):
                raise ValueError(
                    f"The {kind} has use_dynamic_shifting=True, a shift for each size that only its own pipeline knows;"
                    " expected use_dynamic_shifting=False and a fixed shift."
                )
            return
        if num_inference_steps > config.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}; expected at most the {config.num_train_timesteps}"
                f" timesteps of the {kind}."
            )
        if config.get("clip_sample"):
            raise ValueError(
                f"The {kind} has clip_sample=True, which cuts latents off at -1 and 1; expected clip_sample=False."
            )
        if config.get("rescale_betas_zero_snr") and config.get("prediction_type") == "epsilon":
            raise ValueError(
                f"The {kind} has zero terminal SNR with prediction_type 'epsilon': at its first timestep the noise"
                " says nothing about the data; expected 'v_prediction' or 'sample', or"
                " rescale_betas_zero_snr=False."
            )

    def check_latents_unscaled(self, num_inference_steps: int) -> None:
        """For latents of which some are clean: the scheduler must take all of them as they are.

        Raises:
            ValueError: it scales the first noise, or what the model sees of the latents at a timestep.
        """
        timestep, probe = self.timesteps(num_inference_steps, "cpu")[0], torch.ones(1)
        if not (torch.equal(self.first(probe), probe) and torch.equal(self.model_input(probe, timestep), probe)):
            raise ValueError(
                f"The {type(self.scheduler).__name__} scales latents, which would spoil a clean first frame among them;"
                " expected one that does not: DDIMScheduler, DPMSolverMultistepScheduler or UniPCMultistepScheduler."
            )

    def timesteps(self, num_inference_steps: int, device: torch.device | str) -> Tensor:
        """The timesteps of the steps, falling, [num_inference_steps]."""
        if self.flow_matching:
            sigmas = sigma_schedule(self.sigmas, num_inference_steps)
            self.scheduler.set_timesteps(sigmas=sigmas, device=device)
        else:
            self.scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps: Tensor = self.scheduler.timesteps
        return timesteps

    def first(self, noise: Tensor) -> Tensor:
        """Noise of unit variance as the first step expects it; call :meth:`timesteps` before."""
        return noise * float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    def model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The latents as the model sees them at a timestep."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return latents
        scaled: Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(self, prediction: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        """Latents after one step along the model's prediction, both float32 [B, Z, t, h, w]."""
        after: Tensor = self.scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        return after
