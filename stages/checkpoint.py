"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors.

A checkpoint is a folder ``step-00001000`` with model.safetensors, ema.safetensors, optimizer.safetensors (each
parameter's state, flattened to ``parameter|state``) and state.json. It is filled beside and renamed, so a folder of
that name is whole. There is no state of a random generator: every draw is a function of (seed, sample index).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.whole_files import read_tensors, remove_quietly, replace_folder

_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds. ``state`` is state.json: step, and whatever the loop wrote."""

    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors, ``parameter|state``."""
    flat = {}
    for name, parameter in parameters:
        for key, value in optimizer.state.get(parameter, {}).items():
            flat[f"{name}|{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]], flat: Mapping[str, Tensor]
) -> None:
    """The inverse of :func:`optimizer_tensors`.

    Raises:
        ValueError: the tensors belong to other parameters.
    """
    named = dict(parameters)
    for full, value in flat.items():
        name, key = full.rsplit("|", 1)
        if name not in named:
            raise ValueError(f"The optimiser's state holds {name!r}, which this model does not train.")
        parameter = named[name]
        place = torch.device("cpu") if key == "step" and not value.is_cuda else parameter.device
        if key == "step" and parameter.is_cuda:
            place = parameter.device  # fused AdamW counts steps on the device
        if value.ndim == 0 and not value.is_floating_point():  # a plain count, as bitsandbytes keeps its steps
            optimizer.state[parameter][key] = int(value)
        else:
            optimizer.state[parameter][key] = value.clone().to(place)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write ``folder/step-…`` whole or not at all, then remove all but the last ``keep``.

    Raises:
        OSError: the disk is full, the folder read-only, …
    """
    path = folder / f"step-{int(checkpoint.state['step']):08d}"
    metadata = {"format": "pt"}

    def fill(beside: Path) -> None:
        for name in ("model", "ema", "optimizer"):
            tensors = {key: value.detach().cpu().contiguous() for key, value in getattr(checkpoint, name).items()}
            save_file(tensors, beside / f"{name}.safetensors", metadata)
        (beside / "state.json").write_text(json.dumps(checkpoint.state, indent=1) + "\n", encoding="utf-8")

    if not path.exists():
        replace_folder(path, fill)
    for old in list_checkpoints(folder)[:-keep]:
        # Renamed first: a kill in the middle of the removal must leave no folder that looks whole.
        doomed = old.with_name(f".{old.name}.old")
        remove_quietly(doomed)
        old.rename(doomed)
        remove_quietly(doomed)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: path.name)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint of ``folder``; None where there is none.

    Raises:
        ValueError: a file in it is damaged (which a killed run does not do: a disk or a person did).
    """
    found = list_checkpoints(folder)
    if not found:
        return None
    path = found[-1]
    advice = f"remove {path} to go on from the checkpoint before it."
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        parts = [read_tensors(path / f"{name}.safetensors", advice) for name in ("model", "ema", "optimizer")]
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no whole checkpoint ({error}); {advice}") from error
    return Checkpoint(parts[0], parts[1], parts[2], state)
