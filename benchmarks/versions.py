"""The versions that decide what a video or a figure looks like."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import ttm

_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "sam2", "open_clip_torch")


def package_versions() -> dict[str, str]:
    """Of this package, Python and what the models are made with, by name."""
    found = {"through-the-mask": ttm.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
