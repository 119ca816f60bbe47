"""Optical flow as a motion between the stages: how far every pixel moves to the next frame, and its picture.

Letters: T frames, H W pixels.

The picture of a flow, one RGB picture a frame. Let f = (x, y) be a pixel's motion to the next frame, in pixels, x to
the right and y down, and m = MOST * min(H, W) the longest motion that can be told. Then, in HSV,

    hue        atan2(y, x) / 2 pi, so that red is right, and green-yellow, cyan and violet are down, left and up
    saturation sqrt(min(|f| / m, 1)): the root leaves room for slow motions, of which there are most
    value      1: what rests is white

and back: |f| = m * saturation^2, the direction by the hue. Picture t shows the motion from frame t to t + 1, at the
places of frame t; the last frame, which has no next, repeats the picture before it, and is left out when read.
In 8 bits a motion of saturation s comes back to within 0.01 * s * m pixels. A blurred picture mixes a colour with white
and so shortens the motion and keeps its direction. Through-The-Mask compares with optical flow (Table 4) and does not
state how it is shown; this is the usual colour wheel, with a scale that does not depend on the clip.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttm.motion.mask_trajectory import MaskTrajectory

Flow = NDArray[np.float32]
MOST = 0.125
"""The longest motion from frame to frame that a picture tells, as a share of the shorter side; longer ones are cut."""
_REACH = 1.5
"""Gaps up to twice so wide, in pixels, are closed between carried points: they drift apart where an object grows."""


def flow_to_video(flow: ArrayLike) -> NDArray[np.uint8]:
    """The pictures of a flow.

    Args:
        flow: float [T - 1, H, W, 2], (x, y) in pixels to the next frame; T at least 2.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    moves = check_flow(flow)
    most = MOST * min(moves.shape[1:3])
    x, y = moves[..., 0], moves[..., 1]
    saturation = np.sqrt(np.clip(np.hypot(x, y) / most, 0, 1))
    sextant = np.arctan2(y, x) * (3 / np.pi)  # hue in 0..6
    # RGB of HSV with value 1: a channel is 1 - saturation * how far the hue is from the channel's own.
    places = np.stack([(n + sextant) % 6 for n in (5, 3, 1)], axis=-1)
    away = np.clip(np.minimum(places, 4 - places), 0, 1)
    pictures = (255 * (1 - saturation[..., None] * away)).round().astype(np.uint8)
    return np.concatenate([pictures, pictures[-1:]])


def flow_from_video(frames: ArrayLike) -> Flow:
    """The inverse of :func:`flow_to_video`, also for pictures that an autoencoder blurred or darkened.

    Args:
        frames: uint8 [T, H, W, 3], T at least 2.

    Returns:
        float32 [T - 1, H, W, 2], (x, y) in pixels.

    Raises:
        ValueError: another shape or dtype.
    """
    pictures = np.asarray(frames)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or len(pictures) < 2:
        raise ValueError(f"frames is {pictures.dtype} {list(pictures.shape)}; expected uint8 [T, H, W, 3], T from 2.")
    red, green, blue = np.moveaxis(pictures[:-1].astype(np.float32), -1, 0)
    top = np.maximum(np.maximum(red, green), blue)
    spread = top - np.minimum(np.minimum(red, green), blue)
    safe = np.maximum(spread, 1e-6)
    sextant = np.select(
        [top == red, top == green], [(green - blue) / safe, 2 + (blue - red) / safe], 4 + (red - green) / safe
    )
    length = (spread / np.maximum(top, 1)) ** 2 * (MOST * min(pictures.shape[1:3]))
    angle = sextant * (np.pi / 3)
    return np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1).astype(np.float32)


def carry_ids(first_ids: NDArray[np.uint8], flow: ArrayLike) -> NDArray[np.uint8]:
    """First-frame ids carried along a flow: the masks that a flow implies.

    Every pixel of an object is a point that moves by the flow at the place it has reached, or by the longest flow of a
    neighbouring pixel: at the rim of an object a flow is mixed with that of what rests behind. In each frame the
    object is its points, with the gaps between them closed; of two objects the one of the higher id is in front.

    Args:
        first_ids: uint8 [H, W].
        flow: float [T - 1, H, W, 2].

    Returns:
        uint8 [T, H, W]; frame 0 is ``first_ids``.

    Raises:
        ValueError: shapes that don't fit.
    """
    moves = check_flow(flow)
    if first_ids.shape != moves.shape[1:3]:
        raise ValueError(f"first_ids has shape {list(first_ids.shape)}; expected {list(moves.shape[1:3])}.")
    carried = np.zeros((len(moves) + 1, *first_ids.shape), np.uint8)
    carried[0] = first_ids
    moves = np.stack([_longest_nearby(move) for move in moves])
    for number in (int(value) for value in np.unique(first_ids) if value):
        rows, columns = np.nonzero(first_ids == number)
        points = np.stack([columns, rows], axis=-1).astype(np.float32)
        for t, move in enumerate(moves, start=1):
            points = points + _at(move, points)
            carried[t][_filled(points, first_ids.shape)] = number
    return carried


