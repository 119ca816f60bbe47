"""The Fréchet distance against scipy's matrix square root, closed forms, and invariants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ttm.metrics.frechet import GaussianStatistics, frechet_distance, frechet_distance_of_samples


def reference_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Independent: NumPy's covariance, scipy's general square root of the product."""
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(one @ other).real
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root))


@pytest.mark.parametrize(("features", "samples"), [(3, 10), (16, 60), (64, 300)])
def test_it_equals_the_reference_on_random_features(features: int, samples: int) -> None:
    rng = np.random.default_rng(features)
    mix = rng.normal(size=(features, features))
    first = rng.normal(size=(samples, features)) @ mix
    second = rng.normal(0.3, 1.5, size=(samples + 7, features))
    found = frechet_distance(GaussianStatistics.of(first), GaussianStatistics.of(second))
    assert found == pytest.approx(reference_distance(first, second), rel=1e-6)


@pytest.mark.parametrize("samples", [4, 200])  # fewer than features: covariances of low rank
def test_equal_sets_are_at_distance_zero(samples: int) -> None:
    values = 100 * np.random.default_rng(0).normal(size=(samples, 32))
    shuffled = values[np.random.default_rng(1).permutation(samples)]
    scale = np.trace(GaussianStatistics.of(values).covariance)
    assert frechet_distance(GaussianStatistics.of(values), GaussianStatistics.of(shuffled)) <= 1e-9 * scale


def test_two_gaussians_have_the_closed_form() -> None:
    """Of diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    m1, m2 = np.array([1.0, -2.0, 0.5]), np.array([0.0, 4.0, 0.5])
    s1, s2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    first = GaussianStatistics(11, m1, 10 * np.diag(s1**2))
    second = GaussianStatistics(21, m2, 20 * np.diag(s2**2))
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-12)


def test_a_rotation_of_both_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(40, 8)), rng.normal(1, 2, size=(50, 8))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    plain = frechet_distance(GaussianStatistics.of(first), GaussianStatistics.of(second))
    turned = frechet_distance(GaussianStatistics.of(first @ rotation), GaussianStatistics.of(second @ rotation))
    assert turned == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_statistics_stream(batch: int) -> None:
    """Any batches, float32 far from zero: the same as numpy's over all of it in float64."""
    values = (1000 + np.random.default_rng(3).normal(size=(50, 6))).astype(np.float32)
    streamed = GaussianStatistics.empty(6)
    for begin in range(0, 50, batch):
        streamed.update(values[begin : begin + batch])
    streamed.update(values[:0])
    assert streamed.count == 50
    np.testing.assert_allclose(streamed.mean, values.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-9)


def test_repeats_are_copies() -> None:
    values, times = np.random.default_rng(4).normal(size=(5, 3)), np.array([2, 0, 1, 3, 1])
    weighted, copied = GaussianStatistics.of(values, times), GaussianStatistics.of(np.repeat(values, times, axis=0))
    assert weighted.count == copied.count == 7
    np.testing.assert_allclose(weighted.covariance, copied.covariance)


@pytest.mark.parametrize("features", [3, 40])  # more products than features squared, and fewer
def test_sets_at_hand_are_the_same(features: int) -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(9, features)), rng.normal(1, 2, size=(11, features))
    times = [np.bincount(rng.integers(0, len(side), len(side)), minlength=len(side)) for side in (first, second)]
    copies = [np.repeat(side, count, axis=0) for side, count in zip((first, second), times, strict=True)]
    expected = frechet_distance(*map(GaussianStatistics.of, copies))
    assert frechet_distance_of_samples(first, second, *times) == pytest.approx(expected, rel=1e-7)
    plain = frechet_distance(GaussianStatistics.of(first), GaussianStatistics.of(second))
    assert frechet_distance_of_samples(first, second) == pytest.approx(plain, rel=1e-7)


def test_bad_input_says_what_is_expected() -> None:
    statistics = GaussianStatistics.empty(3)
    with pytest.raises(ValueError, match=r"expected \[N, 3\]"):
        statistics.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN"):
        statistics.update(np.array([[0.0, np.nan, 0.0]]))
    statistics.update(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(statistics, statistics)
    with pytest.raises(ValueError, match="equal numbers"):
        frechet_distance(statistics, GaussianStatistics.empty(4))
