from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from stages.objectives import Diffusion, FlowMatching, LevelSampling, Objective, build_objective, weighted_error
from stages.settings import ObjectiveSettings
from stages.settings_loading import load_settings
from ttm.pipelines.samplers import Sampler

UNIFORM = FlowMatching(LevelSampling("uniform"))


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


@pytest.mark.parametrize(
    ("objective", "levels"),
    [
        (UNIFORM, [0.0, 0.3, 0.8, 1.0]),
        (Diffusion("v_prediction"), [0, 400, 900, 999]),  # at the last step nothing of the data is in the input
        (Diffusion("epsilon"), [0, 400, 900, 999]),
    ],
)
def test_a_right_prediction_stands_for_the_data(
    pair: tuple[torch.Tensor, torch.Tensor], objective: Objective, levels: list[float]
) -> None:
    data, noise = pair
    at = torch.tensor(levels, dtype=torch.float32)
    noisy, target = objective.noisy(data, noise, at)[0], objective.target(data, noise, at)
    torch.testing.assert_close(objective.data(noisy, target, at), data, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(objective.data(noisy, target + 1, at)[1:], data[1:], atol=1e-2)


def test_levels_follow_their_distribution() -> None:
    indices = np.arange(2000)
    logit = torch.logit(FlowMatching(LevelSampling("logit_normal", mean=0.5, std=0.8)).levels(0, indices).double())
    assert abs(logit.mean() - 0.5) < 0.07 and abs(logit.std() - 0.8) < 0.05
    uniform = UNIFORM.levels(0, indices)
    assert abs(uniform.mean() - 0.5) < 0.025 and abs(uniform.std() - 12**-0.5) < 0.02
    torch.testing.assert_close(uniform[10:12], UNIFORM.levels(0, np.array([10, 11])))


def test_shift_is_the_schedulers_shift() -> None:
    indices = np.arange(50)
    flow = FlowMatching(LevelSampling("uniform", shift=3.0))
    plain, shifted = UNIFORM.levels(0, indices), flow.levels(0, indices)
    scheduler = flow.scheduler()
    scheduler.set_timesteps(sigmas=plain.sort(descending=True).values.tolist())
    torch.testing.assert_close(shifted.sort(descending=True).values, scheduler.sigmas[:-1], rtol=1e-4, atol=1e-5)


def _closed_form(steps: int = 1000) -> np.ndarray:
    """sqrt(a_t) of Stable Diffusion's betas, and the same moved and stretched to end in 0 (Lin et al. 2024, Alg. 1)."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, steps) ** 2
    kept = np.sqrt(np.cumprod(1 - betas))
    return np.stack([kept, (kept - kept[-1]) * kept[0] / (kept[0] - kept[-1])])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusion_is_the_formula(pair: tuple[torch.Tensor, torch.Tensor], prediction: str) -> None:
    data, noise = pair
    diffusion, levels = Diffusion(prediction), torch.tensor([0.0, 250, 800, 998])
    noisy, timesteps = diffusion.noisy(data, noise, levels)
    target = diffusion.target(data, noise, levels)
    assert torch.equal(timesteps, levels)
    for place, step in enumerate(levels.int().tolist()):
        signal = float(_closed_form()[int(prediction == "v_prediction"), step])
        spread = (1 - signal**2) ** 0.5
        x, e = data[place], noise[place]
        expected = e if prediction == "epsilon" else signal * e - spread * x
        torch.testing.assert_close(noisy[place], signal * x + spread * e, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(target[place], expected, rtol=1e-4, atol=1e-4)


def test_the_last_level_of_v_is_pure_noise_and_asks_for_the_data(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    data, noise = pair
    diffusion, last = Diffusion("v_prediction"), torch.full((4,), 999.0)
    assert torch.equal(diffusion.noisy(data, noise, last)[0], noise)
    assert torch.equal(diffusion.target(data, noise, last), -data)
    kept = Diffusion("epsilon").noisy(data, torch.zeros_like(data), last)[0] / data
    assert 0.05 < float(kept.mean()) < 0.08  # Stable Diffusion's own betas leave 7% of the data there


@pytest.mark.parametrize(("prediction", "steps"), [("v_prediction", 1), ("v_prediction", 8), ("epsilon", 10)])
def test_ddim_with_the_true_answer_ends_in_the_data(
    pair: tuple[torch.Tensor, torch.Tensor], prediction: str, steps: int
) -> None:
    """From the noise of the first level, along what the model should say, by the scheduler that is saved with it."""
    data, noise = pair
    diffusion = Diffusion(prediction)
    scheduler = diffusion.scheduler()
    scheduler.set_timesteps(steps)
    levels = [timestep.float().expand(4) for timestep in scheduler.timesteps]
    if prediction == "v_prediction":
        assert int(scheduler.timesteps[0]) == 999
    latents = diffusion.noisy(data, noise, levels[0])[0]
    for timestep, level in zip(scheduler.timesteps, levels, strict=True):
        torch.testing.assert_close(latents, diffusion.noisy(data, noise, level)[0], rtol=1e-3, atol=1e-3)
        target = diffusion.target(data, noise, level)
        latents = scheduler.step(target, timestep, latents, return_dict=False)[0]
    # Stable Diffusion's last step ends at level 0, which keeps 3% of the noise; v's ends in the data itself.
    left = data if prediction == "v_prediction" else diffusion.noisy(data, noise, torch.zeros(4))[0]
    torch.testing.assert_close(latents, left, rtol=1e-3, atol=1e-3)


def test_levels_of_diffusion_are_whole_steps_of_the_chain() -> None:
    levels = Diffusion("epsilon").levels(3, np.arange(3000))
    assert torch.equal(levels, levels.floor()) and levels.min() >= 0 and levels.max() <= 999
    assert abs(levels.mean() - 499.5) < 20 and (levels > 990).any()
    high = Diffusion("v_prediction", LevelSampling("uniform", shift=5.0)).levels(3, np.arange(3000))
    assert high.max() <= 999 and high.mean() > 650


@pytest.mark.parametrize("name", ["flow_matching", "v_prediction", "epsilon"])
def test_the_scheduler_saved_with_a_model_is_its_objectives(name: str, tmp_path: Path) -> None:
    settings = ObjectiveSettings(name=name, shift=2.0, beta_schedule="linear")
    scheduler = build_objective(settings).scheduler()
    scheduler.save_pretrained(tmp_path)
    opened = type(scheduler).from_pretrained(tmp_path)
    if name == "flow_matching":
        assert opened.config.shift == 2.0
        return
    assert opened.config.prediction_type == name and opened.config.beta_schedule == "linear"
    assert bool(opened.alphas_cumprod[-1] == 0) is (name == "v_prediction")
    assert opened.config.timestep_spacing == ("trailing" if name == "v_prediction" else "leading")
    Sampler(opened).check(20)


def test_objectives_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="prediction is 'score'; expected 'v_prediction' or 'epsilon'"):
        Diffusion("score")
    with pytest.raises(ValueError, match="beta_schedule is 'cosine'; expected one of linear, scaled_linear"):
        Diffusion("epsilon", beta_schedule="cosine")


def test_weights_count_by_ratio_within_a_clip() -> None:
    prediction, target = torch.zeros(2, 1, 1, 1, 4), torch.tensor([1.0, 0, 0, 0]).expand(2, 1, 1, 1, 4)
    assert weighted_error(prediction, target, None) == 0.25
    weights = torch.tensor([[3.0, 1, 1, 1], [30.0, 10, 10, 10]]).reshape(2, 1, 1, 1, 4)
    torch.testing.assert_close(weighted_error(prediction, target, weights), torch.tensor(3 / 6))
    torch.testing.assert_close(weighted_error(prediction, target, torch.ones_like(weights)), torch.tensor(0.25))


def test_weighted_as_v_an_error_of_the_noise_is_the_error_of_v(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """v = sqrt(a) e - sqrt(1 - a) x, where x is what an answer e leaves of the noisy latents."""
    data, noise = pair
    diffusion, levels = Diffusion("epsilon", weighting="v"), torch.tensor([5.0, 300.0, 700.0, 999.0])
    signal, spread = (amplitude.double() for amplitude in diffusion._amplitudes(levels))
    answer = noise + 0.1 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    noisy = signal * data + spread * noise
    v = [signal * e - spread * (noisy - spread * e) / signal for e in (answer.double(), noise.double())]
    importance = diffusion.importance(levels)
    assert importance is not None and importance[0] < 1.1 and importance[3] > 200
    ours = weighted_error(answer, noise, None, importance)
    torch.testing.assert_close(ours.double(), (v[0] - v[1]).square().mean(), rtol=1e-4, atol=0)
    assert Diffusion("epsilon").importance(levels) is None


def test_only_the_noise_is_weighed_as_v() -> None:
    with pytest.raises(ValueError, match="weighting is 'v' of v_prediction; expected 'none', or 'v' of epsilon"):
        Diffusion("v_prediction", weighting="v")
    with pytest.raises(ValueError, match="objective.weighting is v, objective flow_matching; expected epsilon"):
        load_settings(["objective.weighting=v"])


@pytest.mark.parametrize("bad", [{"name": "normal"}, {"std": 0.0}, {"shift": -1.0}])
def test_bad_settings(bad: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        LevelSampling(**bad)
