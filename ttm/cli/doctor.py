"""``ttm doctor``: what this machine has. Works without torch too, for that is when it is needed most."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ttm.cli.weights_inventory import Weights, embedded_weights, hub_weights, torch_hub_weights

NEEDED = (
    *("torch", "torchvision", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub"),
    *("sam2", "open-clip-torch", "hydra-core", "omegaconf", "einops", "av"),
    *("numpy", "scipy", "scikit-image", "opencv-python-headless", "pillow", "pydantic", "tqdm"),
)
OPTIONAL = {
    "decord": "PyAV reads videos in its place",
    "openai": "for LanguageModelPlanner: pip install 'through-the-mask[llm]'",
    "llguidance": "for LanguageModelPlanner with a local model: the same",
    "tensorboard": "for training: pip install 'through-the-mask[train]'",
}
ADVICE = "Something that is needed is missing. `make test` in a checkout installs all of it."


def run(arguments: Namespace) -> int:
    """Print the page; 1 if a package, the device or the embedded weights are not whole."""
    sections = (("Versions", _versions()), ("Device", _device()), ("Weights", _weights()))
    for title, (lines, _) in sections:
        print(f"{title}")
        print("\n".join(f"  {line}" for line in lines), end="\n\n")
    if all(whole for _, (_, whole) in sections):
        print("Everything that `ttm generate` needs is here.")
        return 0
    print(ADVICE)
    return 1


def _row(name: str, *values: str) -> str:
    return "  ".join([f"{name:<24}", *(f"{value:<12}" for value in values)]).rstrip()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> tuple[list[str], bool]:
    lines = [
        _row(
            "through-the-mask",
            _installed("through-the-mask") or "not installed",
            str(Path(__file__).parents[2]),
        ),
        _row("python", platform.python_version(), sys.executable),
    ]
    whole = True
    for name in NEEDED:
        found = _installed(name)
        whole &= found is not None
        lines.append(_row(name, found or "MISSING"))
    for name, remark in OPTIONAL.items():
        found = _installed(name)
        lines.append(_row(name, found or "none", "" if found else f"not needed: {remark}"))
    return lines, whole


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB"


def _device() -> tuple[list[str], bool]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [_row("system", f"{platform.system()} {platform.machine()}"), _row("cpu", f"{cores} cores")]
    memory = _memory()
    if memory:
        lines.append(_row("memory", _gigabytes(memory[0]), f"{_gigabytes(memory[1])} free"))
    disk = shutil.disk_usage(Path.cwd())
    lines.append(_row("disk here", _gigabytes(disk.total), f"{_gigabytes(disk.free)} free"))
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that torch was built against is missing
        return [*lines, _row("torch", "does not load", " ".join(str(error).split()))], False
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        lines.append(
            _row(
                f"cuda:{index}",
                torch.cuda.get_device_name(index),
                _gigabytes(total),
                f"{_gigabytes(free)} free",
            )
        )
    if torch.backends.mps.is_available():
        lines.append(_row("mps", "available"))
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    lines.append(_row("ttm generate runs on", chosen, f"{torch.get_num_threads()} threads" if chosen == "cpu" else ""))
    return lines, True


def _memory() -> tuple[int, int] | None:
    """Bytes of memory, whole and free, where the system tells."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):
        return None
    try:  # what the system would hand out, file cache included, is the more useful figure
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    return total, free


def _weights() -> tuple[list[str], bool]:
    embedded = embedded_weights()
    lines = [_describe(weights) for weights in embedded] or [_row("ttm-tiny", "MISSING", "the embedded default")]
    hub_folder, on_hub = hub_weights()
    lines += ["", f"Hub cache {hub_folder}{'' if on_hub else ': nothing there'}", *map(_describe, on_hub)]
    torch_folder, in_torch = torch_hub_weights()
    lines += [
        "",
        f"torch hub {torch_folder}{'' if in_torch else ': nothing there'}",
        *map(_describe, in_torch),
    ]
    whole = any(weights.name == "ttm-tiny" for weights in embedded) and all(not weights.fault for weights in embedded)
    return lines, whole


def _describe(weights: Weights) -> str:
    state = f"BROKEN: {weights.fault}" if weights.fault else "whole"
    return _row(weights.name, f"{weights.size / 1e6:.1f} MB", state, str(weights.path))
