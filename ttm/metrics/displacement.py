"""How far and which way objects move: centroids of id clips, and whether an object moves as asked.

Letters: T frames, H W pixels. Coordinates are (x, y) in pixels, y down. Ids: 0 = background, 1.. = objects.

The rules, for one object with masks that are known to be true and masks to judge:

- The start is frame 0. The end is the last frame in which the true mask has at least ``END_AREA`` of its area
  in frame 0, so that a sliver left by an occlusion is not taken for a place.
- *left, right, up, down*: right when the displacement from start to end points within 45 degrees of the asked
  direction and is at least half as long as the true one.
- *stays*: right when, in every frame in which the true mask shows (``END_AREA`` again), the centroid has
  moved less than 5% of the longer side from the start, the movement of the true centroid (which an occlusion
  causes) taken off.
- *grows, shrinks*: right when the area changes in the true sense, by at least half of the true change on a
  log scale.
- *circles, bounces*: right when the centroid goes at least half as far from the start as the true one, and
  ends within half of its own greatest distance.
- An object whose judged mask is empty at the start or at the end is lost: not right, whatever was asked.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIZE_CHANGES = ("grows", "shrinks")
RETURNS = ("circles", "bounces")
MOTIONS = (*DIRECTIONS, "stays", *SIZE_CHANGES, *RETURNS)

MAX_ANGLE = 45.0
"""Degrees between the asked direction and the displacement."""
MIN_SHARE = 0.5
"""Of the true displacement, area change or distance."""
STAYS_WITHIN = 0.05
"""Of the frame's longer side."""
END_AREA = 0.25
"""Of the true area in frame 0: what a frame must show of the object to count."""


@dataclass(frozen=True)
class MotionCheck:
    """How one object moved, against what was asked.

    Attributes:
        motion: what was asked, one of ``MOTIONS``.
        right: whether it did, by the rule of this motion.
        lost: its judged mask is empty at the start or at the end.
        angle: degrees between the asked direction and the displacement; None where none is asked or nothing
            moved.
        share: the quantity that is held against ``MIN_SHARE``: displacement, log area change or reach, over
            the true one. For "stays": the greatest distance, over the longer side. None when lost.
    """

    motion: str
    right: bool
    lost: bool
    angle: float | None
    share: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def centroids(ids: ArrayLike, object_id: int) -> NDArray[np.float64]:
    """Mean place of an object in every frame.

    Args:
        ids: integer ids [T, H, W].
        object_id: the object.

    Returns:
        float64 [T, 2], (x, y) in pixels; NaN where it is not visible.

    Raises:
        ValueError: ids are not [T, H, W].
    """
    mask = _clip(ids, "ids") == object_id
    area = np.count_nonzero(mask, axis=(1, 2)).astype(np.float64)
    area[area == 0] = np.nan
    x = (mask.sum(axis=1) * np.arange(mask.shape[2])).sum(axis=1)
    y = (mask.sum(axis=2) * np.arange(mask.shape[1])).sum(axis=1)
    return np.stack([x / area, y / area], axis=1)


def check_motion(prediction: ArrayLike, truth: ArrayLike, object_id: int, motion: str) -> MotionCheck:
    """Judge how an object moves in ``prediction``, by the rules at the head of this file.

    Args:
        prediction: ids to judge, [T, H, W].
        truth: true ids, the same shape; the object is visible in frame 0.
        object_id: the object.
        motion: what was asked, one of ``MOTIONS``.

    Raises:
        ValueError: an unknown motion, unequal shapes, or an object that frame 0 of the truth does not show.
    """
    if motion not in MOTIONS:
        raise ValueError(f"motion is {motion!r}; expected one of {MOTIONS}.")
    judged, true = _clip(prediction, "prediction"), _clip(truth, "truth")
    if judged.shape != true.shape:
        raise ValueError(f"prediction has shape {list(judged.shape)}, truth {list(true.shape)}; expected equal shapes.")
    true_area = np.count_nonzero(true == object_id, axis=(1, 2))
    if true_area[0] == 0:
        raise ValueError(f"Frame 0 of the truth does not show object {object_id}; there is no start to measure from.")
    shown = np.flatnonzero(true_area >= END_AREA * true_area[0])
    end = int(shown[-1])
    area = np.count_nonzero(judged == object_id, axis=(1, 2))
    if area[0] == 0 or area[end] == 0:
        return MotionCheck(motion, right=False, lost=True, angle=None, share=None)
    moved = centroids(judged, object_id)
    moved -= moved[0]
    true_moved = centroids(true, object_id)
    true_moved -= true_moved[0]
    if motion in DIRECTIONS:
        return _direction(motion, moved[end], true_moved[end])
    if motion in SIZE_CHANGES:
        share = math.log(area[end] / area[0]) / math.log(_safe_ratio(true_area[end] / true_area[0], motion))
        return MotionCheck(motion, right=share >= MIN_SHARE, lost=False, angle=None, share=share)
    if motion in RETURNS:
        return _return(motion, moved[shown], true_moved[shown])
    distance = np.hypot(*(moved[shown] - true_moved[shown]).T)
    missing = bool(np.isnan(distance).any())
    reach = float(np.nanmax(distance)) / max(true.shape[1:])
    return MotionCheck(motion, right=not missing and reach < STAYS_WITHIN, lost=missing, angle=None, share=reach)


