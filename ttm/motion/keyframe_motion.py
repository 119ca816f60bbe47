"""Between keyframes: easing, ways through several points, and the pose of an object in every frame.

Letters: T frames, K keyframes, P points of a way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline

from ttm.motion.keyframe_schema import Ease, Keyframe, MovingObject, Point, Scene

Array = NDArray[np.float64]

EASES: dict[Ease, Callable[[Array], Array]] = {
    "linear": lambda u: u,
    "ease_in": lambda u: u**2,
    "ease_out": lambda u: 1 - (1 - u) ** 2,
    "ease_in_out": lambda u: u**2 * (3 - 2 * u),
    "hold": lambda u: np.floor(u),
}
"""Share of the way done, from share of the time gone; both 0..1."""

_CURVE_STEPS = 64  # straight pieces of a smooth way between two of its points


class Pose(NamedTuple):
    """Where an object is in one frame: its centre (x, y, pixels), its scale (two axes), degrees clockwise."""

    position: tuple[float, float]
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0


@dataclass(frozen=True)
class Track:
    """One value over time: it passes through ``values`` at ``moments`` and stays before and after them.

    Attributes:
        moments: float64 [K], frames, rising.
        values: float64 [K, ...].
        eases: K; how the value goes on from each.
    """

    moments: Array
    values: Array
    eases: Sequence[Ease]

    def at(self, frames: Array) -> Array:
        """The value at moments [T]: float64 [T, ...]."""
        last = len(self.moments) - 1
        if last == 0:
            return np.repeat(self.values, len(frames), axis=0)
        piece = np.clip(np.searchsorted(self.moments, frames, side="right") - 1, 0, last - 1)
        begin, end = self.moments[piece], self.moments[piece + 1]
        gone = np.clip((frames - begin) / (end - begin), 0, 1)
        done = np.array([EASES[self.eases[k]](u) for k, u in zip(piece, gone, strict=True)])
        done = done.reshape(-1, *[1] * (self.values.ndim - 1))
        return self.values[piece] + done * (self.values[piece + 1] - self.values[piece])


@dataclass(frozen=True)
class Way:
    """A line through points, straight or curved, measured by its length.

    Attributes:
        corners: float64 [P, 2] of the straight pieces that it is walked on.
        lengths: float64 [P], from its beginning to each corner.
        marks: float64, the length at each of the points that it was made of.
    """

    corners: Array
    lengths: Array
    marks: Array

    @classmethod
    def through(cls, points: Array, smooth: bool) -> Way:
        """The way through points [P, 2].

        A smooth way is a cubic Hermite curve whose direction at each point comes from its two neighbours
        (Catmull-Rom), over the square root of the distances ("centripetal"), which makes no loops of its own.
        """
        keep = np.concatenate([[True], (np.diff(points, axis=0) != 0).any(axis=1)])
        index, distinct = np.cumsum(keep) - 1, points[keep]  # a point twice in a row is one place of the way
        corners, step = distinct, 1
        if smooth and len(distinct) > 2:
            knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(distinct, axis=0), axis=1) ** 0.5)])
            curve = CubicHermiteSpline(knots, distinct, np.gradient(distinct, knots, axis=0))
            step = _CURVE_STEPS
            positions = np.arange((len(distinct) - 1) * step + 1) / step
            corners = curve(np.interp(positions, np.arange(len(knots)), knots))
        lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
        return cls(corners, lengths, lengths[index * step])

    def at(self, length: Array) -> Array:
        """Points at lengths [T] from the beginning: float64 [T, 2]."""
        return np.stack([np.interp(length, self.lengths, self.corners[:, axis]) for axis in (0, 1)], axis=1)


def poses(scene: Scene, item: MovingObject, home: Point | None, place: str) -> list[Pose]:
    """The pose of an object in each frame.

    Args:
        scene: whose frames are meant.
        item: one of its objects.
        home: the centre of its shape where that has a place of its own on the canvas, else None.
        place: how an error names the object.

    Raises:
        ValueError: its first keyframe does not say where it is, or an offset from a place that it does not have.
    """
    frames = np.arange(scene.frames, dtype=np.float64)
    position = _positions(scene, item, home, place, frames)
    scale = _track(scene, item, "scale", (1.0, 1.0)).at(frames)
    rotation = _track(scene, item, "rotation", 0.0).at(frames)
    rows = zip(position.tolist(), scale.tolist(), rotation.tolist(), strict=True)
    return [Pose((x, y), (across, along), degrees) for (x, y), (across, along), degrees in rows]


def _track(scene: Scene, item: MovingObject, name: str, otherwise: float | tuple[float, float]) -> Track:
    """The track of one property, of the keyframes that name it; the first has ``otherwise`` if it does not."""
    named = [each for k, each in enumerate(item.keyframes) if k == 0 or getattr(each, name) is not None]
    if not named:
        return Track(np.zeros(1), np.array([otherwise]), ["hold"])
    values = [otherwise if getattr(each, name) is None else getattr(each, name) for each in named]
    return Track(np.array([scene.frame_of(each) for each in named]), np.array(values), [each.ease for each in named])


def _positions(scene: Scene, item: MovingObject, home: Point | None, place: str, frames: Array) -> Array:
    points: list[Point] = []
    moments, eases, marks = [], [], []
    for number, each in enumerate(item.keyframes or [Keyframe(frame=0)]):
        goal = each.position or each.offset
        if goal is None and number > 0:
            continue
        if goal is None and home is None:
            raise ValueError(f"{place} has no place; expected a 'position' in its first keyframe.")
        here = f"{place}.keyframes[{number}]"
        if each.offset is not None and home is None:
            raise ValueError(f"{here} has an offset, but its shape has no place of its own; expected 'position'.")
        if each.through and not points:
            raise ValueError(f"{here} has 'through', but no earlier keyframe says where the way begins.")
        origin = home if each.position is None and home is not None else (0.0, 0.0)
        points += [(origin[0] + x, origin[1] + y) for x, y in (*each.through, goal or (0.0, 0.0))]
        marks.append(len(points) - 1)
        moments.append(scene.frame_of(each))
        eases.append(each.ease)
    way = Way.through(np.array(points, np.float64), item.path == "smooth")
    return way.at(Track(np.array(moments), way.marks[marks], eases).at(frames))
