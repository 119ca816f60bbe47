from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from stages.objectives import FlowMatching, weighted_error


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 2, 4, 4, generator=generator), torch.randn(4, 3, 2, 4, 4, generator=generator)


def test_ends_of_the_path(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    data, noise = pair
    flow = FlowMatching()
    clean, zero = flow.noisy(data, noise, torch.zeros(4))
    pure, thousand = flow.noisy(data, noise, torch.ones(4))
    torch.testing.assert_close(clean, data)
    torch.testing.assert_close(pure, noise)
    assert zero.tolist() == [0] * 4 and thousand.tolist() == [1000] * 4


def test_target_is_the_derivative_of_the_path(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    data, noise = pair
    flow, levels = FlowMatching(), torch.tensor([0.1, 0.4, 0.6, 0.9])
    before, after = flow.noisy(data, noise, levels - 0.05)[0], flow.noisy(data, noise, levels + 0.05)[0]
    target = flow.target(data, noise, levels)
    torch.testing.assert_close((after - before) / 0.1, target, rtol=1e-4, atol=1e-4)
    assert weighted_error(target, target, None) == 0


@pytest.mark.parametrize("steps", [1, 7])
def test_sign_agrees_with_the_scheduler(pair: tuple[torch.Tensor, torch.Tensor], steps: int) -> None:
    data, noise = pair
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 1 / steps, steps)))
    flow, latents = FlowMatching(), noise
    for timestep in scheduler.timesteps:
        expected, seen = flow.noisy(data, noise, (timestep / 1000).expand(4))
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(seen[0], timestep)
        velocity = flow.target(data, noise, seen / 1000)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, data, rtol=1e-4, atol=1e-4)


def test_levels_follow_their_distribution() -> None:
    indices = np.arange(2000)
    logit = torch.logit(FlowMatching("logit_normal", mean=0.5, std=0.8).levels(0, indices).double())
    assert abs(logit.mean() - 0.5) < 0.07 and abs(logit.std() - 0.8) < 0.05
    uniform = FlowMatching("uniform").levels(0, indices)
    assert abs(uniform.mean() - 0.5) < 0.025 and abs(uniform.std() - 12**-0.5) < 0.02
    torch.testing.assert_close(uniform[10:12], FlowMatching("uniform").levels(0, np.array([10, 11])))


def test_shift_is_the_schedulers_shift() -> None:
    indices = np.arange(50)
    plain, shifted = FlowMatching("uniform").levels(0, indices), FlowMatching("uniform", shift=3.0).levels(0, indices)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=plain.sort(descending=True).values.tolist())
    torch.testing.assert_close(shifted.sort(descending=True).values, scheduler.sigmas[:-1], rtol=1e-4, atol=1e-5)


def test_weights_count_by_ratio_within_a_clip() -> None:
    prediction, target = torch.zeros(2, 1, 1, 1, 4), torch.tensor([1.0, 0, 0, 0]).expand(2, 1, 1, 1, 4)
    assert weighted_error(prediction, target, None) == 0.25
    weights = torch.tensor([[3.0, 1, 1, 1], [30.0, 10, 10, 10]]).reshape(2, 1, 1, 1, 4)
    torch.testing.assert_close(weighted_error(prediction, target, weights), torch.tensor(3 / 6))
    torch.testing.assert_close(weighted_error(prediction, target, torch.ones_like(weights)), torch.tensor(0.25))


@pytest.mark.parametrize("bad", [{"sampling": "normal"}, {"std": 0.0}, {"shift": -1.0}])
def test_bad_settings(bad: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        FlowMatching(**bad)
