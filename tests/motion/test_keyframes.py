"""Drawn trajectories against closed forms: where a shape is, how large, which way up, in front of what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ttm.motion.keyframes import Keyframes
from ttm.motion.mask_pictures import ids_picture
from ttm.motion.mask_trajectory import MaskTrajectory

SQUARE = {"rectangle": [8, 8]}


def _draw(*objects: dict[str, Any], frames: int = 9, size: tuple[int, int] = (64, 48), **more: Any) -> MaskTrajectory:
    values = {"width": size[0], "height": size[1], "frames": frames, "objects": list(objects)}
    return Keyframes.from_dict(values).draw(**more)


def _moving(shape: dict[str, Any], *keyframes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"shape": shape, "keyframes": list(keyframes), **more}


def _centres(trajectory: MaskTrajectory, number: int = 1) -> NDArray[np.float64]:
    """In the file's coordinates, in which the first pixel's centre lies at 0.5."""
    return trajectory.centroids(number) + 0.5


def test_a_square_that_moves_straight_is_where_it_should_be_and_keeps_its_area() -> None:
    moved = _draw(_moving(SQUARE, {"frame": 0, "position": [10, 20]}, {"frame": 8, "position": [42, 36]}))
    np.testing.assert_allclose(_centres(moved), np.linspace((10, 20), (42, 36), 9), atol=1e-9)
    slow = _draw(_moving(SQUARE, {"frame": 0, "position": [10, 20]}, {"frame": 8, "position": [12, 23]}))
    assert np.abs(_centres(slow) - np.linspace((10, 20), (12, 23), 9)).max() <= 0.5 + 1e-6
    assert (slow.areas()[:, 1] == 64).all()  # also where its edges run through pixels' centres


def test_time_is_frames_over_fps_and_a_shape_stays_before_and_after() -> None:
    item = _moving(SQUARE, {"time": 0.25, "position": [10, 10]}, {"time": 0.75, "position": [26, 10]})
    np.testing.assert_allclose(_centres(_draw(item))[:, 0], [10, 10, 10, 14, 18, 22, 26, 26, 26])


@pytest.mark.parametrize(("fps", "frames", "last"), [(25, 8, 0.28), (12, 21, 1.66667), (12, 21, 1.667), (30, 2, 0.033)])
def test_the_last_moment_may_be_written_rounded(fps: float, frames: int, last: float) -> None:
    item = _moving(SQUARE, {"time": 0, "position": [10, 10]}, {"time": last, "position": [26, 10]})
    scene = {"width": 64, "height": 48, "frames": frames, "fps": fps, "objects": [item]}
    assert abs(_centres(Keyframes.from_dict(scene).draw())[-1, 0] - 26) < 0.5


@pytest.mark.parametrize(
    ("ease", "shares"),
    [
        ("linear", [0, 0.25, 0.5, 0.75, 1]),
        ("ease_in", [0, 1 / 16, 4 / 16, 9 / 16, 1]),
        ("ease_out", [0, 7 / 16, 12 / 16, 15 / 16, 1]),
        ("ease_in_out", [0, 5 / 32, 0.5, 27 / 32, 1]),
        ("hold", [0, 0, 0, 0, 1]),
    ],
)
def test_eases(ease: str, shares: list[float]) -> None:
    item = _moving(SQUARE, {"frame": 0, "position": [10, 10], "ease": ease}, {"frame": 4, "position": [42, 10]})
    np.testing.assert_allclose(_centres(_draw(item, frames=5))[:, 0], 10 + 32 * np.array(shares))


def test_rotation_by_90_swaps_the_sides_and_is_clockwise() -> None:
    bar = {"rectangle": [20, 8]}
    turned = _draw(_moving(bar, {"frame": 0, "position": [32, 24]}, {"frame": 8, "rotation": 90}))
    upright = _draw(_moving({"rectangle": [8, 20]}, {"frame": 0, "position": [32, 24]}))
    np.testing.assert_array_equal(turned.ids[0], _draw(_moving(bar, {"frame": 0, "position": [32, 24]})).ids[0])
    np.testing.assert_array_equal(turned.ids[8], upright.ids[8])
    areas = turned.areas()[:, 1]
    assert np.abs(areas - 160).max() <= 12  # on the way, within the pixels of its outline


def test_a_polygon_turns_clockwise_around_the_centre_of_its_area() -> None:
    corners = np.array([[20, 10], [44, 10], [44, 34]])  # its centre: the mean of the three, (36, 18)
    turned = _draw(_moving({"polygon": corners.tolist()}, {"frame": 0, "rotation": 90}), frames=1)
    x, y = (corners - (36, 18)).T
    right_to_down = np.stack([36 - y, 18 + x], axis=1)
    np.testing.assert_array_equal(turned.ids, _draw({"shape": {"polygon": right_to_down.tolist()}}, frames=1).ids)


def test_scale_by_both_axes_or_by_one() -> None:
    item = _moving(SQUARE, {"frame": 0, "position": [32, 24], "scale": 1}, {"frame": 8, "scale": [3, 1]})
    grown = _draw(item)
    assert grown.areas()[8, 1] == 24 * 8
    assert np.ptp(np.nonzero(grown.ids[8])[1]) + 1 == 24
    twice = _draw(_moving(SQUARE, {"frame": 0, "position": [32, 24], "scale": 2}), frames=1)
    assert twice.areas()[0, 1] == 256
    disc = _draw(_moving({"ellipse": [30, 20]}, {"frame": 0, "position": [32, 24]}), frames=1)
    assert disc.areas()[0, 1] == pytest.approx(np.pi * 15 * 10, rel=0.02)


def test_a_straight_way_through_points_has_one_speed() -> None:
    corner = {"frame": 8, "position": [42, 26], "through": [[26, 10]]}  # 16 to the corner, then 16 * sqrt(2)
    centres = _centres(_draw(_moving(SQUARE, {"frame": 0, "position": [10, 10]}, corner)))
    length = 16 + 16 * np.sqrt(2)
    walked = np.linspace(0, length, 9)
    expected_x = np.where(walked <= 16, 10 + walked, 26 + (walked - 16) / np.sqrt(2))
    assert np.abs(centres[:, 0] - expected_x).max() <= 0.5 + 1e-6


def test_a_smooth_way_is_round_and_passes_through_its_points() -> None:
    angles = np.arange(9) * np.pi / 4
    ring = (np.array([100, 100]) + 60 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).tolist()
    first, last = {"frame": 0, "position": ring[0]}, {"frame": 40, "position": ring[8], "through": ring[1:8]}
    item = _moving({"ellipse": [9, 9]}, first, last)
    straight, smooth = (_centres(_draw({**item, "path": path}, frames=41, size=(200, 200))) for path in
                        ("straight", "smooth"))  # fmt: skip
    radius = np.linalg.norm(smooth - 100, axis=1)
    # The two ends have one neighbour alone: there the curve is flatter.
    assert np.abs(radius[5:36] - 60).max() < 1.0
    assert np.linalg.norm(straight - 100, axis=1).min() < 57  # a chord's middle: 60 cos(22.5 degrees) = 55.4
    gaps = [np.linalg.norm(smooth - point, axis=1).min() for point in ring]
    assert max(gaps) < 5  # a frame lies within half a step, 4.7, of each


def test_a_smooth_way_may_rest_and_stand_still() -> None:
    item = _moving(
        SQUARE,
        {"frame": 0, "position": [10, 10]},
        {"frame": 3, "position": [30, 12]},
        {"frame": 5, "position": [30, 12]},
        {"frame": 8, "position": [50, 30]},
        path="smooth",
    )
    centres = _centres(_draw(item))
    np.testing.assert_allclose(centres[3:6], [[30, 12]] * 3)
    np.testing.assert_allclose(centres[8], [50, 30])
    still = _moving(SQUARE, {"frame": 0, "position": [10, 10]}, {"frame": 8, "position": [10, 10]}, path="smooth")
    np.testing.assert_allclose(_centres(_draw(still)), [[10, 10]] * 9)


def test_properties_run_on_past_keyframes_that_do_not_name_them() -> None:
    item = _moving(
        SQUARE,
        {"frame": 0, "position": [10, 10], "scale": 1},
        {"frame": 4, "scale": 2},
        {"frame": 8, "position": [42, 10]},
    )
    drawn = _draw(item)
    np.testing.assert_allclose(_centres(drawn)[[0, 4, 8], 0], [10, 26, 42])
    assert drawn.areas()[[0, 4, 8], 1].tolist() == [64, 256, 256]


def test_layers_decide_what_is_in_front_and_ids_follow_the_list() -> None:
    here = {"frame": 0, "position": [20, 20]}
    later = _draw(_moving({"rectangle": [16, 16]}, here), _moving(SQUARE, here), frames=1)
    assert later.areas()[0, 1:3].tolist() == [16 * 16 - 64, 64]
    lifted = _draw(_moving(SQUARE, here, layer=1), _moving({"rectangle": [16, 16]}, here), frames=1)
    assert lifted.areas()[0, 1:3].tolist() == [64, 16 * 16 - 64]


def test_an_object_can_come_and_go() -> None:
    drawn = _draw(_moving(SQUARE, {"frame": 0, "position": [20, 20]}, visible=[2, 4]))
    assert (drawn.areas()[:, 1] > 0).tolist() == [False, False, True, True, True, False, False, False, False]


@pytest.fixture
def first_ids() -> NDArray[np.uint8]:
    ids = np.zeros((48, 64), np.uint8)
    ids[10:20, 5:12] = 1
    ids[12:15, 8:20] = 1
    ids[30:37, 40:51] = 2
    return ids


def test_objects_of_a_first_frame_mask_move_as_they_are(first_ids: NDArray[np.uint8]) -> None:
    values = {"frames": 5, "objects": [_by({"frame": 0, "offset": [0, 0]}, {"frame": 4, "offset": [20, 8]}), {}]}
    drawn = Keyframes.from_dict(values).draw(first_ids)
    np.testing.assert_array_equal(drawn.ids[0], first_ids)
    for t in range(5):
        expected = np.where(first_ids == 2, 2, 0)
        expected[np.roll(first_ids == 1, (2 * t, 5 * t), axis=(0, 1))] = 1
        expected[first_ids == 2] = 2  # the later of the list is in front
        np.testing.assert_array_equal(drawn.ids[t], expected)


def _by(*keyframes: dict[str, Any]) -> dict[str, Any]:
    return {"keyframes": list(keyframes)}


def test_ids_of_a_first_frame_mask_can_change_places(first_ids: NDArray[np.uint8]) -> None:
    drawn = Keyframes.from_dict({"frames": 1, "objects": [{"shape": {"id": 2}}, {"shape": {"id": 1}}]}).draw(first_ids)
    np.testing.assert_array_equal(drawn.ids[0], np.array([0, 2, 1], np.uint8)[first_ids])


def test_a_mask_picture_turned_half_round_is_itself_upside_down(tmp_path: Path, first_ids: NDArray[np.uint8]) -> None:
    ids_picture(first_ids).save(tmp_path / "ids.png")
    item = {"shape": {"mask": "ids.png", "id": 2}, "keyframes": [{"frame": 0, "position": [32, 24], "rotation": 180}]}
    (tmp_path / "moves.json").write_text(json.dumps({"width": 64, "height": 48, "frames": 1, "objects": [item]}))
    drawn = Keyframes.load(tmp_path / "moves.json").draw()
    assert drawn.areas()[0, 1] == 7 * 11
    assert np.abs(_centres(drawn)[0] - (32, 24)).max() <= 0.5


@pytest.mark.parametrize("name", ["two_balls", "demo_scene"])
def test_the_examples_of_the_docs_are_drawn(name: str) -> None:
    folder = Path(__file__).parents[2] / "docs" / "keyframes"
    drawn = Keyframes.load(folder / f"{name}.json").draw()
    assert (drawn.num_frames, drawn.object_ids) == (17, [1, 2])
    assert (drawn.areas()[0, 1:3] > 0).all()
    text = (folder.parent / "keyframes.md").read_text(encoding="utf-8")
    assert f"docs/keyframes/{name}.json" in text
