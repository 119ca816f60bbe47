"""The score of a change, against mixtures whose score is known."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.metrics.appearance import change_contrast, change_score

COUNT = 5


@pytest.fixture
def clips() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey object that stays, the same turning bright, and where it is."""
    still = np.full((COUNT, 6, 6, 3), 60, np.uint8)
    still[:, 1:5, 1:5] = 100
    changed = still.copy()
    for t in range(COUNT):
        changed[t, 1:5, 1:5] += np.uint8(20 * t)
    where = np.zeros((COUNT, 6, 6), bool)
    where[:, 1:5, 1:5] = True
    return still, changed, where


def test_the_two_clips_score_zero_and_one_and_a_mixture_between(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    half = ((still.astype(int) + changed) // 2).astype(np.uint8)
    assert change_score(still, still, changed, where) == pytest.approx(0)
    assert change_score(changed, still, changed, where) == pytest.approx(1)
    assert change_score(half, still, changed, where) == pytest.approx(0.5)


def test_half_is_the_boundary_of_which_clip_is_closer(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    rng = np.random.default_rng(0)
    for amount in (0.2, 0.8):
        mixed = still + amount * (changed.astype(float) - still) + rng.normal(0, 8, still.shape)
        mixed[0] = still[0]  # no shift to take off
        video = np.clip(mixed.round(), 0, 255).astype(np.uint8)
        to_still = ((video[where].astype(float) - still[where]) ** 2).sum()
        to_changed = ((video[where].astype(float) - changed[where]) ** 2).sum()
        assert (change_score(video, still, changed, where) >= 0.5) == (to_changed < to_still)


def test_a_constant_shift_of_colour_and_the_rest_of_the_frame_say_nothing(
    clips: tuple[np.ndarray, ...],
) -> None:
    still, changed, where = clips
    assert change_score(still + 30, still, changed, where) == pytest.approx(0)
    outside = still.copy()
    outside[~where] = 255
    assert change_score(outside, still, changed, where) == pytest.approx(0)


def test_the_opposite_change_scores_below_zero(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    opposite = (2 * still.astype(int) - changed).clip(0, 255).astype(np.uint8)
    assert change_score(opposite, still, changed, where) < -0.9


def test_contrast_is_the_root_mean_square_inside(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    assert change_contrast(still, changed, where) == pytest.approx(
        np.sqrt(np.mean((20 * np.arange(COUNT)) ** 2))
    )
    assert change_contrast(still, still, where) == 0


def test_bad_input_says_what_is_expected(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    with pytest.raises(ValueError, match="no change to look for"):
        change_score(still, still, still, where)
    with pytest.raises(ValueError, match="no True pixel"):
        change_score(still, still, changed, where & False)
    with pytest.raises(ValueError, match="expected uint8"):
        change_score(still[:2], still, changed, where)
