"""Muon beside AdamW: who has what, against torch's two optimisers by hand, and a state that goes on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stages import optimization
from stages.checkpoint import load_optimizer_tensors, optimizer_tensors
from stages.muon import MuonWithAdamW, has_muon, is_hidden_matrix
from stages.settings import OptimizerSettings

NEEDS_MUON = pytest.mark.skipif(not has_muon(), reason="Muon came with torch 2.9")


class Network(nn.Module):
    """Two hidden layers, a convolution and a linear one, between a first and a last layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in, self.conv = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.linear, self.norm, self.proj_out = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(self.conv_in(x)).movedim(1, -1)
        result: Tensor = self.proj_out(self.norm(self.linear(hidden)))
        return result

    def backward(self, seed: int) -> None:
        """Gradients of a loss on random inputs."""
        x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
        self(x).square().sum().backward()


def test_first_and_last_layers_embeddings_norms_and_biases_are_not_muons() -> None:
    named = dict(Network().named_parameters())
    assert [name for name, p in named.items() if is_hidden_matrix(name, p)] == ["conv.weight", "linear.weight"]
    matrix = named["linear.weight"]
    for name in (
        "time_embedding.linear_1.weight",
        "patch_embedding.weight",
        "condition_embedder.time_proj.weight",
        "controlnet_down_blocks.2.weight",
        "controlnet_mid_block.weight",
    ):
        assert not is_hidden_matrix(name, matrix)
    for name in ("blocks.0.attn1.to_q.weight", "down_blocks.0.attentions.0.proj_out.weight"):
        assert is_hidden_matrix(name, matrix)


@NEEDS_MUON
def test_equals_torchs_two_optimisers_each_on_its_own() -> None:
    model, twin = Network(), Network()
    settings = OptimizerSettings(name="muon", lr=0.02, betas=[0.9, 0.95], weight_decay=0.1)
    optimizer = optimization.build_optimizer(model.named_parameters(), settings)
    assert isinstance(optimizer, MuonWithAdamW)
    named = dict(twin.named_parameters())
    kernel = nn.Parameter(named["conv.weight"].detach().flatten(1))
    muon = torch.optim.Muon([kernel, named["linear.weight"]], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    rest = [p for name, p in named.items() if name not in ("conv.weight", "linear.weight")]
    decays = [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in rest]
    adamw = torch.optim.AdamW(decays, lr=0.02, betas=(0.9, 0.95))
    for seed in range(4):
        rate = 0.02 / (seed + 1)
        for group in (*optimizer.param_groups, *muon.param_groups, *adamw.param_groups):
            group["lr"] = rate
        model.backward(seed)
        twin.backward(seed)
        kernel.grad = named["conv.weight"].grad.flatten(1)
        for each in (optimizer, muon, adamw):
            each.step()
        assert all(matrix.grad is None for _, matrix in optimizer._matrices)  # nothing keeps a gradient's memory
        twin.conv.weight.data.copy_(kernel.detach().view_as(twin.conv.weight))
        for each in (model, twin):
            each.zero_grad()
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)


@NEEDS_MUON
def test_its_state_goes_on_bit_for_bit() -> None:
    def step(model: Network, optimizer: torch.optim.Optimizer, seed: int) -> None:
        model.backward(seed)
        optimizer.step()
        optimizer.zero_grad()

    def build(model: Network) -> torch.optim.Optimizer:
        settings = OptimizerSettings(name="muon", lr=0.02)
        return optimization.build_optimizer(model.named_parameters(), settings)

    model, twin = Network(), Network()
    optimizer, resumed = build(model), build(twin)
    step(model, optimizer, 0)
    twin.load_state_dict(model.state_dict())
    stored = optimizer_tensors(optimizer, model.named_parameters())
    assert {"conv.weight|momentum_buffer", "conv.bias|exp_avg", "norm.weight|exp_avg_sq"} < stored.keys()
    assert "conv.weight|exp_avg" not in stored
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    load_optimizer_tensors(resumed, twin.named_parameters(), stored)
    for seed in (1, 2):
        step(model, optimizer, seed)
        step(twin, resumed, seed)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, other)


@NEEDS_MUON
def test_small_tables_do_not_decay_beside_muon_either() -> None:
    model = Network()
    model.scale_shift_table = nn.Parameter(torch.zeros(1, 6, 8))
    optimizer = optimization.build_optimizer(model.named_parameters(), OptimizerSettings(name="muon", weight_decay=0.5))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(model.scale_shift_table)] == decays[id(model.norm.weight)] == decays[id(model.conv.bias)] == 0
    assert decays[id(model.conv.weight)] == decays[id(model.conv_in.weight)] == 0.5


@NEEDS_MUON
def test_a_model_without_hidden_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match="no trained parameter is a hidden matrix"):
        optimization.build_optimizer(nn.LayerNorm(3).named_parameters(), OptimizerSettings(name="muon"))


def test_an_older_torch_is_told_before_slow_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "has_muon", lambda: False)
    with pytest.raises(ValueError, match=r"optimizer\.name=muon needs torch 2\.9, .*expected optimizer\.name=adamw"):
        optimization.check_optimizer("muon")
