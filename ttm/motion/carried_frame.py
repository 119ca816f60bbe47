"""The first frame carried along a mask trajectory: a guess at the video that knows no model.

Every object takes its look from frame 0 to where its mask is, moved with the mask's centre and scaled with the root of
its area; behind it lies the ground of frame 0, inpainted where an object was (Telea 2004). It does not turn, bend or
change colour, and light stays as it was. A model that is shown it has that to change, and need not carry the look of an
object from one place of its latent grid to another, half a cell further.

Neither paper has this. Letters: T frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Pixels = NDArray[np.uint8]
_NEAR = np.ones((3, 3), np.uint8)
_AROUND = np.ones((5, 5), np.uint8)
_INPAINT_RADIUS = 3


def carry_first_frame(frame: Pixels, ids: NDArray[np.uint8]) -> Pixels:
    """Move the objects of a picture as their masks move.

    Args:
        frame: the picture, uint8 [H, W, 3].
        ids: a trajectory, uint8 [T, H, W], 0 = background; ``ids[0]`` says where the picture's objects are. An object
            that is not there has no look, and is left out.

    Returns:
        uint8 [T, H, W, 3]; frame 0 is the picture itself.

    Raises:
        ValueError: the shapes don't belong together.
    """
    if ids.ndim != 3 or not len(ids) or frame.shape != (*ids.shape[1:], 3):
        raise ValueError(
            f"The picture is {list(frame.shape)}, the trajectory {list(ids.shape)}; expected [H, W, 3] and [T, H, W]."
        )
    looks = {int(number): _Look.of(frame, ids[0] == number) for number in np.unique(ids[0]) if number}
    ground = cv2.inpaint(frame, cv2.dilate((ids[0] > 0).astype(np.uint8), _AROUND), _INPAINT_RADIUS, cv2.INPAINT_TELEA)
    carried = [frame]
    for now in ids[1:]:
        picture = ground.copy()
        for number, look in looks.items():
            if (mask := now == number).any():
                picture[mask] = look.at(mask)[mask]
        carried.append(picture)
    return np.stack(carried)


@dataclass(frozen=True)
class _Look:
    """How an object looks: its pixels, each place outside it like the nearest inside, its centre and its area."""

    picture: Pixels
    centre: NDArray[np.float64]
    area: int

    @classmethod
    def of(cls, frame: Pixels, mask: NDArray[np.bool_]) -> _Look:
        """Of what ``mask`` [H, W] covers in a frame; its rim, where the ground shines through, counts as outside."""
        inner = cv2.erode(mask.astype(np.uint8), _NEAR).astype(bool)
        nearest = distance_transform_edt(~(inner if inner.any() else mask), return_distances=False, return_indices=True)
        return cls(frame[tuple(nearest)], _centre(mask), int(mask.sum()))

    def at(self, mask: NDArray[np.bool_]) -> Pixels:
        """The picture moved and scaled to another mask, [H, W, 3]."""
        scale = np.sqrt(mask.sum() / self.area)
        shift = _centre(mask) - scale * self.centre
        moved = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
        size = self.picture.shape[1::-1]
        return cv2.warpAffine(self.picture, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(x, y), pixels."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])
