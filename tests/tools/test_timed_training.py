"""The recipe's loop: schedule, and a run that goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tools.ttm_tiny.timed_training import Progress, learning_rate, train


def test_learning_rate_warms_up_then_decays_to_its_floor() -> None:
    assert np.isclose(learning_rate(0.0, 0, 1.0), 0.01)
    assert np.isclose(learning_rate(0.0, 99, 1.0), 1.0)
    assert np.isclose(learning_rate(0.5, 1000, 1.0), 0.515)
    assert np.isclose(learning_rate(1.0, 1000, 1.0), 0.03)


def test_a_second_start_goes_on_with_weights_and_moments(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    inputs = torch.rand(64, 3)

    def loss_at(step: int, fraction: float) -> Tensor:
        """Bounded by nothing: every step lowers it, however many a machine does in its minutes."""
        return module(inputs).mean()

    def told(progress: Progress) -> str:
        return ""

    first = train(module, loss_at, tmp_path, minutes=0.01, peak_learning_rate=0.05, on_checkpoint=told)
    trained = module.weight.detach().clone()
    loss = loss_at(0, 0).item()
    nn.init.zeros_(module.weight)
    finished = train(module, loss_at, tmp_path, minutes=0.01, peak_learning_rate=0.05, on_checkpoint=told)
    assert finished.step == first.step, "the budget was spent: nothing more may be trained"
    assert torch.equal(module.weight, trained)
    longer = train(module, loss_at, tmp_path, minutes=0.03, peak_learning_rate=0.05, on_checkpoint=told)
    assert longer.step > first.step and loss_at(0, 0).item() < loss
