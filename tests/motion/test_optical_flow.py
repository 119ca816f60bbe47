"""Optical flow as pictures: closed forms, the way there and back, and what a flow does to masks."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.data.synthetic import SyntheticWorld
from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory
from ttm.motion.optical_flow import MOST, FlowTrajectory, carry_ids, flow_from_video, flow_to_video
from ttm.motion.representation import REPRESENTATIONS, motion_representation
from ttm.objects import ObjectPrompt, PromptPlan


def uniform(x: float, y: float, count: int = 3, size: int = 64) -> np.ndarray:
    return np.broadcast_to(np.array([x, y], np.float32), (count, size, size, 2)).copy()


@pytest.mark.parametrize(
    ("direction", "colour"),
    [
        ((0, 0), (255, 255, 255)),
        ((1, 0), (255, 0, 0)),
        ((-1, 0), (0, 255, 255)),
        ((0, 1), (128, 255, 0)),
        ((0, -1), (128, 0, 255)),
    ],
)
def test_a_uniform_motion_is_one_colour_of_the_wheel(direction: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """At the longest motion, MOST * 64 = 8 pixels, a hue is pure; half of it, by saturation^2, is a quarter as long."""
    pictures = flow_to_video(uniform(8 * direction[0], 8 * direction[1]))
    assert pictures.shape == (4, 64, 64, 3) and (pictures == pictures[0, 0, 0]).all()
    np.testing.assert_allclose(pictures[0, 0, 0], colour, atol=1)
    half = flow_to_video(uniform(2 * direction[0], 2 * direction[1]))[0, 0, 0].astype(int)
    np.testing.assert_allclose(half, (np.array(colour) + 255) / 2, atol=1)


def test_a_motion_that_is_too_long_is_cut_in_its_direction() -> None:
    back = flow_from_video(flow_to_video(uniform(30, -40)))
    np.testing.assert_allclose(back, uniform(0.6 * 8, -0.8 * 8), atol=0.05)


def test_there_and_back_within_the_stated_bound() -> None:
    rng = np.random.default_rng(0)
    most = MOST * 48
    length, angle = rng.uniform(0, most, (4, 48, 60)), rng.uniform(-np.pi, np.pi, (4, 48, 60))
    flow = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1).astype(np.float32)
    error = np.linalg.norm(flow_from_video(flow_to_video(flow)) - flow, axis=-1)
    # Below one step of 1/255 in saturation nothing can be told: (1/255)^2 of the longest motion.
    assert (error <= 0.01 * np.sqrt(length / most) * most + most / 255**2).all()


def test_a_darker_picture_says_the_same() -> None:
    pictures = flow_to_video(uniform(3, 2))
    np.testing.assert_allclose(
        flow_from_video((pictures * 0.8).round().astype(np.uint8)), flow_from_video(pictures), atol=0.1
    )


def test_masks_are_carried_by_a_uniform_motion() -> None:
    ids = np.zeros((64, 64), np.uint8)
    ids[20:30, 10:22], ids[40:52, 30:41] = 1, 2
    carried = carry_ids(ids, uniform(2.0, 1.0, count=4))
    for t in range(5):
        expected = np.roll(ids, (t, 2 * t), axis=(0, 1))
        assert np.array_equal(carried[t], expected)


def test_an_object_of_many_pixels_is_carried_as_its_parts_are() -> None:
    """More pixels than a map of OpenCV may have rows; its parts have fewer, and columns that grow alike."""
    whole, parts = np.zeros((256, 256), np.uint8), np.zeros((256, 256), np.uint8)
    whole[20:220, 25:225] = 1
    for number in range(4):
        parts[20 + 50 * number : 70 + 50 * number, 25:225] = number + 1
    flow = uniform(0, 1, count=3, size=256)
    flow[..., 0] = 0.03 * (np.arange(256) - 100)
    carried = carry_ids(whole, flow)
    assert np.count_nonzero(whole) == 40_000 and np.count_nonzero(carried[3]) > 42_000
    np.testing.assert_array_equal(carried > 0, carry_ids(parts, flow) > 0)


def test_the_synthetic_worlds_flow_carries_its_masks() -> None:
    """Against an independent truth: the ids that the world draws. (A texture that spins leaves its outline where it is,
    which no flow can say.)"""
    motions = ("left", "grows", "circles")
    world = SyntheticWorld("val", num_frames=9, num_objects=(1, 1), appearance=0.0, motions=motions)
    for index in range(4):
        scene = world[index]
        carried = carry_ids(scene.ids[0], flow_from_video(flow_to_video(scene.flow())))
        truth, found = scene.ids[-1] == 1, carried[-1] == 1
        assert np.count_nonzero(truth & found) > 0.85 * np.count_nonzero(truth | found)


def test_representations_by_name() -> None:
    assert REPRESENTATIONS == ("masks", "optical_flow", "none")
    with pytest.raises(ValueError, match="no motion representation 'flow'; expected one of masks, optical_flow, none"):
        motion_representation("flow")


def test_masks_are_shown_as_they_always_were() -> None:
    ids = np.zeros((3, 8, 8), np.uint8)
    ids[:, 2:5, 2:5] = 1
    masks = motion_representation("masks")
    video = masks.to_video(MaskTrajectory(ids))
    assert np.array_equal(video, PALETTE[ids])
    assert np.array_equal(masks.from_video(video, ids[0], 8.0).ids, ids)


def test_flow_is_read_with_the_masks_that_it_carries() -> None:
    ids = np.zeros((64, 64), np.uint8)
    ids[20:30, 10:22] = 1
    kind = motion_representation("optical_flow")
    made = kind.from_video(flow_to_video(uniform(2, 0)), ids, 8.0)
    assert isinstance(made, FlowTrajectory) and made.num_frames == 4
    np.testing.assert_allclose(made.flow, uniform(2, 0), atol=0.06)
    assert np.array_equal(kind.to_video(made), flow_to_video(made.flow))
    with pytest.raises(ValueError, match="knows no optical flow"):
        kind.to_video(MaskTrajectory(made.ids))


def test_without_motion_stage_2_sees_a_clip_at_rest_and_one_sentence() -> None:
    plan = PromptPlan("The cat runs.", "the cat runs", (ObjectPrompt("cat", "the cat runs left"),))
    none = motion_representation("none")
    trajectory, told = none.seen(MaskTrajectory(np.ones((3, 8, 8), np.uint8)), plan)
    assert not trajectory.ids.any() and told.local_prompts == ["The cat runs."]
    with pytest.raises(ValueError, match="motion is none"):
        none.from_video(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), 8.0)


def test_a_resized_flow_has_the_lengths_of_its_new_size() -> None:
    small = FlowTrajectory(np.ones((3, 32, 64), np.uint8), uniform(4, 2, 2)[:, :32], 8.0).resize(16, 16)
    assert small.ids.shape == (3, 16, 16)
    np.testing.assert_allclose(small.flow, uniform(1, 1, 2, 16), atol=1e-6)
    with pytest.raises(ValueError, match="can't be resampled"):
        small.resample(5)


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "expected float"),
        (np.zeros((0, 8, 8, 2), np.float32), "expected float"),
        (np.zeros((2, 8, 8, 2), np.int64), "expected float"),
        (np.full((2, 8, 8, 2), np.nan, np.float32), "NaN"),
    ],
)
def test_bad_flow_is_refused(flow: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow_to_video(flow)


def test_pictures_and_masks_must_fit() -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        flow_from_video(np.zeros((3, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="T from 2"):
        flow_from_video(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="first_ids has shape"):
        carry_ids(np.zeros((4, 4), np.uint8), uniform(1, 0))
    with pytest.raises(ValueError, match="for these ids"):
        FlowTrajectory(np.zeros((3, 8, 8), np.uint8), uniform(0, 0, 3, 8))
