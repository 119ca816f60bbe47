"""How sure a figure is: intervals by resampling the videos (Efron 1979), seeded, so that a figure repeats.

Letters: N videos, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
NORMAL_QUANTILE = 1.959963984540054
"""Of the standard normal distribution at (1 + ``LEVEL``) / 2."""


class Interval(NamedTuple):
    """Where the figure would lie for other videos of the same kind, at ``LEVEL``."""

    low: float
    high: float


def interval_of_mean(values: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """The percentile interval of a mean over videos.

    Args:
        values: float64 [N].
        resamples: R.
        seed: of the resampling.

    Returns:
        None below two values: one video says nothing of others.
    """
    if len(values) < 2:
        return None
    means = np.array([repeats @ values / len(values) for repeats in draws(len(values), resamples, seed)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def draws(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """R times, how often each of ``count`` videos is in a resample: int64 [N], summing to N.

    One after the other, so that memory does not grow with R.
    """
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, count, count), minlength=count)
