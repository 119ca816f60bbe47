"""Whether an object changes its appearance as asked where a mask can't show it: turns a colour, spins, flashes.

Three clips of the same place are known: the object only moves (``still``), it also changes as asked
(``changed``), it is not there (``absent``; so that a video which leaves the object behind does not pass by the
chance colours of the background). Every pixel of the region where the object should be visible votes, in every
frame, for the clip whose colour it is closest to (Euclidean, in RGB), with a weight that says how visible the
change is there: the distance between ``changed`` and ``still``. The object does it when ``changed`` gets at least
half of the votes.

The clips are alike in frame 0, and only what changes over time is compared: a constant shift of an object's
colour, which an autoencoder causes, is taken off first (the mean difference from ``still`` in frame 0).

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DOES_IT = 0.5
"""Least share of the votes of an object that changes as asked."""
MIN_CONTRAST = 12.0
"""Least root-mean-square difference of the two clips, units of 0..255, for a change to count as visible."""


def changed_share(
    frames: NDArray[np.uint8],
    still: NDArray[np.uint8],
    changed: NDArray[np.uint8],
    absent: NDArray[np.uint8],
    where: NDArray[np.bool_],
) -> float:
    """The share, 0 to 1, of the votes that say the object changes as asked (the rule stands above).

    Args:
        frames: the video to judge, uint8 [T, H, W, 3].
        still: uint8 [T, H, W, 3], the object only moves.
        changed: uint8 [T, H, W, 3], the object also changes as asked.
        absent: uint8 [T, H, W, 3], the object is not there.
        where: bool [T, H, W], where the object is visible.

    Raises:
        ValueError: shapes that do not fit, no True pixel, or a change that nothing shows.
    """
    unchanged, asked = _inside(still, where, "still"), _inside(changed, where, "changed")
    weight = np.linalg.norm(asked - unchanged, axis=-1)
    if not weight.any():
        raise ValueError("still and changed are equal where the object is visible; there is no change to see.")
    video = _inside(frames, where, "frames")
    first = int(np.count_nonzero(where[0]))  # ``where`` selects frame by frame: its first pixels are frame 0's
    if first:
        video = video - (video - unchanged)[:first].mean(axis=0)
    known = np.stack([asked, unchanged, _inside(absent, where, "absent")])
    nearest = ((video - known) ** 2).sum(axis=-1).argmin(axis=0)
    return float(weight[nearest == 0].sum() / weight.sum())


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


def _inside(clip: NDArray[np.uint8], where: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    if clip.dtype != np.uint8 or clip.shape != (*where.shape, 3) or where.dtype != bool or where.ndim != 3:
        raise ValueError(
            f"{name} is {clip.dtype} {list(clip.shape)} and where {where.dtype} {list(where.shape)};"
            " expected uint8 [T, H, W, 3] and bool [T, H, W]."
        )
    if not where.any():
        raise ValueError("where has no True pixel; the object is never visible.")
    return clip[where].astype(np.float64)
