from __future__ import annotations

import numpy as np
import pytest

from stages.corruption import corrupt_ids
from stages.settings import CorruptionSettings


@pytest.fixture
def ids() -> np.ndarray:
    ids = np.zeros((9, 40, 40), np.uint8)
    ids[:, 8:18, 8:18] = 1
    ids[:, 25:31, 22:34] = 2
    return ids


def _corrupt(ids: np.ndarray, seed: int = 0, **changes: float) -> np.ndarray:
    quiet = {"dilate": 0, "erode": 0, "jitter": 0, "drop_frame": 0.0}
    return corrupt_ids(ids, CorruptionSettings(**{**quiet, **changes}), np.random.default_rng(seed))  # type: ignore[arg-type]


def test_nothing_asked_nothing_done(ids: np.ndarray) -> None:
    np.testing.assert_array_equal(_corrupt(ids), ids)


def test_growth_and_shrinkage_keep_within_their_limits(ids: np.ndarray) -> None:
    wide = np.zeros_like(ids)
    wide[:, 5:21, 5:21] = 1
    for seed in range(8):
        grown = _corrupt(ids, seed, dilate=3) == 1
        assert (grown | (wide == 1))[..., :21, :21].sum() == (wide == 1)[..., :21, :21].sum()
        assert (grown >= (ids == 1)).all()
        shrunk = _corrupt(ids, seed, erode=3) == 1
        assert (shrunk <= (ids == 1)).all() and (shrunk[:, 11:15, 11:15]).all()


def test_an_object_never_shrinks_to_nothing(ids: np.ndarray) -> None:
    ids[:, 0, 0] = 3
    for seed in range(6):
        assert (_corrupt(ids, seed, erode=9) == 3).any(axis=(1, 2)).all()


def test_jitter_moves_whole_frames_but_not_the_first(ids: np.ndarray) -> None:
    spoiled = _corrupt(ids, jitter=3)
    np.testing.assert_array_equal(spoiled[0], ids[0])
    for frame in spoiled:
        y, x = np.nonzero(frame == 1)
        assert len(y) == 100 and abs(y.mean() - 12.5) <= 3 and abs(x.mean() - 12.5) <= 3
    assert not np.array_equal(spoiled[1:], ids[1:])


def test_a_dropped_frame_loses_one_object_once_and_never_frame_0(ids: np.ndarray) -> None:
    for seed in range(10):
        spoiled = _corrupt(ids, seed, drop_frame=1.0)
        for number in (1, 2):
            present = (spoiled == number).any(axis=(1, 2))
            assert present[0] and present.sum() == len(ids) - 1
