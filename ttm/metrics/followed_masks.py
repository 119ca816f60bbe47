"""Mask IoU: does the video go where its trajectory says. A tracker follows the first frame's masks through the video,
and what it finds is held against the trajectory.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ttm.metrics.mask_iou import mean_iou
from ttm.metrics.scoring import MeanOverVideos, Need, Problem, Sample


class Tracker(Protocol):
    """Something that follows masks, as :class:`ttm.segmentation.Segmenter` does."""

    def track(self, frames: NDArray[np.uint8], first_ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Frames [T, H, W, 3] and ids [H, W] -> ids [T, H, W]."""
        ...


class FollowedMaskIoU(MeanOverVideos):
    """IoU a frame over frames 1 to T - 1 (frame 0 is given), mean over frames, then objects, then videos.

    An object that the trajectory does not show in frame 0 can't be followed and is left out; a warning counts them.

    Args:
        tracker: follows the masks.
        weights: what the tracker was loaded from.
        suffix: of the column's name; says that the tracker is a stand-in.
    """

    needs: frozenset[Need] = frozenset({"video", "ids"})

    def __init__(self, tracker: Tracker, weights: Mapping[str, Any], suffix: str = "") -> None:
        super().__init__()
        self.name = f"mask-IoU{suffix}"
        self._tracker, self._weights, self._late = tracker, weights, 0

    def fault(self, sample: Sample) -> str | None:
        """Ids of another shape, one frame, or nothing to follow."""
        assert sample.video is not None and sample.ids is not None
        expected = sample.video.frames.shape[:3]
        if sample.ids.shape != expected:
            return f"its ids have shape {list(sample.ids.shape)}; expected {list(expected)}, as the video"
        if sample.video.num_frames < 2:
            return "1 frame; at least 2 needed"
        return None if sample.ids[0].any() else "its trajectory shows no object in frame 0"

    def measure(self, samples: Sequence[Sample]) -> list[float | Problem]:
        """See :class:`MeanOverVideos`."""
        return [self._iou(sample) for sample in samples]

    def _iou(self, sample: Sample) -> float:
        assert sample.video is not None and sample.ids is not None
        objects = [int(number) for number in np.unique(sample.ids[0]) if number]
        self._late += len(set(np.unique(sample.ids).tolist()) - {0, *objects})
        followed = self._tracker.track(sample.video.frames, sample.ids[0])
        return mean_iou(followed[1:], sample.ids[1:], objects)

    def describe(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """See :class:`MeanOverVideos`."""
        return {
            "masks": "the trajectory's frame 0, followed through the video",
            "over frames": "1 to T - 1, mean IoU; then over objects",
        }, self._weights

    def warnings(self) -> tuple[str, ...]:
        """Objects that can't be followed."""
        return (f"{self._late} objects are not in frame 0 and were left out",) if self._late else ()
