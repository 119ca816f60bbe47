"""The rules of motion, on discs whose places are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ttm.metrics.displacement import centroids, check_heading, check_motion

SIDE, COUNT = 64, 9


def discs(places: Sequence[tuple[float, float]], radii: list[float] | None = None) -> np.ndarray:
    """Ids [T, H, W] of one disc with id 1."""
    y, x = np.mgrid[:SIDE, :SIDE]
    sizes = radii or [6.0] * len(places)
    clip = [(x - px) ** 2 + (y - py) ** 2 <= r**2 for (px, py), r in zip(places, sizes, strict=True)]
    return np.stack(clip).astype(np.uint8)


def line(dx: float, dy: float, start: tuple[float, float] = (32, 32)) -> np.ndarray:
    """A disc that ends (dx, dy) pixels away from its start."""
    steps = np.linspace(0, 1, COUNT)
    return discs([(start[0] + dx * s, start[1] + dy * s) for s in steps])


def test_centroids_of_a_box_and_of_nothing() -> None:
    ids = np.zeros((2, 10, 10), np.uint8)
    ids[0, 2:5, 4:9] = 3
    np.testing.assert_allclose(centroids(ids, 3)[0], (6.0, 3.0))
    assert np.isnan(centroids(ids, 3)[1]).all()


@pytest.mark.parametrize(("motion", "dx", "dy"), [("left", -20, 0), ("right", 20, 0), ("up", 0, -20), ("down", 0, 20)])
def test_each_direction_is_right_in_its_own_sense_alone(motion: str, dx: float, dy: float) -> None:
    truth = line(dx, dy)
    assert check_motion(truth, truth, 1, motion).right
    assert check_motion(truth, truth, 1, motion).angle == pytest.approx(0, abs=1e-6)
    assert not check_motion(line(-dx, -dy), truth, 1, motion).right
    assert not check_motion(line(dy, dx), truth, 1, motion).right, "across"
    assert not check_motion(line(0, 0), truth, 1, motion).right, "a still image"


def test_45_degrees_and_half_the_distance_are_the_bounds() -> None:
    truth = line(20, 0)
    assert check_motion(line(14, 12), truth, 1, "right").right, "40.6 degrees"
    assert not check_motion(line(12, 14), truth, 1, "right").right, "49.4 degrees"
    assert check_motion(line(11, 0), truth, 1, "right").right
    assert not check_motion(line(9, 0), truth, 1, "right").right
    assert check_motion(line(9, 0), truth, 1, "right").share == pytest.approx(0.45, abs=0.03)


def test_stays_means_under_five_percent_in_every_frame() -> None:
    truth = line(0, 0)
    assert check_motion(line(0, 3), truth, 1, "stays").right
    assert not check_motion(line(0, 5), truth, 1, "stays").right
    away_and_back = discs([(32.0, 32.0)] * 4 + [(42.0, 32.0)] + [(32.0, 32.0)] * 4)
    assert not check_motion(away_and_back, truth, 1, "stays").right


def test_an_occlusion_does_not_count_as_moving() -> None:
    truth = line(0, 0)
    truth[4:, :, :34] = 0  # something covers the left half: the centroid of what shows jumps
    assert check_motion(truth, truth, 1, "stays").right
    sliver = line(20, 0)
    sliver[-1, :, :57] = 0  # nearly hidden at the very end
    assert check_motion(sliver, sliver, 1, "right").right


def test_a_lost_object_is_never_right() -> None:
    truth = line(20, 0)
    gone = truth.copy()
    gone[5:] = 0
    check = check_motion(gone, truth, 1, "right")
    assert check.lost and not check.right and check.share is None
    for motion in ("stays", "grows", "circles"):
        assert not check_motion(np.zeros_like(truth), truth, 1, motion).right


def test_growing_and_shrinking_are_judged_by_area() -> None:
    place = [(32.0, 32.0)] * COUNT
    grows = discs(place, list(np.linspace(6, 12, COUNT)))
    still = discs(place)
    assert check_motion(grows, grows, 1, "grows").right
    assert not check_motion(still, grows, 1, "grows").right
    assert not check_motion(grows[::-1], grows, 1, "grows").right
    assert check_motion(grows[::-1], grows[::-1], 1, "shrinks").right
    assert not check_motion(still, grows[::-1], 1, "shrinks").right


def test_circling_goes_away_and_comes_back_either_way_round() -> None:
    angles = np.linspace(0, 2 * np.pi, COUNT)
    one_way = discs([(32 + 10 * np.sin(a), 32 + 10 * (1 - np.cos(a))) for a in angles])
    other_way = discs([(32 - 10 * np.sin(a), 32 + 10 * (1 - np.cos(a))) for a in angles])
    assert check_motion(one_way, one_way, 1, "circles").right
    assert check_motion(other_way, one_way, 1, "circles").right
    assert not check_motion(line(0, 0), one_way, 1, "circles").right, "never leaves"
    assert not check_motion(line(20, 0), one_way, 1, "circles").right, "never comes back"


def test_the_heading_needs_no_truth() -> None:
    assert check_heading(line(20, 0), 1, "right", 0.1).right
    assert not check_heading(line(5, 0), 1, "right", 0.1).right, "too short"
    assert not check_heading(line(-20, 0), 1, "right", 0.1).right
    assert check_heading(line(0, 2), 1, "stays").right
    assert not check_heading(line(0, 4), 1, "stays").right
    assert check_heading(line(20, 0) * 0, 1, "right").lost


def test_bad_input_says_what_is_expected() -> None:
    truth = line(20, 0)
    with pytest.raises(ValueError, match="expected one of"):
        check_motion(truth, truth, 1, "sideways")
    with pytest.raises(ValueError, match="does not show object 2"):
        check_motion(truth, truth, 2, "right")
    with pytest.raises(ValueError, match="equal shapes"):
        check_motion(truth[:3], truth, 1, "right")
    with pytest.raises(ValueError, match="integer ids"):
        centroids(truth[0], 1)
    with pytest.raises(ValueError, match="expected one of"):
        check_heading(truth, 1, "grows")
