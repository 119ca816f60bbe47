"""Mask IoU with trackers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.metrics.clips import noise_clip
from ttm.metrics.followed_masks import FollowedMaskIoU
from ttm.metrics.scoring import Problem, Sample


class Still:
    """Says that nothing moves."""

    def track(self, frames: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
        """Ids [T, H, W]."""
        return np.repeat(first_ids[None], len(frames), axis=0).astype(np.uint8)


def _moving() -> np.ndarray:
    """Object 1 stays; object 2 moves by half of its width a frame; object 3 comes late."""
    ids = np.zeros((3, 16, 24), np.uint8)
    ids[:, 0:4, 0:4] = 1
    for t in range(3):
        ids[t, 8:12, 2 * t : 2 * t + 4] = 2
    ids[2, 14:, 20:] = 3
    return ids


def test_iou_is_over_the_frames_that_were_not_given() -> None:
    metric = FollowedMaskIoU(Still(), {"source": "test"}, "-tiny")
    video = noise_clip(0, frames=3)
    assert metric.add([Sample("x", video, ids=_moving())]) == [pytest.approx((1 + (1 / 3 + 0) / 2) / 2)]
    figure = metric.figure()
    assert figure.metric == "mask-IoU-tiny" and figure.num_videos == 1 and figure.interval is None
    assert figure.warnings == ("1 objects are not in frame 0 and were left out",)


def test_what_cannot_be_followed_is_a_problem() -> None:
    metric = FollowedMaskIoU(Still(), {})
    late = _moving()
    late[0] = 0
    video = noise_clip(0, frames=3)
    for ids, said in ((late, "no object in frame 0"), (late[:2], "expected [3, 16, 24]"), (None, "no ids")):
        (score,) = metric.add([Sample("x", video, ids=ids)])
        assert isinstance(score, Problem) and said in score.reason
    (score,) = metric.add([Sample("x", noise_clip(0, frames=1), ids=_moving()[:1])])
    assert isinstance(score, Problem) and "1 frame" in score.reason
