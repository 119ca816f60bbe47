"""The foreground of a clip as a clip of its own, for the foreground figures of the few-shot paper's Table II.

The paper names the measure and no rule. Ours: of every frame the smallest square around the foreground, the rest of
it filled with the mean colour of CLIP's training images (which CLIP's own normalisation turns into zeros), at 224 x
224. Frames without foreground are left out.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ttm.metrics.scoring import Clip, Sample

SIDE = 224
FILL = (123, 117, 104)
"""255 times CLIP's mean colour (0.481, 0.458, 0.408)."""
RULE = f"smallest square around ids > 0, the rest {FILL}, {SIDE} x {SIDE}; frames without foreground left out"


def foreground_fault(sample: Sample, least: int) -> str | None:
    """Why the foreground of a sample can't be scored: ids of another shape, or too few frames that show it."""
    assert sample.video is not None and sample.ids is not None
    expected = sample.video.frames.shape[:3]
    if sample.ids.shape != expected:
        return f"its ids have shape {list(sample.ids.shape)}; expected {list(expected)}, as the video"
    seen = int((sample.ids > 0).any(axis=(1, 2)).sum())
    return None if seen >= least else f"{seen} frames show foreground; at least {least} needed"


def foreground_clip(clip: Clip, ids: NDArray[np.integer[Any]]) -> Clip:
    """The foreground alone, by the rule above.

    Args:
        clip: frames [T, H, W, 3].
        ids: integers [T, H, W], 0 = background.

    Returns:
        frames [T', 224, 224, 3], T' the number of frames that show any foreground.

    Raises:
        ValueError: another shape of ids, or no foreground in any frame.
    """
    if ids.shape != clip.frames.shape[:3]:
        raise ValueError(f"ids has shape {list(ids.shape)}; expected {list(clip.frames.shape[:3])}.")
    squares = [_square(frame, mask) for frame, mask in zip(clip.frames, ids > 0, strict=True) if mask.any()]
    if not squares:
        raise ValueError("ids is 0 everywhere; there is no foreground.")
    return Clip(np.stack(squares), clip.fps)


def _square(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = np.where(mask[part][..., None], frame[part], np.array(FILL, np.uint8))
    height, width = inside.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), FILL, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = inside
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=how), np.uint8)
