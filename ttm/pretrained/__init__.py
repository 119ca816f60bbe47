"""The models that are installed with the package: folders beside this file, opened by their name."""

from __future__ import annotations

from pathlib import Path


def embedded_models() -> list[str]:
    """Names of the models that this installation holds."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/model_index.json"))


def embedded_folder(name: str) -> Path | None:
    """The folder of an embedded model, or None if there is none of this name."""
    return Path(__file__).parent / name if name in embedded_models() else None
