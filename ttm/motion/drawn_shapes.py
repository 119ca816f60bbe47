"""Shapes that are moved over a canvas: outlines and cut-out masks, rasterised pixel by pixel, without smoothed edges.

A pixel belongs to an outline if its centre lies inside; a centre on the very edge belongs to the shape on its right and
below, so that a rectangle of whole pixels covers exactly its area wherever it is.

Letters: H W pixels, P corners. Places: pixels from the top left corner (see keyframe_schema.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from ttm.motion.keyframe_motion import Pose
from ttm.motion.keyframe_schema import Point

_ELLIPSE_CORNERS = 256  # the outline then lies within 1e-4 of the radius
_EDGE = 1e-6  # pixels that outlines are shifted by, to settle which pixel an edge through a centre belongs to


@dataclass(frozen=True)
class Outline:
    """A polygon.

    Attributes:
        corners: float64 [P, 2], x and y from its centre.
        home: where its centre lies of its own accord; None where it has no place.
    """

    corners: NDArray[np.float64]
    home: Point | None = None

    @classmethod
    def rectangle(cls, width: float, height: float) -> Outline:
        """A rectangle around its centre."""
        return cls(np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.array([width, height]) / 2)

    @classmethod
    def ellipse(cls, width: float, height: float) -> Outline:
        """An ellipse with these diameters around its centre."""
        angles = np.arange(_ELLIPSE_CORNERS) * (2 * math.pi / _ELLIPSE_CORNERS)
        return cls(np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([width, height]) / 2)

    @classmethod
    def polygon(cls, corners: list[Point]) -> Outline:
        """A polygon where it lies; its centre is that of its area.

        Raises:
            ValueError: its corners enclose no area.
        """
        points = np.array(corners, np.float64)
        x, y = (points - points[0]).T  # from a corner, for precision
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        if abs(area := cross.sum() / 2) < _EDGE:
            raise ValueError("encloses no area; expected corners in the order of the outline")
        centre = [float((axis + np.roll(axis, -1)) @ cross) / (6 * area) for axis in (x, y)]
        home = (float(points[0, 0] + centre[0]), float(points[0, 1] + centre[1]))
        return cls(points - np.array(home), home)

    def covered(self, pose: Pose, height: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of a canvas it covers, bool [H, W]."""
        placed = self.corners @ _turn(pose).T + np.array(pose.position) - 0.5 - _EDGE  # whole numbers: pixel centres
        mask = np.zeros((height, width), bool)
        mask[polygon(placed[:, 1], placed[:, 0], mask.shape)] = True
        return mask


@dataclass(frozen=True)
class CutOut:
    """A mask that lies in a picture with the canvas's top left corner.

    Attributes:
        mask: bool [h, w], with at least one pixel.
    """

    mask: NDArray[np.bool_]

    @property
    def home(self) -> Point:
        """The centre of its area."""
        rows, columns = np.nonzero(self.mask)
        return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5

    def covered(self, pose: Pose, height: int, width: int) -> NDArray[np.bool_]:
        """Which pixels of a canvas it covers, bool [H, W]: each takes the mask's pixel that its centre falls on."""
        rows, columns = np.mgrid[:height, :width] + 0.5 + _EDGE
        from_centre = np.stack([columns, rows], axis=-1) - np.array(pose.position)
        source = np.floor(from_centre @ np.linalg.inv(_turn(pose)).T + np.array(self.home)).astype(np.int64)
        inside = ((source >= 0) & (source < self.mask.shape[::-1])).all(axis=-1)
        moved = np.zeros((height, width), bool)
        moved[inside] = self.mask[source[inside, 1], source[inside, 0]]
        return moved


def _turn(pose: Pose) -> NDArray[np.float64]:
    """Scale by the shape's own axes, then turn clockwise (y points down): float64 [2, 2]."""
    angle = math.radians(pose.rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) * np.array(pose.scale)
