"""The sampling loop's view of a scheduler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from ttm.pipelines.samplers import Sampler
from ttm.pipelines.sigma_schedules import sigma_schedule

V = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
EPSILON = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "beta_schedule": "scaled_linear"}


def _sample(sampler: Sampler, noise: torch.Tensor, steps: int, predict: Any) -> torch.Tensor:
    """The loop of the pipelines, with a function in place of the model."""
    sampler.check(steps)
    timesteps = sampler.timesteps(steps, "cpu")
    latents = sampler.first(noise)
    for timestep in timesteps:
        latents = sampler.step(predict(sampler.model_input(latents, timestep), timestep), timestep, latents)
    return latents


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    data, noise = torch.randn(2, 1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return data, noise


@pytest.mark.parametrize("steps", [1, 4, 20, 7])
def test_a_perfect_v_oracle_gives_the_data_back(pair: tuple[torch.Tensor, torch.Tensor], steps: int) -> None:
    """v = (sqrt(a) z - x) / sqrt(1 - a) of whatever z the loop has; at the first step it is -x, with no 0 / 0."""
    data, noise = pair
    scheduler = DDIMScheduler(**V)
    first: list[torch.Tensor] = []

    def oracle(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        kept = scheduler.alphas_cumprod[timestep]
        v = (kept.sqrt() * latents - data) / (1 - kept).sqrt()
        first.append(v)
        return v

    found = _sample(Sampler(scheduler), noise, steps, oracle)
    assert torch.equal(first[0], -data)
    # 1000 / 7 is rounded up: diffusers then stops one step short of the end, where 3% of the noise is left.
    torch.testing.assert_close(found, data, rtol=1e-4, atol=0.1 if steps == 7 else 1e-4)


def test_gaussian_data_follows_the_probability_flow_in_closed_form(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """For data N(0, s^2) the best v is linear in z, and z shrinks by the ratio of the marginals' deviations."""
    noise, spread, scheduler = pair[1], 0.3, DDIMScheduler(**V)

    def best(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        kept = scheduler.alphas_cumprod[timestep]
        variance = kept * spread**2 + 1 - kept
        data = kept.sqrt() * spread**2 / variance * latents
        return (kept.sqrt() * latents - data) / (1 - kept).sqrt()

    found = _sample(Sampler(scheduler), noise, 500, best)
    torch.testing.assert_close(found, spread * noise, rtol=0.02, atol=1e-4)


def test_noise_as_the_prediction_is_stable_diffusions_ddim(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    data, noise = pair
    scheduler = DDIMScheduler(**EPSILON)
    sampler = Sampler(scheduler)
    timesteps = sampler.timesteps(10, "cpu")
    assert timesteps.tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    latents = scheduler.add_noise(data, noise, timesteps[:1])
    for timestep in timesteps:
        latents = sampler.step(noise, timestep, latents)
    kept = scheduler.alphas_cumprod[0]
    torch.testing.assert_close(latents, kept.sqrt() * data + (1 - kept).sqrt() * noise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sigmas", ["linear", "linear_quadratic"])
def test_flow_matching_takes_our_noise_levels(sigmas: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    data, noise = pair
    sampler = Sampler(FlowMatchEulerDiscreteScheduler(), sigmas)
    expected = [1000 * sigma for sigma in sigma_schedule(sigmas, 9)]
    torch.testing.assert_close(sampler.timesteps(9, "cpu"), torch.tensor(expected))
    found = _sample(sampler, noise, 9, lambda latents, timestep: noise - data)
    torch.testing.assert_close(found, data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_other_schedulers_of_the_library_fit_in(kind: Any, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Some scale the noise and the model's input: with the true noise as the answer all end in the data."""
    data, noise = pair
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    sampler = Sampler(scheduler)
    sampler.timesteps(10, "cpu")
    seen = sampler.model_input(sampler.first(noise), scheduler.timesteps[0])
    assert 0.8 < float(seen.std() / noise.std()) < 1.2

    def oracle(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        kept = scheduler.alphas_cumprod[int(timestep)]
        return (latents - kept.sqrt() * data) / (1 - kept).sqrt()

    torch.testing.assert_close(_sample(sampler, noise, 10, oracle), data, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("scheduler", "steps", "match"),
    [
        (DDIMScheduler(**V), 1001, "num_inference_steps is 1001; expected at most the 1000 timesteps"),
        (DDIMScheduler(**{**V, "clip_sample": True}), 4, "clip_sample=True.*expected clip_sample=False"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 4, "use_dynamic_shifting=True.*a fixed shift"),
        (DDIMScheduler(**{**V, "prediction_type": "epsilon"}), 4, "zero terminal SNR.*expected 'v_prediction'"),
    ],
)
def test_schedulers_that_would_spoil_a_run(scheduler: Any, steps: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Sampler(scheduler).check(steps)
    with pytest.raises(ValueError, match="sigmas is 'cosine'"):
        Sampler(FlowMatchEulerDiscreteScheduler(), "cosine").check(4)
