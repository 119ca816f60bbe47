"""The first frame carried along a trajectory, against pictures whose every pixel is known."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.data.synthetic import SyntheticWorld
from ttm.motion.carried_frame import carry_first_frame

RED, BLUE, GREY = (200, 20, 30), (10, 40, 220), (120, 120, 120)


def _boxes(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Ids of 48 x 64 pixels: box n (top, left, bottom, right) has id n + 1."""
    ids = np.zeros((48, 64), np.uint8)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        ids[top:bottom, left:right] = number
    return ids


def _painted(ids: np.ndarray, *colours: tuple[int, int, int]) -> np.ndarray:
    return np.array([GREY, *colours], np.uint8)[ids]


def _expect(found: np.ndarray, expected: np.ndarray | tuple[int, int, int]) -> None:
    """The same colours, but for a few levels that inpainting rounds."""
    assert np.abs(found.astype(int) - np.array(expected)).max() <= 4


def test_flat_objects_on_flat_ground_are_carried_to_the_pixel() -> None:
    ids = np.stack(
        [
            _boxes((4, 4, 16, 16), (30, 40, 40, 56)),
            _boxes((9, 11, 21, 23), (30, 20, 40, 36)),
            _boxes((20, 20, 44, 44), (2, 2, 7, 10)),  # twice as large, half as large
        ]
    )
    expected = _painted(ids, RED, BLUE)
    _expect(carry_first_frame(expected[0], ids), expected)


def test_a_look_moves_with_its_object() -> None:
    ids = np.stack([_boxes((4, 4, 20, 20)), _boxes((24, 40, 40, 56))])
    frame = _painted(ids[0], RED)
    frame[4:20, 4:12] = BLUE  # left half
    carried = carry_first_frame(frame, ids)[1]
    for place, colour in (((slice(24, 40), slice(40, 48)), BLUE), ((slice(24, 40), slice(48, 56)), RED)):
        _expect(carried[place], colour)
    _expect(carried[ids[1] == 0], GREY)


def test_a_mask_of_another_shape_is_filled_with_the_objects_look_and_one_without_a_look_is_left_out() -> None:
    ids = np.stack([_boxes((4, 4, 16, 16)), _boxes((4, 4, 40, 8), (20, 40, 30, 50))])
    carried = carry_first_frame(_painted(ids[0], RED), ids)[1]
    _expect(carried, _painted(np.where(ids[1] == 1, 1, 0), RED))  # object 2 was not there


def test_nothing_moves_where_no_object_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    carried = carry_first_frame(frame, np.zeros((3, 48, 64), np.uint8))
    np.testing.assert_array_equal(carried, np.stack([frame] * 3))


def test_it_is_nearer_to_the_true_video_than_the_picture_is() -> None:
    world = SyntheticWorld("val", 64, 9, (1, 2), appearance=0.0, seed=3)
    for scene in (world[index] for index in range(4)):
        carried = carry_first_frame(scene.frames[0], scene.ids).astype(float)
        np.testing.assert_array_equal(carried[0], scene.frames[0])
        there = scene.ids > 0
        error, still = (
            np.abs(guess - scene.frames)[there].mean() for guess in (carried, scene.frames[:1].astype(float))
        )
        assert error < 0.5 * still


def test_a_picture_and_a_trajectory_of_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"picture is \[48, 64, 3\], the trajectory \[2, 48, 60\]; expected"):
        carry_first_frame(_painted(_boxes()), np.zeros((2, 48, 60), np.uint8))
