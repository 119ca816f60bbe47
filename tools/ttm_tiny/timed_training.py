"""The loop that trains one small component of ttm-tiny within a budget of minutes, and resumes.

The two diffusion transformers are trained by ``stages``; this loop serves the parts that the method takes as given
(autoencoder, text encoder), whose objectives have nothing to do with it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttm.atomic_write import written_beside


@dataclass
class Progress:
    """How far a run has come: optimiser steps taken and seconds spent training, over all its starts."""

    step: int = 0
    seconds: float = 0.0


def learning_rate(fraction: float, step: int, peak: float, warmup_steps: int = 100, floor: float = 0.03) -> float:
    """Linear warm-up in steps, then half a cosine in the fraction of the time budget that is spent."""
    decay = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    return peak * decay * min(1.0, (step + 1) / warmup_steps)


def train(
    module: nn.Module,
    loss_at: Callable[[int, float], Tensor],
    folder: Path,
    *,
    minutes: float,
    peak_learning_rate: float,
    on_checkpoint: Callable[[Progress], str],
    checkpoint_every_seconds: float = 180.0,
    muon: bool = False,
) -> Progress:
    """Train ``module`` until ``minutes`` are spent, going on from ``folder`` if it holds a run.

    Args:
        module: what is trained; every parameter that requires a gradient.
        loss_at: (step, fraction of the budget spent) -> scalar loss.
        folder: where ``training.safetensors`` (weights, moments and progress) is kept.
        minutes: the budget, over all starts together.
        peak_learning_rate: of AdamW, and of Muon at AdamW's step size.
        on_checkpoint: measures the module and says the result in a line for the log.
        checkpoint_every_seconds: how often to save.
        muon: give the hidden convolutions to Muon, which AdamW does otherwise, and before torch 2.9.

    Returns:
        The progress at the end.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    matrices = _matrices(named) if muon and hasattr(torch.optim, "Muon") else {}
    optimizers = _optimizers(named, matrices, peak_learning_rate)
    progress = _resume(named, matrices, optimizers, folder)
    last, since, running = time.monotonic(), 0.0, 0.0
    while progress.seconds < 60 * minutes:
        fraction = progress.seconds / (60 * minutes)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(fraction, progress.step, peak_learning_rate)
        loss = loss_at(progress.step, fraction)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        if torch.isfinite(norm):  # one bad batch must not undo the run
            for name, matrix in matrices.items():
                gradient = named[name].grad
                matrix.grad = None if gradient is None else gradient.flatten(1)
            for optimizer in optimizers:
                optimizer.step()
        for parameter in named.values():
            parameter.grad = None
        running = 0.98 * running + 0.02 * float(loss.detach()) if progress.step else float(loss.detach())
        progress.step += 1
        now = time.monotonic()
        progress.seconds, since, last = progress.seconds + now - last, since + now - last, now
        if since > checkpoint_every_seconds or progress.seconds >= 60 * minutes:
            _save(named, matrices, optimizers, progress, folder)
            told = on_checkpoint(progress)
            print(f"step {progress.step} {progress.seconds / 60:.1f} min loss {running:.4f} {told}", flush=True)
            since, last = 0.0, time.monotonic()
    return progress


def _matrices(named: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The hidden convolutions as matrices [out, in * taps] that share their memory: Muon takes nothing else.

    The first and last layers stay with AdamW, as Muon's authors advise.
    """
    edges = ("conv_in", "conv_out", "quant_conv")
    return {
        name: nn.Parameter(p.detach().flatten(1))
        for name, p in named.items()
        if p.ndim >= 4 and not any(edge in name for edge in edges)
    }


def _optimizers(
    named: dict[str, nn.Parameter], matrices: dict[str, nn.Parameter], peak: float
) -> list[torch.optim.Optimizer]:
    rest = [p for name, p in named.items() if name not in matrices]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.95), weight_decay=0.01)]
    if matrices:
        optimizers.append(
            torch.optim.Muon(matrices.values(), lr=peak, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        )
    return optimizers


def _save(
    named: dict[str, nn.Parameter],
    matrices: dict[str, nn.Parameter],
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
    folder: Path,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight/{name}": p.detach() for name, p in named.items()}
    for name, p in (named | matrices).items():
        for optimizer in optimizers:
            for key, tensor in optimizer.state.get(p, {}).items():  # empty until the parameter has had a gradient
                tensors[f"{key}/{name}"] = tensor
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with written_beside(folder / "training.safetensors") as beside:
        save_file(tensors, beside, metadata={"progress": json.dumps(asdict(progress))})


def _resume(
    named: dict[str, nn.Parameter],
    matrices: dict[str, nn.Parameter],
    optimizers: list[torch.optim.Optimizer],
    folder: Path,
) -> Progress:
    path = folder / "training.safetensors"
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as opened:
        progress = Progress(**json.loads(opened.metadata()["progress"]))
    tensors = load_file(path)
    states: dict[str, dict[str, Tensor]] = {name: {} for name in named}
    for stored, tensor in tensors.items():
        key, name = stored.split("/", 1)
        if key == "weight":
            named[name].detach().copy_(tensor)
        else:
            states[name][key] = tensor
    names = {p: name for name, p in (named | matrices).items()}
    for optimizer in optimizers:
        for p in optimizer.param_groups[0]["params"]:
            if state := states[names[p]]:
                optimizer.state[p] = state
    return progress
