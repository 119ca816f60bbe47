"""Muon for a network's hidden matrices, AdamW for all else.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") steps along the momentum with its
singular values set to one; it is torch's own, from 2.9 on. It knows matrices alone: a convolution is one of
[out, in * taps]. What it isn't meant for stays with AdamW: the first and last layers, embeddings, biases and norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_EDGES = ("conv_in.", "conv_out.", "quant_conv.", "embed", "scale_shift_table")
_LAST_OF_A_TRANSFORMER = "proj_out."


def has_muon() -> bool:
    """Whether this torch has Muon."""
    return hasattr(torch.optim, "Muon")


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter, by its name in diffusers' models, is Muon's."""
    at_an_edge = name.startswith(_LAST_OF_A_TRANSFORMER) or any(edge in name for edge in _EDGES)
    return parameter.ndim >= 2 and not at_an_edge


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimiser of two; Muon's steps are scaled to the size of AdamW's (Liu et al. 2025), so both take one rate.

    Its state is that of both: ``momentum_buffer`` [out, in * taps] of a hidden matrix, AdamW's of all else.

    Args:
        parameters: names and parameters, contiguous ones.
        lr: of both.
        betas, eps: of AdamW.
        weight_decay: of matrices; biases and norms don't decay.

    Raises:
        ValueError: no hidden matrix among them.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        named = list(parameters)
        hidden = [p for name, p in named if is_hidden_matrix(name, p)]
        if not hidden:
            raise ValueError(f"none of the {len(named)} trained parameters is a hidden matrix; expected one for Muon.")
        rest = [p for name, p in named if not is_hidden_matrix(name, p)]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__([{"params": hidden, "weight_decay": weight_decay}, *groups], {"lr": lr})
        self._matrices = [(p, nn.Parameter(p.detach().view(len(p), -1))) for p in hidden]  # they share their memory
        matrices = [matrix for _, matrix in self._matrices]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        ]
        if groups:
            self._optimizers.append(torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both, at each group's rate.

        Raises:
            ValueError: a closure is given.
        """
        if closure is not None:
            raise ValueError("a closure is given; expected gradients that are there already.")
        muon = self._optimizers[0]
        for p, matrix in self._matrices:
            matrix.grad = None if p.grad is None else p.grad.view_as(matrix)
            muon.state[matrix] = self.state[p]
        for adamw in self._optimizers[1:]:
            adamw.state = self.state
        theirs = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        for own, group in zip(self.param_groups, theirs, strict=True):
            group["lr"] = own["lr"]
        for optimizer in self._optimizers:
            optimizer.step()
