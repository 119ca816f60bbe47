"""The recipe's loop: schedule, and a run that goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.muon import has_muon
from tools.ttm_tiny.timed_training import Progress, learning_rate, train


def test_learning_rate_warms_up_then_decays_to_its_floor() -> None:
    assert np.isclose(learning_rate(0.0, 0, 1.0), 0.01)
    assert np.isclose(learning_rate(0.0, 99, 1.0), 1.0)
    assert np.isclose(learning_rate(0.5, 1000, 1.0), 0.515)
    assert np.isclose(learning_rate(1.0, 1000, 1.0), 0.03)


class Convolutions(nn.Module):
    """A hidden convolution, which Muon may take, between two that it leaves to AdamW."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.hidden, self.conv_out = nn.Conv3d(1, 4, 1), nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv_out(self.hidden(self.conv_in(x)))
        return result


@pytest.mark.skipif(not has_muon(), reason="Muon came with torch 2.9")
def test_muon_trains_hidden_convolutions_and_goes_on_with_its_momentum(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = Convolutions(), torch.rand(2, 1, 3, 4, 4)
    before = module.hidden.weight.detach().clone()

    def loss_at(step: int, fraction: float) -> Tensor:
        return (module(inputs) - inputs).square().mean()

    def told(progress: Progress) -> str:
        return ""

    def start(minutes: float, muon: bool = True) -> Progress:
        return train(module, loss_at, tmp_path, minutes=minutes, peak_learning_rate=0.01, on_checkpoint=told, muon=muon)

    loss = float(loss_at(0, 0).detach())
    first = start(0.01)
    stored = load_file(tmp_path / "training.safetensors")
    assert {name.split("/")[0] for name in stored if name.endswith("hidden.weight")} == {"weight", "momentum_buffer"}
    assert {name.split("/")[0] for name in stored if name.endswith("conv_in.weight")} > {"exp_avg", "exp_avg_sq"}
    assert not torch.equal(module.hidden.weight, before) and module.hidden.weight.shape == before.shape
    trained = module.hidden.weight.detach().clone()
    nn.init.zeros_(module.hidden.weight)
    assert start(0.01).step == first.step and torch.equal(module.hidden.weight, trained)
    with pytest.raises(ValueError, match="holds a run that learns with muon; expected adamw, or another --run"):
        start(0.03, muon=False)
    assert start(0.03).step > first.step and float(loss_at(0, 0).detach()) < loss
    momentum = load_file(tmp_path / "training.safetensors")["momentum_buffer/hidden.weight"]
    assert not torch.equal(momentum, stored["momentum_buffer/hidden.weight"])


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
