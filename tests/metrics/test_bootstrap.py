"""Bootstrap intervals: where theory says they lie, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.metrics.bootstrap import draws, interval_of_mean


def test_a_mean_of_many_values_has_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=400)
    interval = interval_of_mean(values)
    assert interval is not None
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)
    assert interval == interval_of_mean(values), "seeded"


def test_equal_values_leave_no_doubt_and_one_value_says_nothing() -> None:
    assert interval_of_mean(np.full(5, 0.25)) == (0.25, 0.25)
    assert interval_of_mean(np.array([1.0])) is None
    assert interval_of_mean(np.array([])) is None


def test_every_resample_has_as_many_videos() -> None:
    for repeats in draws(7, 20, seed=1):
        assert repeats.shape == (7,) and repeats.sum() == 7 and repeats.min() >= 0
