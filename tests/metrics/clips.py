"""Clips and features that the tests of metrics share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ttm.metrics.scoring import Clip, Sample


def noise_clip(seed: int, frames: int = 12, size: tuple[int, int] = (16, 24), fps: float = 8.0) -> Clip:
    """Frames of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, *size, 3)).astype(np.uint8)
    return Clip(pixels, fps)


def samples_of(count: int, **given: object) -> list[Sample]:
    """Samples of noise clips; ``given`` goes to each."""
    return [Sample(f"clip {n}", noise_clip(n), **given) for n in range(count)]  # type: ignore[arg-type]


class MeanColour:
    """Features of clips [3]: the mean colour. Counts the clips that it is asked for."""

    def __init__(self, convention: str = "mean colour") -> None:
        self.convention = {"features": convention}
        self.weights: dict[str, object] = {}
        self.asked = 0

    def extract(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """One array a clip."""
        self.asked += len(clips)
        return [clip.frames.mean(axis=(0, 1, 2)).astype(np.float32) for clip in clips]


class Broken(MeanColour):
    """Features that are not finite for clips that begin with a black pixel."""

    def extract(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """One array a clip."""
        found = super().extract(clips)
        return [value * (1 if clip.frames[0, 0, 0].any() else np.nan) for clip, value in zip(clips, found, strict=True)]
