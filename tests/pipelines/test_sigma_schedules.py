"""Noise levels of the sampling steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from ttm.pipelines.sigma_schedules import SIGMA_SCHEDULES, sigma_schedule


@pytest.mark.parametrize("name", SIGMA_SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50, 999, 1000, 1500])
def test_levels_fall_from_one_to_above_zero(name: str, steps: int) -> None:
    sigmas = np.array([*sigma_schedule(name, steps), 0.0])
    assert len(sigmas) == steps + 1 and sigmas[0] == 1
    assert (np.diff(sigmas) < 0).all()


def test_linear_takes_equal_steps() -> None:
    np.testing.assert_allclose(sigma_schedule("linear", 4), [1, 0.75, 0.5, 0.25])


def test_linear_quadratic_begins_as_a_thousand_steps_and_never_jumps() -> None:
    sigmas = np.array([*sigma_schedule("linear_quadratic", 50), 0.0])
    np.testing.assert_allclose(sigmas[:26], 1 - np.arange(26) / 1000)
    lengths = -np.diff(sigmas)
    second = np.diff(lengths[25:])
    np.testing.assert_allclose(second, second[0])  # a parabola
    # Its slope at the joint is that of the linear part: the first curved step is longer by half a bend.
    np.testing.assert_allclose(lengths[25] - 1 / 1000, second[0] / 2)


def test_another_name() -> None:
    with pytest.raises(ValueError, match="sigmas is 'karras'; expected one of linear, linear_quadratic"):
        sigma_schedule("karras", 10)


@pytest.mark.parametrize("name", SIGMA_SCHEDULES)
def test_euler_over_the_levels_is_exact_where_the_flow_is_straight(name: str) -> None:
    """With x = (1 - sigma) data + sigma noise, noise - data is constant: any schedule must end in the data."""
    data, noise = torch.randn(2, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=sigma_schedule(name, 7))
    latents = noise
    for timestep in scheduler.timesteps:
        latents = scheduler.step(noise - data, timestep, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, data, atol=1e-5, rtol=1e-5)
