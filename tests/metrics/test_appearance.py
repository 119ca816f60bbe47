"""The votes on a change, against mixtures whose votes can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from ttm.metrics.appearance import change_contrast, changed_share

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


def test_the_known_clips_get_all_or_none_of_the_votes(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    absent = np.full_like(still, 60)
    assert changed_share(changed, still, changed, absent, where) == 1
    assert changed_share(still, still, changed, absent, where) == 0
    left_behind = absent.copy()
    left_behind[0] = still[0]  # there in frame 0, then gone
    assert changed_share(left_behind, still, changed, absent, where) == 0


def test_votes_weigh_as_much_as_the_change_is_visible(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    absent = np.zeros_like(still)
    late = still.copy()
    late[3:] = changed[3:]  # frames 3 and 4 of 0, 1, 2, 3, 4 steps of change
    assert changed_share(late, still, changed, absent, where) == pytest.approx(7 / 10)
    half_of_it = still.copy()
    half_of_it[:, 1:3] = changed[:, 1:3]
    assert changed_share(half_of_it, still, changed, absent, where) == pytest.approx(0.5)


def test_a_change_by_less_than_half_is_no_change(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    absent = np.zeros_like(still)
    for amount, share in ((0.4, 0), (0.6, 1)):
        mixed = (still + amount * (changed.astype(float) - still)).round().astype(np.uint8)
        assert changed_share(mixed, still, changed, absent, where) == pytest.approx(share)


def test_noise_like_an_autoencoders_hardly_counts(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    absent = np.zeros_like(still)
    rng = np.random.default_rng(0)
    for clip, low, high in ((changed, 0.8, 1.0), (still, 0.0, 0.2)):
        noisy = np.clip(clip + rng.normal(0, 12, clip.shape), 0, 255).astype(np.uint8)
        assert low <= changed_share(noisy, still, changed, absent, where) <= high


def test_a_constant_shift_of_colour_and_the_rest_of_the_frame_say_nothing(
    clips: tuple[np.ndarray, ...],
) -> None:
    still, changed, where = clips
    absent = np.zeros_like(still)
    assert changed_share(still + 30, still, changed, absent, where) == 0
    outside = changed.copy()
    outside[~where] = 255
    assert changed_share(outside, still, changed, absent, where) == 1


def test_contrast_is_the_root_mean_square_inside(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    assert change_contrast(still, changed, where) == pytest.approx(np.sqrt(np.mean((20 * np.arange(COUNT)) ** 2)))
    assert change_contrast(still, still, where) == 0


def test_bad_input_says_what_is_expected(clips: tuple[np.ndarray, ...]) -> None:
    still, changed, where = clips
    with pytest.raises(ValueError, match="no change to see"):
        changed_share(still, still, still, still, where)
    with pytest.raises(ValueError, match="no True pixel"):
        changed_share(still, still, changed, still, where & False)
    with pytest.raises(ValueError, match="expected uint8"):
        changed_share(still[:2], still, changed, still, where)
