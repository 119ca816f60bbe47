"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors.

A checkpoint is a folder ``step-00001000`` with model.safetensors, ema.safetensors, optimizer.safetensors (each
parameter's state, flattened to ``parameter|state``) and state.json. It is filled beside and renamed, so a folder of
that name is whole. There is no state of a random generator: every draw is a function of (seed, sample index).

A model that is shared out (stages/sharding.py) is written by all processes at once, each its own rows, into
model-00001-of-00008.safetensors and so on; the header says which rows. Any number of processes reads it, shared out or
not, each just the rows that it needs. On several machines the folder has to be one that all of them see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.processes import Alone, Processes
from stages.sharding import cut_like, share_of
from stages.stored_tensors import StoredTensors, write_share
from stages.whole_files import remove_quietly, replace_folder

_NAME = re.compile(r"step-(\d{8})")
_PARTS = ("model", "ema", "optimizer")


@dataclass(frozen=True)
class Checkpoint:
    """What goes into a folder; tensors may be shared out. ``state`` is state.json: step, and whatever else."""

    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class StoredCheckpoint:
    """The same on disk: opened, and read tensor by tensor."""

    model: StoredTensors
    ema: StoredTensors
    optimizer: StoredTensors
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
    """The inverse of :func:`optimizer_tensors`; of stored tensors each process reads its own rows alone.

    A paged optimiser of bitsandbytes moves between the memories of device and CPU what it has allocated itself, and
    nothing else: it makes its buffers, and they are filled. (This has not been run on a GPU.)

    Raises:
        ValueError: the tensors belong to other parameters.
    """
    named = dict(parameters)
    for full in flat:
        if (name := full.rsplit("|", 1)[0]) not in named:
            raise ValueError(f"The optimiser's state holds {name!r}, which this model does not train.")
    if getattr(optimizer, "is_paged", False):
        _make_buffers(optimizer, {named[full.rsplit("|", 1)[0]] for full in flat})
    for full in flat:
        name, key = full.rsplit("|", 1)
        parameter = named[name]
        buffer = optimizer.state[parameter].get(key)
        if getattr(buffer, "is_paged", False):
            buffer.copy_(flat[full])
            continue
        if isinstance(flat, StoredTensors) and flat.shape(full) == tuple(parameter.shape):
            rows = flat.own(full, parameter).clone().to(parameter.device)
            optimizer.state[parameter][key] = cut_like(rows, parameter)
            continue
        value = flat[full]
        if value.ndim == 0 and not value.is_floating_point():  # a plain count, as bitsandbytes keeps its steps
            optimizer.state[parameter][key] = int(value)
        else:
            optimizer.state[parameter][key] = value.clone().to(parameter.device)  # steps too: AdamW is fused


def _make_buffers(optimizer: Any, parameters: set[nn.Parameter]) -> None:
    """Begin the state of some parameters, as bitsandbytes does in their first step."""
    for group_number, group in enumerate(optimizer.param_groups):
        for number, parameter in enumerate(group["params"]):
            if parameter in parameters:
                optimizer.init_state(group, parameter, group_number, number)
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # buffers are zeroed by the device, and filled by the CPU


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int, processes: Processes | None = None) -> Path:
    """Write ``folder/step-…`` whole or not at all, then remove all but the last ``keep``.

    Args:
        processes: all of them call this together, each with its rows; None: this one is alone.

    Raises:
        OSError: the disk is full, the folder read-only, …; raised in all processes if in one.
    """
    processes = processes or Alone()
    path = folder / f"step-{int(checkpoint.state['step']):08d}"
    share = share_of(checkpoint.model.values())

    def fill(beside: Path) -> None:
        for part in _PARTS:
            write_share(beside, part, getattr(checkpoint, part), share)
        if processes.is_main:
            (beside / "state.json").write_text(json.dumps(checkpoint.state, indent=1) + "\n", encoding="utf-8")

    if not processes.all_say(path.exists()):
        replace_folder(path, fill, processes)
    if processes.is_main:
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


def latest_checkpoint(folder: Path) -> StoredCheckpoint | None:
    """Open the newest checkpoint of ``folder``; None where there is none.

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
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no whole checkpoint ({error}); {advice}") from error
    model, ema, optimizer = (StoredTensors(path, part, advice) for part in _PARTS)
    return StoredCheckpoint(model, ema, optimizer, state)
