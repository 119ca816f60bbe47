"""What a run will still write, and whether the disk has room for it: said before training, not at a checkpoint."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path

import torch
from torch import nn

from stages.checkpoint import list_checkpoints
from stages.optimization import state_bytes
from stages.settings import Settings


def expect_space(settings: Settings, model: nn.Module, step: int) -> None:
    """Expect room for the checkpoints that are still to come and for what the run ends with.

    Args:
        settings: of the run; its ``output_dir`` exists.
        model: what is trained, wherever its parameters lie.
        step: that training goes on from.

    Raises:
        OSError: the disk of ``output_dir`` lacks it.
    """
    folder = Path(settings.output_dir)
    count = _checkpoints_to_come(settings, step)
    needed = count * _checkpoint_bytes(settings, model) + _export_bytes(settings, model)
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"for {count} more checkpoint(s) and what the run ends with"
        reason = f"output_dir has {free / 1e9:.2f} GB left; expected {needed / 1e9:.2f}, {what}"
        raise OSError(errno.ENOSPC, reason, str(folder))


def _checkpoints_to_come(settings: Settings, step: int) -> int:
    """How many more there will be at a time; at least one, since the run ends with its weights."""
    every = settings.checkpoint_every
    still = math.ceil(settings.max_steps / every) - step // every
    at_once = settings.keep_checkpoints + 1 - len(list_checkpoints(Path(settings.output_dir) / "checkpoints"))
    return max(1, min(still, at_once))


def _checkpoint_bytes(settings: Settings, model: nn.Module) -> int:
    """Trained weights, their average and the optimiser's state."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return 8 * sum(p.numel() for _, p in trained) + state_bytes(trained, settings.optimizer.name)


def _export_bytes(settings: Settings, model: nn.Module) -> int:
    """The whole model, what was trained of it apart, or that alone."""
    values, few_shot = 0, settings.stage.name == "few_shot"
    if few_shot or settings.host.trainable in ("adapter", "lora"):
        values += sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not few_shot:
        values += sum(p.numel() for p in model.parameters())
    dtype: torch.dtype = getattr(torch, settings.export_dtype)
    return values * dtype.itemsize