def check_heading(ids: ArrayLike, object_id: int, motion: str, min_distance: float = 0.1) -> MotionCheck:
    """Judge a direction where no true movement is known: within 45 degrees, and far enough.

    Args:
        ids: ids to judge, [T, H, W].
        object_id: the object.
        motion: "left", "right", "up", "down", or "stays" (under 5% of the longer side at the end).
        min_distance: shortest displacement between the first and the last frame that counts as moving, as a
            fraction of the longer side. ``share`` is the displacement over that distance.

    Raises:
        ValueError: another motion, or ids that are not [T, H, W].
    """
    if motion not in DIRECTIONS and motion != "stays":
        raise ValueError(f"motion is {motion!r}; expected one of {(*DIRECTIONS, 'stays')}.")
    clip = _clip(ids, "ids")
    places = centroids(clip, object_id)
    moved = places[-1] - places[0]
    if np.isnan(moved).any():
        return MotionCheck(motion, right=False, lost=True, angle=None, share=None)
    side = max(clip.shape[1:])
    if motion == "stays":
        reach = float(np.hypot(*moved)) / side
        return MotionCheck(motion, right=reach < STAYS_WITHIN, lost=False, angle=None, share=reach)
    angle, share = _angle(motion, moved), float(np.hypot(*moved)) / (min_distance * side)
    return MotionCheck(motion, right=angle is not None and angle <= MAX_ANGLE and share >= 1, lost=False,
                       angle=angle, share=share)  # fmt: skip


def _direction(motion: str, moved: NDArray[np.float64], true_moved: NDArray[np.float64]) -> MotionCheck:
    share = float(np.hypot(*moved)) / max(float(np.hypot(*true_moved)), 1e-9)
    angle = _angle(motion, moved)
    right = angle is not None and angle <= MAX_ANGLE and share >= MIN_SHARE
    return MotionCheck(motion, right=right, lost=False, angle=angle, share=share)


def _return(motion: str, moved: NDArray[np.float64], true_moved: NDArray[np.float64]) -> MotionCheck:
    distance, true_distance = np.hypot(*moved.T), np.hypot(*true_moved.T)
    reach = float(np.nanmax(distance))
    share = reach / max(float(true_distance.max()), 1e-9)
    back = float(distance[-1]) <= 0.5 * reach
    return MotionCheck(motion, right=share >= MIN_SHARE and back, lost=False, angle=None, share=share)


def _angle(motion: str, moved: NDArray[np.float64]) -> float | None:
    length = float(np.hypot(*moved))
    if length < 1e-9:
        return None
    cosine = float(moved @ np.array(DIRECTIONS[motion], np.float64)) / length
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _safe_ratio(ratio: float, motion: str) -> float:
    """The true change of area, kept off 1 (an occlusion can cancel it) and on the asked side of it."""
    return max(ratio, 1.05) if motion == "grows" else min(ratio, 1 / 1.05)


def _clip(ids: ArrayLike, name: str) -> NDArray[np.integer]:
    array = np.asarray(ids)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; expected integer ids [T, H, W].")
    return array
