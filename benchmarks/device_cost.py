"""Seconds a step and peak memory of a model on a device: what the programs that measure a GPU share.

The first step of each measurement warms up and is not timed. Peak memory is the allocator's, reserved; the CUDA context
needs about 0.5 GB more.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.memory import prepare_model
from stages.objectives import build_objective, weighted_error
from stages.optimization import EMA, build_optimizer
from stages.settings import Settings


@dataclass(frozen=True)
class Cost:
    """Peak memory, GB (None where it can't be told), and seconds of a step; ``decoding`` seconds at inference."""

    peak: float | None
    step: float
    decoding: float = 0.0
    trained: int = 0


def command_line(program: str, description: str) -> argparse.ArgumentParser:
    """What every program that measures a device is asked."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each kind (default 3)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model; its figures mean nothing")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    return parser


def device_to_measure(program: str, parser: argparse.ArgumentParser, given: argparse.Namespace) -> torch.device | None:
    """The device, once what was given is checked; None, and said why, where there is none to measure."""
    if given.steps < 1:
        parser.error(f"--steps is {given.steps}; expected at least 1")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if given.tiny:
        return torch.device("cpu")
    print(f"{program} measures a CUDA device, and there is none here: nothing was measured. With --tiny it runs on the"
          " CPU, to prove that it works.")  # fmt: skip
    return None


def training_cost(
    build: Callable[[], Any],
    inputs: Callable[[torch.dtype], tuple[Tensor, dict[str, Tensor]]],
    settings: Settings,
    device: torch.device,
    steps: int,
) -> Cost:
    """Train a new model for ``1 + steps`` steps as ``stages.trainer`` does: bf16 autocast, clipping, optimiser, EMA.

    Args:
        build: makes the host on the device.
        inputs: clean latents [B, Z, t, h, w] and the host's conditions in a dtype, on the device.
        settings: of a run.
        device: to train on.
        steps: timed steps.
    """
    with measured(device) as peak:
        model = build()
        prepare_model(model.train(), settings)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        optimizer, ema = build_optimizer(named, settings.optimizer), EMA(named, settings.ema_decay)
        objective = build_objective(settings.objective)
        clean, conditions = inputs(torch.float32)
        level = torch.full((clean.shape[0],), 0.5)
        noise = torch.randn(clean.shape)
        noisy, timesteps = objective.noisy(clean.cpu(), noise, level)
        target = objective.target(clean.cpu(), noise, level).to(device)

        def step(index: int) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                prediction = model(noisy.to(device), timesteps.to(device), return_dict=False, **conditions)[0]
            weighted_error(prediction.float(), target, None).backward()
            torch.nn.utils.clip_grad_norm_([p for _, p in named], settings.optimizer.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update(named, index)

        seconds = timed(step, steps, device)
        return Cost(peak(), seconds, trained=sum(p.numel() for _, p in named))


def timed(step: Callable[[int], Any], steps: int, device: torch.device) -> float:
    """Seconds a step, without the first."""
    step(0)
    wait(device)
    begin = time.perf_counter()
    for index in range(steps):
        step(1 + index)
    wait(device)
    return (time.perf_counter() - begin) / steps


@contextmanager
def measured(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """Start from an empty device; hands out what tells the peak since, GB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
