"""The optimiser, the learning rate over steps, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from stages.muon import MuonWithAdamW, has_muon, is_hidden_matrix
from stages.settings import OptimizerSettings
from stages.sharding import local


def learning_rate(step: int, settings: OptimizerSettings, max_steps: int) -> float:
    """The learning rate of optimiser step ``step`` (counted from 0).

    It rises linearly over ``warmup_steps`` (step 0 has 1/warmup_steps of it), then stays, or decays to
    ``final_lr`` of its height at ``max_steps``.
    """
    warm = settings.warmup_steps
    if step < warm:
        return settings.lr * (step + 1) / warm
    if settings.decay == "constant":
        return settings.lr
    done = min(1.0, (step - warm) / max(1, max_steps - warm))
    height = 1 - done if settings.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.lr * (settings.final_lr + (1 - settings.final_lr) * height)


def check_optimizer(name: str) -> None:
    """Find out before slow work whether an optimiser can be had here.

    Raises:
        ValueError: Muon before torch 2.9; one in 8 bits without a CUDA device, or without the package bitsandbytes.
    """
    advice = "expected optimizer.name=adamw here"
    if name == "muon" and not has_muon():
        raise ValueError(f"optimizer.name={name} needs torch 2.9, and this is {torch.__version__}; {advice}.")
    if name in ("adamw", "muon"):
        return
    if not torch.cuda.is_available():
        raise ValueError(f"optimizer.name={name} needs a CUDA device, and there is none; {advice}.")
    if find_spec("bitsandbytes") is None:
        install = "pip install 'through-the-mask[gpu]'"
        raise ValueError(f"optimizer.name={name} needs the package bitsandbytes ({install}); without it, {advice}.")


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """AdamW, or Muon beside it; biases, norms and other small tables do not decay.

    "adamw" is torch's, one fused call a step. "muon": see :mod:`stages.muon`. "adamw_8bit" keeps its two moments in
    8 bits (Dettmers et al. 2022, block-wise), "paged_adamw_8bit" also moves them to the CPU's memory when the device's
    is full; both are bitsandbytes'.

    Raises:
        ValueError: see :func:`check_optimizer`, and :class:`stages.muon.MuonWithAdamW`.
    """
    check_optimizer(settings.name)
    betas = (settings.betas[0], settings.betas[1])
    hidden: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in parameters:
        if settings.name == "muon" and is_hidden_matrix(name, parameter):
            hidden.append(parameter)
        else:
            small = parameter.ndim < 2 or name.endswith("scale_shift_table")
            (vectors if small else matrices).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "muon":
        return MuonWithAdamW(hidden, groups, settings.lr, betas, settings.eps, settings.weight_decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=True)
    import bitsandbytes.optim

    paged = settings.name == "paged_adamw_8bit"
    return bitsandbytes.optim.AdamW8bit(groups, lr=settings.lr, betas=betas, eps=settings.eps, is_paged=paged)


def state_bytes(parameters: Iterable[tuple[str, nn.Parameter]], optimizer: str) -> int:
    """How many bytes the state of an optimiser of :func:`build_optimizer` has in a checkpoint.

    Two moments in float32, or Muon's one; in 8 bits with two numbers a block of 256 and two tables of 1 kB a tensor,
    but for tensors of less than 4,096 values, of which bitsandbytes keeps 32 bits.
    """
    total = 0
    for name, parameter in parameters:
        count = parameter.numel()
        if optimizer == "muon" and is_hidden_matrix(name, parameter):
            total += 4 * count
        elif optimizer.endswith("8bit") and count >= 4096:
            total += 2 * count + 8 * -(-count // 256) + 2048
        else:
            total += 8 * count
    return total


class EMA:
    """Exponential moving average of parameters, fp32; shared out as they are.

    After step n (counted from 0): average += (1 - d) (parameter - average) with d = min(decay, (1 + n) / (10 + n)),
    so that the first steps, far from converged, are soon forgotten.

    Args:
        parameters: name and parameter; the average starts as a copy.
        decay: in 0..1.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {name: p.detach().float().clone() for name, p in parameters}

    def decay_at(self, step: int) -> float:
        """The decay of one step."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, nn.Parameter]], step: int) -> None:
        """Take in the parameters after optimiser step ``step``."""
        pairs = [(local(self.average[name]), local(p).float()) for name, p in parameters]
        average, now = [a for a, _ in pairs], [p for _, p in pairs]
        torch._foreach_lerp_(average, now, 1 - self.decay_at(step))

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into the parameters of ``model``."""
        own = dict(model.named_parameters())
        for name, value in self.average.items():
            local(own[name]).copy_(local(value))
