"""Whether an object changes its appearance as asked, where a mask cannot show it: turns a colour, spins,
flashes.
 Two clips of the same object on the same path are known: one in which it only moves (``still``), one in which
it also changes as asked (``changed``). Per pixel, their difference is the change that was asked. The score of
a video is how much of that change it shows, by least squares over the pixels where the object is visible:

    score = <video - still, changed - still> / |changed - still|^2
 0 = it only moves, 1 = it changes just as asked; the boundary at 1/2 is the same as asking which of the two
clips the video is closer to (Euclidean, in RGB). Only what changes over time is compared: a constant shift of
an object's colour, which an autoencoder causes, is removed by taking the mean over frame 0 off first.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DOES_IT = 0.5
"""Least score of an object that changes as asked."""
MIN_CONTRAST = 12.0
"""Least root-mean-square difference of the two clips, units of 0..255, for a change to count as visible."""


def change_contrast(still: NDArray[np.uint8], changed: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """How visible a change is: root mean square of ``changed - still`` over ``where``, in units of 0..255.

    Args:
        still: uint8 [T, H, W, 3].
        changed: uint8 [T, H, W, 3].
        where: bool [T, H, W].

    Raises:
        ValueError: shapes that do not fit, or no True pixel.
    """
    asked = _inside(changed, where, "changed") - _inside(still, where, "still")
    return float(np.sqrt((asked**2).mean()))


def change_score(
    frames: NDArray[np.uint8], still: NDArray[np.uint8], changed: NDArray[np.uint8], where: NDArray[np.bool_]
) -> float:
    """How much of the asked change a video shows: 0 none, 1 all of it.

    Args:
        frames: the video to judge, uint8 [T, H, W, 3].
        still: uint8 [T, H, W, 3], the object only moves.
        changed: uint8 [T, H, W, 3], the object also changes as asked.
        where: bool [T, H, W], where the object is visible; frame 0 included.

    Raises:
        ValueError: shapes that do not fit, no True pixel, or two clips that do not differ there.
    """
    asked = _inside(changed, where, "changed") - _inside(still, where, "still")
    seen = _inside(frames, where, "frames") - _inside(still, where, "still")
    weight = float((asked**2).sum())
    if weight == 0:
        raise ValueError(
            "still and changed are equal where the object is visible; there is no change to look for."
        )
    first = int(np.count_nonzero(where[0]))
    if first:  # `where` selects frame by frame: its first pixels are those of frame 0
        seen = seen - (seen[:first] - asked[:first]).mean(axis=0)
    return float((seen * asked).sum() / weight)


def _inside(clip: NDArray[np.uint8], where: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    if clip.dtype != np.uint8 or clip.shape != (*where.shape, 3) or where.dtype != bool or where.ndim != 3:
        raise ValueError(
            f"{name} is {clip.dtype} {list(clip.shape)} and where {where.dtype} {list(where.shape)};"
            " expected uint8 [T, H, W, 3] and bool [T, H, W]."
        )
    if not where.any():
        raise ValueError("where has no True pixel; the object is never visible.")
    return clip[where].astype(np.float64)
