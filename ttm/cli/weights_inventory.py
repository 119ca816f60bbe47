"""Which weights lie on this machine, and whether their files are whole. Needs the standard library alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

EMBEDDED = Path(__file__).parents[1] / "pretrained"
"""The weights that come with the package."""


@dataclass(frozen=True)
class Weights:
    """One set of weights on the disk.

    Attributes:
        name: a name that ``Pipeline.from_pretrained`` takes, or the file's.
        path: the folder, or the file.
        size: bytes.
        fault: what is wrong with the first file that is not whole; empty where all are.
    """

    name: str
    path: Path
    size: int
    fault: str = ""


def embedded_weights() -> list[Weights]:
    """The folders under ``ttm/pretrained``."""
    folders = sorted(path for path in EMBEDDED.glob("*") if path.is_dir())
    return [_inspect(folder.name, folder) for folder in folders]


def hub_weights() -> tuple[Path, list[Weights]]:
    """The Hub's cache folder and the models in it."""
    home = Path(os.environ.get("HF_HOME") or _cache_home() / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folders = sorted(path for path in cache.glob("models--*") if path.is_dir())
    return cache, [_inspect(folder.name.removeprefix("models--").replace("--", "/"), folder) for folder in folders]


def torch_hub_weights() -> tuple[Path, list[Weights]]:
    """torch's checkpoint folder and the files in it (torchvision's RAFT, for one, comes to lie there)."""
    folder = Path(os.environ.get("TORCH_HOME") or _cache_home() / "torch").expanduser() / "hub" / "checkpoints"
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return folder, [Weights(path.name, path, path.stat().st_size) for path in files]


def safetensors_fault(path: Path) -> str:
    """What is wrong with a safetensors file, read from its header alone; empty if it is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"{path.name} is cut off at {size} bytes, within its header"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return f"{path.name} has no safetensors header"
    expected = 8 + length + max(ends, default=0)
    return "" if size == expected else f"{path.name} has {size} bytes; its header expects {expected}"


def _inspect(name: str, folder: Path) -> Weights:
    size, fault = 0, ""
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_symlink() and path.exists():  # the Hub's snapshots point at its blobs, counted once, as blobs
                fault = fault or (safetensors_fault(path) if path.suffix == ".safetensors" else "")
            elif path.is_file():
                size += path.stat().st_size
                fault = fault or (safetensors_fault(path) if path.suffix == ".safetensors" else "")
        except OSError as error:
            fault = fault or f"{path.name} can't be read ({error.strerror})"
    return Weights(name, folder, size, fault)


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