def _at(move: Flow, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The flow [H, W, 2] at points [N, 2] (x, y), bilinear; beyond the frame that of its edge."""
    side = math.ceil(math.sqrt(len(points)))  # OpenCV takes maps of fewer than 32767 rows and columns
    folded = np.zeros((side * side, 2), np.float32)
    folded[: len(points)] = points
    x, y = (np.ascontiguousarray(folded[:, n].reshape(side, side)) for n in (0, 1))
    found = cv2.remap(move, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(-1, 2)[: len(points)]


def _longest_nearby(move: Flow) -> Flow:
    """Of each pixel and its eight neighbours the longest flow, [H, W, 2]."""
    padded = np.pad(move, ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = move.shape[:2]
    near = np.stack([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])
    longest = np.hypot(near[..., 0], near[..., 1]).argmax(axis=0)
    return np.take_along_axis(near, longest[None, ..., None], axis=0)[0]


def _filled(points: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels of a frame [H, W] that points [N, 2] cover, their gaps closed: grown by the reach, then shrunk."""
    columns, rows = points.round().astype(np.int64).T
    inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
    free = np.ones(size, np.uint8)
    free[rows[inside], columns[inside]] = 0
    if free.all():
        return np.zeros(size, bool)
    grown = (_distance(free) < _REACH).astype(np.uint8)
    return _distance(grown) >= _REACH if not grown.all() else np.ones(size, bool)


def _distance(places: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of every pixel to the nearest one that is 0."""
    return np.asarray(cv2.distanceTransform(places, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def check_flow(flow: ArrayLike) -> Flow:
    """A flow as float32 [T - 1, H, W, 2].

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    moves = np.asarray(flow)
    if moves.ndim != 4 or moves.shape[-1] != 2 or 0 in moves.shape or moves.dtype.kind != "f":
        raise ValueError(f"flow is {moves.dtype} {list(moves.shape)}; expected float [T - 1, H, W, 2], T from 2.")
    if not np.isfinite(moves).all():
        raise ValueError("flow holds NaN or infinite values; expected pixels to the next frame.")
    return moves.astype(np.float32)


class FlowTrajectory(MaskTrajectory):
    """A trajectory that also knows how every pixel moves.

    Its ids are those that masked attention needs. Saving keeps the ids alone.

    Attributes:
        flow: float32 [T - 1, H, W, 2], (x, y) in pixels to the next frame.

    Raises:
        ValueError: a flow that does not fit the ids.
    """

    flow: Flow

    def __init__(self, ids: ArrayLike, flow: ArrayLike, fps: float = 8.0) -> None:
        super().__init__(ids, fps)
        moves = check_flow(flow)
        expected = (self.num_frames - 1, self.height, self.width)
        if moves.shape[:3] != expected:
            raise ValueError(f"flow has shape {list(moves.shape)}; expected {[*expected, 2]} for these ids.")
        object.__setattr__(self, "flow", moves)

    def resize(self, height: int, width: int) -> FlowTrajectory:
        """Another size in pixels; the flow is interpolated and its lengths change with the sides."""
        ids = super().resize(height, width).ids
        if (height, width) == (self.height, self.width):
            return self
        share = np.array([width / self.width, height / self.height], np.float32)
        moves = [cv2.resize(move, (width, height), interpolation=cv2.INTER_AREA) * share for move in self.flow]
        return FlowTrajectory(ids, np.stack(moves), self.fps)

    def resample(self, num_frames: int) -> FlowTrajectory:
        """The same number of frames.

        Raises:
            ValueError: another one: a flow says where a pixel is in the next frame, not in the one after.
        """
        if num_frames != self.num_frames:
            raise ValueError(f"num_frames is {num_frames}; expected {self.num_frames}: a flow can't be resampled.")
        return self

    def part(self, top: int, left: int, height: int, width: int) -> FlowTrajectory:
        """A rectangle of every frame, in pixels."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        return FlowTrajectory(self.ids[:, rows, columns], self.flow[:, rows, columns], self.fps)
