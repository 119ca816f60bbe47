"""Peak signal-to-noise ratio of images and clips of 8-bit values.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

PEAK = 255.0
"""Largest value of a uint8 pixel."""


def psnr(image: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(255^2 / MSE)``.

    One mean squared error over everything that is compared: over a clip, that is one MSE over all its frames
    (which is lower than, or equal to, the mean of the frames' own ratios).

    Args:
        image: uint8 [..., H, W, 3].
        reference: uint8, the same shape.
        mask: bool [..., H, W]: compare only where it is True. None: everywhere.

    Returns:
        dB; ``inf`` for equal pixels.

    Raises:
        ValueError: other dtypes, unequal shapes, or a mask with no True pixel.
    """
    first, second = _pixels(image, "image"), _pixels(reference, "reference")
    if first.shape != second.shape:
        raise ValueError(f"image has shape {list(first.shape)}, reference {list(second.shape)}; expected equal shapes.")
    error = (first.astype(np.float32) - second.astype(np.float32)) ** 2
    if mask is not None:
        where = np.asarray(mask)
        if where.dtype != bool or where.shape != first.shape[:-1]:
            expected = list(first.shape[:-1])
            raise ValueError(f"mask is {where.dtype} {list(where.shape)}; expected bool {expected}.")
        if not where.any():
            raise ValueError("mask has no True pixel; there is nothing to compare.")
        error = error[where]
    mean = float(error.mean(dtype=np.float64))
    return math.inf if mean == 0 else 10 * math.log10(PEAK**2 / mean)


def _pixels(values: ArrayLike, name: str) -> NDArray[np.uint8]:
    array = np.asarray(values)
    if array.dtype != np.uint8 or array.ndim < 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; expected uint8 [..., H, W, 3].")
    return array
