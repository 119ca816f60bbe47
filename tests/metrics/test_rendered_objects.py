"""The colour detector on pictures that are painted here."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.metrics.mask_iou import object_iou
from ttm.metrics.rendered_objects import largest_pieces, locate_objects, object_colours

RED, BLUE = (220, 30, 30), (30, 60, 220)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """frames, plate, ids: a red and a blue box on a textured grey."""
    rng = np.random.default_rng(0)
    plate = rng.integers(90, 150, (32, 32, 1)).repeat(3, axis=2).astype(np.uint8)
    ids = np.zeros((3, 32, 32), np.uint8)
    for t in range(3):
        ids[t, 4:14, 2 + 4 * t : 12 + 4 * t] = 1
        ids[t, 18:28, 16:26] = 2
    frames = np.repeat(plate[None], 3, axis=0)
    frames[ids == 1] = RED
    frames[ids == 2] = BLUE
    return frames, plate, ids


def test_it_finds_each_object_where_it_is(scene: tuple[np.ndarray, ...]) -> None:
    frames, plate, ids = scene
    found = locate_objects(frames, plate, [np.array([RED], np.float32), np.array([BLUE], np.float32)])
    assert object_iou(found, ids, 1) > 0.9
    assert object_iou(found, ids, 2) > 0.9


def test_it_finds_nothing_in_the_plate_and_the_wrong_object_under_swapped_colours(
    scene: tuple[np.ndarray, ...],
) -> None:
    frames, plate, ids = scene
    colours = [np.array([RED], np.float32), np.array([BLUE], np.float32)]
    assert not locate_objects(np.repeat(plate[None], 3, axis=0), plate, colours).any()
    swapped = locate_objects(frames, plate, colours[::-1])
    assert object_iou(swapped, ids, 1) < 0.1


def test_a_still_image_scores_low_against_a_moving_truth(scene: tuple[np.ndarray, ...]) -> None:
    frames, plate, ids = scene
    still = np.repeat(frames[:1], 3, axis=0)
    found = locate_objects(still, plate, [np.array([RED], np.float32), np.array([BLUE], np.float32)])
    assert object_iou(found, ids, 1) < 0.6


def test_a_plate_for_every_frame_is_taken_frame_by_frame(scene: tuple[np.ndarray, ...]) -> None:
    frames, plate, _ = scene
    colours = [np.array([RED], np.float32), np.array([BLUE], np.float32)]
    plates = np.repeat(plate[None], 3, axis=0)
    assert np.array_equal(locate_objects(frames, plates, colours), locate_objects(frames, plate, colours))


def test_colours_are_those_of_the_opaque_pixels() -> None:
    layer = np.zeros((2, 8, 8, 4), np.uint8)
    layer[..., :3] = (9, 9, 9)
    layer[:, 2:6, 2:6] = (*RED, 255)
    np.testing.assert_array_equal(object_colours(layer), [RED])
    rng = np.random.default_rng(0)
    layer[:, 2:6, 2:6, :3] = rng.integers(100, 200, (2, 4, 4, 3))
    many = object_colours(layer, num_colours=5)
    assert many.shape == (5, 3) and many.min() >= 100 and many.max() < 200
    np.testing.assert_array_equal(many, object_colours(layer, num_colours=5))


def test_the_largest_piece_is_kept() -> None:
    ids = np.zeros((1, 10, 10), np.uint8)
    ids[0, 1:5, 1:5] = 1
    ids[0, 8, 8] = 1
    ids[0, 9, 0] = 2
    kept = largest_pieces(ids)
    assert kept[0, 8, 8] == 0 and (kept == 1).sum() == 16 and kept[0, 9, 0] == 2


def test_bad_input_says_what_is_expected(scene: tuple[np.ndarray, ...]) -> None:
    frames, plate, _ = scene
    with pytest.raises(ValueError, match="plate has shape"):
        locate_objects(frames, plate[:8], [])
    with pytest.raises(ValueError, match="expected uint8"):
        locate_objects(frames.astype(np.float32), plate, [])
    with pytest.raises(ValueError, match="no opaque pixel"):
        object_colours(np.zeros((1, 4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 \[T, H, W, 4\]"):
        object_colours(frames)
