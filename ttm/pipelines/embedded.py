"""The models that are installed with the package, in ``ttm/pretrained``: opened by their folder's name."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = Path(__file__).parents[1] / "pretrained"


def embedded_models() -> list[str]:
    """Names of the models that this installation holds."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/model_index.json"))


def embedded_folder(name: str) -> Path | None:
    """The folder of an embedded model, or None if there is none of this name."""
    return EMBEDDED / name if name in embedded_models() else None
