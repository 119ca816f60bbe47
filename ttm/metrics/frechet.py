"""The Fréchet distance between two Gaussians, in float64, and the statistics that it needs, streamed.

Letters: N samples, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class GaussianStatistics:
    """Mean and covariance of samples that come in batches (Chan, Golub, LeVeque 1979), without keeping any.

    Attributes:
        count: N so far.
        mean: float64 [D].
        scatter: float64 [D, D], the sum of outer products of the deviations from the mean.
    """

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def empty(cls, num_features: int) -> GaussianStatistics:
        """Of no samples."""
        return cls(0, np.zeros(num_features), np.zeros((num_features, num_features)))

    @classmethod
    def of(cls, samples: NDArray[np.floating[Any]], repeats: NDArray[np.int64] | None = None) -> GaussianStatistics:
        """Of samples [N, D]; ``repeats`` [N] counts each of them that many times."""
        times = np.ones(len(samples)) if repeats is None else repeats.astype(np.float64)
        values = samples.astype(np.float64)
        mean = times @ values / times.sum()
        deviations = values - mean
        return cls(int(times.sum()), mean, (deviations * times[:, None]).T @ deviations)

    def update(self, samples: NDArray[np.floating[Any]]) -> None:
        """Take a batch [N, D].

        Raises:
            ValueError: another number of features, or values that are not finite.
        """
        if samples.ndim != 2 or samples.shape[1] != len(self.mean):
            raise ValueError(f"samples has shape {list(samples.shape)}; expected [N, {len(self.mean)}].")
        if not np.isfinite(samples).all():
            raise ValueError("samples holds NaN or infinity; expected finite features.")
        if len(samples) == 0:
            return
        batch = GaussianStatistics.of(samples)
        total = self.count + batch.count
        step = batch.mean - self.mean
        self.scatter = self.scatter + batch.scatter + np.outer(step, step) * (self.count * batch.count / total)
        self.mean = self.mean + step * (batch.count / total)
        self.count = total

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Float64 [D, D], divided by N - 1.

        Raises:
            ValueError: fewer than two samples.
        """
        if self.count < 2:
            raise ValueError(f"There are {self.count} samples; expected at least 2 for a covariance.")
        return self.scatter / (self.count - 1)


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """``|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)`` (Dowson and Landau 1982, Eq. 16).

    The last trace is the sum of the singular values of ``C1^(1/2) C2^(1/2)``: real and stable also where the
    covariances are rank-deficient, for which a general matrix square root is neither.

    Raises:
        ValueError: different numbers of features, or fewer than two samples in either.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"There are {len(first.mean)} and {len(second.mean)} features; expected equal numbers.")
    one, other = first.covariance, second.covariance
    shared = np.linalg.svd(_square_root(one) @ _square_root(other), compute_uv=False).sum()
    distance = np.sum((first.mean - second.mean) ** 2) + np.trace(one) + np.trace(other) - 2 * shared
    return max(0.0, float(distance))


def frechet_distance_of_samples(
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    first_repeats: NDArray[np.int64] | None = None,
    second_repeats: NDArray[np.int64] | None = None,
) -> float:
    """:func:`frechet_distance` of two sets at hand, [N, D] and [M, D], each sample counted ``repeats`` times.

    With covariances ``A^T A`` and ``B^T B`` the last trace is the sum of the singular values of ``A B^T``, an N x M
    matrix: far less work than D x D where the sets are small.
    """
    if len(first) * len(second) > first.shape[1] ** 2:
        return frechet_distance(
            GaussianStatistics.of(first, first_repeats), GaussianStatistics.of(second, second_repeats)
        )
    mean, rows = _factor(first, first_repeats)
    other_mean, other_rows = _factor(second, second_repeats)
    shared = np.linalg.svd(rows @ other_rows.T, compute_uv=False).sum()
    distance = np.sum((mean - other_mean) ** 2) + np.sum(rows**2) + np.sum(other_rows**2) - 2 * shared
    return max(0.0, float(distance))


def _factor(
    samples: NDArray[np.floating[Any]], repeats: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean [D], and rows [N, D] whose outer products sum to the covariance."""
    times = np.ones(len(samples)) if repeats is None else repeats.astype(np.float64)
    values = samples.astype(np.float64)
    mean = times @ values / times.sum()
    return mean, (values - mean) * np.sqrt(times / (times.sum() - 1))[:, None]


def _square_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a symmetric positive semi-definite matrix; eigenvalues below rounding error count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    floor = max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float64).eps
    return (vectors * np.sqrt(np.where(values > floor, values, 0.0))) @ vectors.T
