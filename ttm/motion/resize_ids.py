"""Images of object ids at another size, without losing an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ttm.objects import MAX_OBJECTS


def resize_ids(ids: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an image of ids by the nearest pixel; the aspect ratio is not kept.

    Every sample is taken at the centre of its pixel. An object too small to be hit by any sample keeps one
    pixel, as long as it covers a place that is not another object's last one: an object lost here could not
    be moved at all.

    Args:
        ids: uint8 [H, W], values 0..MAX_OBJECTS.
        height: new H, at least 1.
        width: new W, at least 1.

    Returns:
        uint8 [height, width].
    """
    rows = _nearest(ids.shape[0], height)
    columns = _nearest(ids.shape[1], width)
    resized = ids[rows[:, None], columns[None, :]]
    if height < ids.shape[0] or width < ids.shape[1]:
        _restore_lost(ids, resized)
    return resized


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """For each of ``new`` samples the index, of ``old``, of the pixel that its centre falls into."""
    return ((2 * np.arange(new) + 1) * old) // (2 * new)


def _restore_lost(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Give every id of ``source`` [H, W] that is missing from ``target`` [h, w] one pixel of it, in place."""
    counts = np.bincount(target.ravel(), minlength=MAX_OBJECTS + 1)
    visible = np.bincount(source.ravel(), minlength=MAX_OBJECTS + 1) > 0
    for number in np.flatnonzero(visible & (counts == 0)):
        if number == 0:
            continue
        places = np.argwhere(source == number)
        # From the middle outwards, at the first pixel that does not take the last one of another object.
        order = ((places - places.mean(axis=0)) ** 2).sum(axis=1).argsort(kind="stable")
        cells = places[order] * np.array(target.shape) // np.array(source.shape)
        for row, column in cells:
            owner = target[row, column]
            if owner == 0 or counts[owner] > 1:
                counts[owner] -= 1
                counts[number] += 1
                target[row, column] = number
                break
