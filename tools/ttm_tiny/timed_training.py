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

from stages.muon import has_muon
from stages.optimization import build_optimizer
from stages.settings import OptimizerSettings
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
        muon: give the hidden matrices to Muon (:mod:`stages.muon`); before torch 2.9 AdamW has them all the same.

    Returns:
        The progress at the end.

    Raises:
        ValueError: the run in ``folder`` was begun with the other optimiser.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    name = "muon" if muon and has_muon() else "adamw"
    settings = OptimizerSettings(name, peak_learning_rate, betas=[0.9, 0.95], weight_decay=0.01)
    optimizer = build_optimizer(named.items(), settings)
    progress = _resume(named, optimizer, name, folder)
    last, since, running = time.monotonic(), 0.0, 0.0
    while progress.seconds < 60 * minutes:
        fraction = progress.seconds / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(fraction, progress.step, peak_learning_rate)
        loss = loss_at(progress.step, fraction)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        if torch.isfinite(norm):  # one bad batch must not undo the run
            optimizer.step()
        for parameter in named.values():
            parameter.grad = None
        running = 0.98 * running + 0.02 * float(loss.detach()) if progress.step else float(loss.detach())
        progress.step += 1
        now = time.monotonic()
        progress.seconds, since, last = progress.seconds + now - last, since + now - last, now
        if since > checkpoint_every_seconds or progress.seconds >= 60 * minutes:
            _save(named, optimizer, name, progress, folder)
            told = on_checkpoint(progress)
            print(f"step {progress.step} {progress.seconds / 60:.1f} min loss {running:.4f} {told}", flush=True)
            since, last = 0.0, time.monotonic()
    return progress


def _save(
    named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, kind: str, progress: Progress, folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight/{name}": p.detach() for name, p in named.items()}
    for name, p in named.items():
        for key, tensor in optimizer.state.get(p, {}).items():  # empty until the parameter has had a gradient
            tensors[f"{key}/{name}"] = tensor
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with written_beside(folder / "training.safetensors") as beside:
        save_file(tensors, beside, metadata={"progress": json.dumps(asdict(progress)), "optimizer": kind})


def _resume(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, kind: str, folder: Path) -> Progress:
    path = folder / "training.safetensors"
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as opened:
        progress, begun_with = Progress(**json.loads(opened.metadata()["progress"])), opened.metadata().get("optimizer")
    if begun_with not in (None, kind):
        raise ValueError(f"{folder} holds a run that learns with {begun_with}; expected {kind}, or another --run.")
    for stored, tensor in load_file(path).items():
        key, name = stored.split("/", 1)
        if key == "weight":
            named[name].detach().copy_(tensor)
        else:
            optimizer.state[named[name]][key] = tensor
    return progress
