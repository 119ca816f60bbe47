"""Trackers of mask IoU: a saved Segmenter, and SAM 2 alone, which follows masks just as the Segmenter does."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.evaluation.tiny_features import tiny_segmenter
from ttm.evaluation.trackers import Sam2Tracker, load_tracker
from ttm.pipelines.embedded import EMBEDDED


def test_sam2_alone_follows_as_the_segmenter_does() -> None:
    frames = np.full((4, 64, 64, 3), 90, np.uint8)
    first = np.zeros((64, 64), np.uint8)
    for t in range(4):
        frames[t, 20:40, 4 * t + 8 : 4 * t + 28] = (220, 30, 30)
    first[20:40, 8:28] = 1
    folder = EMBEDDED / "ttm-tiny/segmenter"
    tracker, weights = load_tracker(str(folder), "cpu")
    followed = tracker.track(frames, first)
    assert followed.shape == (4, 64, 64) and set(np.unique(followed)) <= {0, 1}
    segmenter, same = tiny_segmenter()
    assert weights["sha256"] == same["sha256"]
    np.testing.assert_array_equal(Sam2Tracker(segmenter.sam2).track(frames, first), followed)


def test_an_unknown_id_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match="no public SAM2 model; expected one of facebook/sam2"):
        load_tracker("nobody/nothing", "cpu")
