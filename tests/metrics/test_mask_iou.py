"""IoU against areas that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.metrics.mask_iou import mask_iou, mean_iou, object_iou


def box(left: int, width: int = 4) -> np.ndarray:
    mask = np.zeros((8, 16), bool)
    mask[2:6, left : left + width] = True
    return mask


def test_boxes_shifted_by_half_overlap_by_a_third() -> None:
    assert mask_iou(box(4), box(6)) == pytest.approx(8 / 24)
    assert mask_iou(box(4), box(4)) == 1
    assert mask_iou(box(0), box(8)) == 0


def test_two_empty_masks_agree_and_one_empty_mask_does_not() -> None:
    nothing = np.zeros((8, 16), bool)
    assert mask_iou(nothing, nothing) == 1
    assert mask_iou(nothing, box(0)) == 0


def test_iou_is_symmetric_and_within_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 6, 6)) > 0.5
        assert mask_iou(a, b) == mask_iou(b, a)
        assert 0 <= mask_iou(a, b) <= 1


def test_j_is_the_mean_over_frames_that_show_the_object() -> None:
    truth = np.stack([box(4), box(4), box(4) & False]).astype(np.uint8) * 2
    prediction = np.stack([box(4), box(6), box(4) & False]).astype(np.uint8) * 2
    assert object_iou(prediction, truth, 2) == pytest.approx((1 + 1 / 3) / 2), "the empty frame says nothing"


def test_a_frame_where_the_object_is_in_one_clip_alone_counts_nothing() -> None:
    truth = np.stack([box(4), box(4) & False]).astype(np.uint8)
    prediction = np.stack([box(4), box(4)]).astype(np.uint8)
    assert object_iou(prediction, truth, 1) == pytest.approx(0.5)
    assert object_iou(truth, prediction, 1) == pytest.approx(0.5)


def test_the_mean_is_over_the_objects_of_the_truth() -> None:
    truth = box(0).astype(np.uint8) + 3 * box(8).astype(np.uint8)
    swapped = 3 * box(0).astype(np.uint8) + box(8).astype(np.uint8)
    assert mean_iou(truth, truth) == 1
    assert mean_iou(swapped, truth) == 0, "the right pixels under the wrong ids"
    assert mean_iou(box(0).astype(np.uint8), truth) == pytest.approx(0.5), "one object missing"
    assert mean_iou(box(0).astype(np.uint8), truth, [1]) == 1


def test_bad_input_says_what_is_expected() -> None:
    ids = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="shows no object"):
        mean_iou(ids, ids)
    with pytest.raises(ValueError, match="expected two of"):
        object_iou(ids, ids[0], 1)
    with pytest.raises(ValueError, match="integer ids"):
        object_iou(ids.astype(np.float32), ids, 1)
    with pytest.raises(ValueError, match="equal shapes"):
        mask_iou(ids[0] > 0, ids > 0)
