"""Motions that the synthetic world shows only when asked: patterns for a model to learn from a few clips.

None of them is among the motions that the embedded models were trained on, so what a model does of them afterwards it
learnt from the clips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Path = NDArray[np.floating[Any]]


def _zigzags(time: Path) -> Path:
    """To the right in four slanting strokes."""
    stroke = np.abs((4 * time) % 2 - 1)
    return np.stack([0.36 * time, 0.20 * (1 - stroke)], axis=1)


def _swings(time: Path) -> Path:
    """A pendulum's bob, once to each side and back."""
    angle = 0.8 * np.sin(2 * np.pi * time)
    return 0.34 * np.stack([np.sin(angle), np.cos(angle) - 1], axis=1)


def _turns_back(time: Path) -> Path:
    """To the left, and faster back beyond the start."""
    x = np.where(time < 0.5, -0.5 * time, -0.25 + 0.9 * (time - 0.5))
    return np.stack([x, np.zeros_like(x)], axis=1)


def _corners(time: Path) -> Path:
    """Down, then to the right."""
    return np.stack([0.6 * np.maximum(time - 0.5, 0), 0.6 * np.minimum(time, 0.5)], axis=1)


def _spirals(time: Path) -> Path:
    """One and a half turns outwards."""
    angle = 3 * np.pi * time
    return 0.18 * time[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


PATTERNS: dict[str, Callable[[Path], Path]] = {
    "zigzags": _zigzags,
    "swings": _swings,
    "turns back": _turns_back,
    "corners": _corners,
    "spirals": _spirals,
}
"""Name -> the path of times [T] in 0..1, [T, 2] of (x, y) in sides of the picture, from (0, 0), y down."""
