"""Muon for a network's hidden matrices, AdamW for all else.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") steps along the momentum with its
singular values set to one; it is torch's own, from 2.9 on. It knows matrices alone: a convolution is one of
[out, in * taps]. What it isn't meant for stays with AdamW: the first and last layers, embeddings, biases and norms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

_EDGES = (
    "conv_in.", "conv_out.", "quant_conv.", "embed", "scale_shift_table", "controlnet_down_blocks.",
    "controlnet_mid_block.",
)  # fmt: skip
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
        hidden: what :func:`is_hidden_matrix` says is Muon's, contiguous.
        rest: AdamW's groups, each with its ``weight_decay``; may be empty.
        lr: of both.
        betas, eps: of AdamW.
        weight_decay: of the hidden matrices.

    Raises:
        ValueError: no hidden matrix.
    """

    def __init__(
        self,
        hidden: Sequence[nn.Parameter],
        rest: Sequence[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        if not hidden:
            raise ValueError("no trained parameter is a hidden matrix; expected one for Muon.")
        super().__init__([{"params": list(hidden), "weight_decay": weight_decay}, *rest], {"lr": lr})
        self._matrices = [(p, nn.Parameter(p.detach().view(len(p), -1))) for p in hidden]  # they share their memory
        matrices = [matrix for _, matrix in self._matrices]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        ]
        if rest:
            self._optimizers.append(torch.optim.AdamW(rest, lr=lr, betas=betas, eps=eps, fused=True))

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
        for _, matrix in self._matrices:
            matrix.grad = None  # a view: it would keep the gradient's memory
