"""Trajectories with the mistakes that stage 1 makes, for stage 2 to learn from.

Corruption happens on pixels, before the encoder, because the palette latents and the coverage must tell the same
story; with cached latents that means one more encoded clip a variant (``data.corrupted_variants``), drawn once and
then chosen per sample (``stage.corrupted``).

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.settings import CorruptionSettings


def corrupt_ids(ids: NDArray[np.uint8], settings: CorruptionSettings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Spoil a trajectory as a generated one is spoiled.

    Every object grows or shrinks by one amount for the whole clip, is shifted by another small amount in each
    frame, and may be missing from one frame. Frame 0 is never shifted and never loses an object, since at inference
    it comes from the segmenter; an object that shrinking would remove from a frame keeps its true pixels there.

    Args:
        ids: uint8 [T, H, W], 0 = background.
        settings: how far; all zeros return the ids as they are.
        rng: the draws.

    Returns:
        uint8 [T, H, W].
    """
    spoiled = np.zeros_like(ids)
    for number in (int(value) for value in np.unique(ids) if value):
        size = int(rng.integers(-settings.erode, settings.dilate + 1))
        missing = int(rng.integers(1, len(ids))) if len(ids) > 1 and rng.random() < settings.drop_frame else -1
        shifts = rng.integers(-settings.jitter, settings.jitter + 1, size=(len(ids), 2))
        shifts[0] = 0
        for t, frame in enumerate(ids):
            if t != missing:
                mask = _shift(_resize(frame == number, size), shifts[t])
                spoiled[t][mask] = number
    return spoiled


def _resize(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    if size == 0 or not mask.any():
        return mask
    side = 2 * abs(size) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    operation = cv2.dilate if size > 0 else cv2.erode
    resized = operation(mask.astype(np.uint8), kernel).astype(bool)
    return resized if resized.any() else mask


def _shift(mask: NDArray[np.bool_], offset: NDArray[np.int64]) -> NDArray[np.bool_]:
    dy, dx = int(offset[0]), int(offset[1])
    if dy == dx == 0:
        return mask
    height, width = mask.shape
    shifted = np.zeros_like(mask)
    shifted[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = mask[
        max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)
    ]
    return shifted if shifted.any() else mask
