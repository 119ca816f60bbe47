"""Tensors and folders on disk that are whole or absent: written beside, synced, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.processes import Alone, Processes, together

_LEFTOVER = re.compile(
    r"\.(?:transformer|scheduler|adapter|step-\d{8}|begun_with\.json)\.(\d+)\.(?:part|old)"
    r"|\.few_shot\.(?:[0-9a-f]{8}\.)?(\d+)\.part\.(?:json|safetensors)"  # of ttm.atomic_write
    r"|\.write-(\d+)\.part"
    r"|\.step-\d{8}\.old"
)
"""What a run writes beside its results and checkpoints before it renames it, with the number of the process that did.
Whatever else is hidden there is the user's own."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file, whole or not at all.

    Raises:
        OSError: the disk is full, the folder is read-only, …; names the path.
    """

    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    _replace(path, lambda beside: save_file(plain, beside, dict(metadata or {})))


def write_json(path: Path, values: Any) -> None:
    """Write one JSON file, whole or not at all.

    Raises:
        OSError: as :func:`write_tensors`.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    _replace(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        sync(beside)
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        remove_quietly(beside)
        raise storage_error(path, error) from error
    except BaseException:
        remove_quietly(beside)
        raise


def storage_error(path: Path, error: Exception) -> OSError:
    """One sentence for whatever the system or safetensors said about not being able to write."""
    number = getattr(error, "errno", None) or (errno.ENOSPC if "space" in str(error) else errno.EIO)
    reason = getattr(error, "strerror", None) or str(error)
    return OSError(number, f"Cannot write ({reason}); expected a writable folder with space left", str(path))


def sync(path: Path) -> None:
    """Make a file's (or a folder's) contents outlive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_quietly(path: Path) -> None:
    """Remove a file or a folder; that it is not there, or can't be removed, is no error."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink()
        except OSError:
            pass


def replace_folder(path: Path, fill: Callable[[Path], Any], processes: Processes | None = None) -> None:
    """Fill a folder beside ``path`` and put it in its place; an older folder there is removed afterwards.

    Args:
        fill: called with the folder to fill, in every process.
        processes: all of them call this together; None: this one is alone.

    Raises:
        OSError: as :func:`write_tensors`; raised in all processes if in one.
    """
    processes = processes or Alone()
    beside = path.with_name(f".{path.name}.{processes.main_pid}.part")
    old = path.with_name(f".{path.name}.{processes.main_pid}.old")
    try:
        with together(processes):
            if processes.is_main:
                remove_quietly(beside)
                beside.mkdir(parents=True)
        with together(processes):
            fill(beside)
        with together(processes):
            if processes.is_main:
                _put_in_place(beside, path, old)
    except BaseException as error:
        if processes.is_main:
            remove_quietly(beside)
        if isinstance(error, (OSError, SafetensorError)):
            raise storage_error(path, error) from error
        raise
    if processes.is_main:
        remove_quietly(old)


def _put_in_place(beside: Path, path: Path, old: Path) -> None:
    for item in [*beside.rglob("*"), beside]:
        sync(item)
    if path.exists():
        os.rename(path, old)
    os.rename(beside, path)
    sync(path.parent)


def read_tensors(path: Path, advice: str) -> dict[str, Tensor]:
    """Read one safetensors file.

    Args:
        path: the file.
        advice: what to do about a broken one; ends the error's sentence.

    Raises:
        ValueError: the file is truncated or no safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read ({error}); {advice}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left beside (see ``_LEFTOVER``); a living process's files, and all others, stay."""
    for path in list(folder.glob(".*")):
        if found := _LEFTOVER.fullmatch(path.name):
            owner = next(filter(None, found.groups()), None)
            if owner is None or int(owner) == os.getpid() or not Path(f"/proc/{owner}").exists():
                remove_quietly(path)


def prepare_output(folder: Path) -> None:
    """Make the output folder, and fail now rather than at a checkpoint.

    Raises:
        OSError: it can't be made or written.
    """
    probe = folder / f".write-{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        reason = f"output_dir can't be written ({error.strerror}); expected a writable folder"
        raise OSError(error.errno, reason, str(folder)) from error
