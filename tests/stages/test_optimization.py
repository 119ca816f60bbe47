from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.optimization import EMA, build_optimizer, learning_rate, state_bytes
from stages.settings import OptimizerSettings


def test_warm_up_rises_linearly_and_then_stays() -> None:
    settings = OptimizerSettings(lr=2.0, warmup_steps=4)
    rates = [learning_rate(step, settings, 100) for step in (0, 1, 3, 4, 50, 99)]
    assert rates == [0.5, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert learning_rate(0, OptimizerSettings(lr=2.0, warmup_steps=0), 10) == 2.0


@pytest.mark.parametrize(("decay", "middle"), [("linear", 1.2), ("cosine", 1.2)])
def test_decays_end_at_their_share(decay: str, middle: float) -> None:
    settings = OptimizerSettings(lr=2.0, warmup_steps=10, decay=decay, final_lr=0.2)
    assert learning_rate(10, settings, 110) == pytest.approx(2.0)
    assert learning_rate(60, settings, 110) == pytest.approx(middle)
    assert learning_rate(110, settings, 110) == pytest.approx(0.4)
    assert learning_rate(500, settings, 110) == pytest.approx(0.4)


def test_cosine_is_above_linear_early() -> None:
    early = [
        learning_rate(20, OptimizerSettings(lr=1.0, warmup_steps=0, decay=decay), 100) for decay in ("linear", "cosine")
    ]
    assert early[0] == pytest.approx(0.8) and early[1] == pytest.approx(0.9045, abs=1e-4)


def test_ema_equals_its_closed_form() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    ema = EMA([("w", parameter)], 0.9)
    values = [torch.tensor([float(n), float(n) ** 2]) for n in range(40)]
    expected = parameter.detach().clone()
    for step, value in enumerate(values):
        parameter.data.copy_(value)
        ema.update([("w", parameter)], step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(ema.average["w"], expected)
    assert ema.decay_at(0) == 0.1 and ema.decay_at(10_000) == 0.9


def test_ema_of_a_constant_is_the_constant_and_copies_into_a_model() -> None:
    model = nn.Linear(3, 2)
    ema = EMA(model.named_parameters(), 0.99)
    for step in range(5):
        ema.update(model.named_parameters(), step)
    kept = model.weight.detach().clone()
    model.weight.data.zero_()
    ema.copy_to(model)
    torch.testing.assert_close(model.weight.detach(), kept)


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = build_optimizer(model.named_parameters(), OptimizerSettings(lr=0.1, weight_decay=0.5))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(model[0].weight)] == 0.5
    assert decays[id(model[0].bias)] == decays[id(model[1].weight)] == 0


def test_the_state_in_8_bits_is_small_but_for_small_tensors() -> None:
    large, small = torch.nn.Parameter(torch.zeros(64, 100)), torch.nn.Parameter(torch.zeros(63, 65))
    for name in ("adamw_8bit", "paged_adamw_8bit"):
        assert state_bytes([("w", large)], name) == 2 * 6400 + 2 * 4 * 25 + 2 * 256 * 4
        assert state_bytes([("w", small)], name) == 8 * 63 * 65
