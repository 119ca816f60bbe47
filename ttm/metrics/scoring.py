"""What every metric of videos shares: the sample that it takes, the figure that it gives, and the mean over videos.

A metric is fed batches of samples in any number (:meth:`Metric.add`), keeps a few numbers of each, and gives one
:class:`Figure` at the end. What can't be scored comes back as a :class:`Problem` in that sample's place and stays
out of the figure, whose N says how many videos it is made of.

Letters: T frames, H W pixels, N videos.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ttm.metrics.bootstrap import Interval, interval_of_mean

Need = Literal["video", "reference", "prompt", "ids"]
Direction = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames uint8 [T, H, W, 3], RGB, and how many of them make a second.

    Raises:
        ValueError: another shape or dtype, or an empty axis.
    """

    frames: NDArray[np.uint8]
    fps: float

    def __post_init__(self) -> None:
        array = self.frames
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
            raise ValueError(f"frames is {array.dtype} {list(array.shape)}; expected uint8 [T, H, W, 3], not empty.")

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    @cached_property
    def digest(self) -> str:
        """A hash of the frames and their shape, by which features are kept."""
        frames = np.ascontiguousarray(self.frames)
        return hashlib.blake2b(frames.data, person=b"ttm-clip", salt=_shape_salt(frames.shape)).hexdigest()


def _shape_salt(shape: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(repr(shape).encode(), digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class Sample:
    """One video to score and what is known of it; which of these a metric needs, its ``needs`` say.

    Attributes:
        name: of the video, unique in a run.
        video: the video to score; None for a reference that only a set of references needs.
        reference: the real video.
        prompt: the text that the video should show.
        ids: integers [T, H, W], the trajectory that the video should follow, 0 = background.
    """

    name: str
    video: Clip | None = None
    reference: Clip | None = None
    prompt: str | None = None
    ids: NDArray[np.integer[Any]] | None = None


@dataclass(frozen=True)
class Problem:
    """Why a video has no value."""

    reason: str


Score = float | Problem | None
"""A video's value; or why it has none; or None where a metric is of the whole set, not of one video."""


@dataclass(frozen=True)
class Figure:
    """One number about a set of videos, and all that is needed to say what it means.

    Attributes:
        metric: the column's name.
        value: None where too few videos could be scored.
        num_videos: N, the videos that the value is made of.
        interval: a 95% bootstrap interval; None below two videos.
        better: whether higher or lower is better, or neither.
        convention: every choice that the value depends on.
        weights: the features' weights, by source and hash; empty where none are used.
        warnings: what a reader must know before comparing the value.
    """

    metric: str
    value: float | None
    num_videos: int
    interval: Interval | None
    better: Direction
    convention: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Metric(Protocol):
    """What the evaluation asks of a metric."""

    name: str
    needs: frozenset[Need]

    def add(self, samples: Sequence[Sample]) -> list[Score]:
        """Take a batch; one score a sample, in order."""
        ...

    def figure(self) -> Figure:
        """The number of all samples so far."""
        ...


class MeanOverVideos(ABC):
    """A metric that gives every video a value; its figure is their mean.

    A subclass sets ``name`` and ``needs`` and measures; what :meth:`fault` finds wrong with a sample, and a value that
    is not finite, become problems.
    """

    name: str
    needs: frozenset[Need]
    better: Direction = "higher"

    def __init__(self) -> None:
        self._values: list[float] = []

    @abstractmethod
    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """The values of samples that have no fault."""

    @abstractmethod
    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The convention, and the weights."""

    def fault(self, sample: Sample) -> str | None:
        """Why this sample can't be measured; None if it can."""
        return None

    def warnings(self) -> tuple[str, ...]:
        """What a reader must know."""
        return ()

    def add(self, samples: Sequence[Sample]) -> list[Score]:
        """Take a batch; see :class:`Metric`."""
        scores: list[Score] = [_problem(missing(sample, self.needs) or self.fault(sample)) for sample in samples]
        ready = [place for place, score in enumerate(scores) if score is None]
        measured = self.measure([samples[place] for place in ready]) if ready else []
        for place, value in zip(ready, measured, strict=True):
            scores[place] = _finite(value)
            if isinstance(scores[place], float):
                self._values.append(float(value))  # type: ignore[arg-type]
        return scores

    def figure(self) -> Figure:
        """Mean and bootstrap interval of the values so far."""
        values = np.asarray(self._values, np.float64)
        convention, weights = self.describe()
        return Figure(
            self.name,
            float(values.mean()) if len(values) else None,
            len(values),
            interval_of_mean(values),
            self.better,
            {**convention, "over videos": "mean", "interval": "percentile bootstrap over videos, 95%"},
            weights,
            self.warnings(),
        )


def missing(sample: Sample, needs: frozenset[Need]) -> str | None:
    """What a sample lacks of what a metric needs; None if nothing."""
    lacking = sorted(need for need in needs if getattr(sample, need) is None)
    return f"it has no {' and no '.join(lacking)}" if lacking else None


def form_difference(video: Clip, reference: Clip) -> str | None:
    """How a video differs from its reference in length, size or frame rate; None if it does not."""
    for what, mine, other in (
        ("frames", video.num_frames, reference.num_frames),
        ("size", "{} x {}".format(*video.size), "{} x {}".format(*reference.size)),
        ("frames a second", f"{video.fps:.4g}", f"{reference.fps:.4g}"),
    ):
        if mine != other:
            return f"{what}: the video has {mine}, its reference {other}"
    return None


def _problem(reason: str | None) -> Problem | None:
    return None if reason is None else Problem(reason)


def _finite(value: float | Problem) -> float | Problem:
    if isinstance(value, Problem):
        return value
    return float(value) if math.isfinite(value) else Problem(f"the value is {value}: the features are not finite")
