"""Objects chosen by boxes and points, and followed through a video file, with the embedded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ttm.data.synthetic import SyntheticScene, SyntheticWorld
from ttm.data.video_writer import write_video
from ttm.metrics.mask_iou import mask_iou, mean_iou
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.segmentation import Box, Point, Segmenter
from ttm.segmentation.extraction import choose_frames, extract_trajectory

FOLDER = Path(__file__).parents[2] / "ttm" / "pretrained" / "ttm-tiny" / "segmenter"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    world = SyntheticWorld("test", num_objects=(2, 2), motions=("left", "right", "up", "down"), appearance=0.0)
    return world[1]


@pytest.fixture(scope="module")
def clip(scene: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene's first 9 frames as a file, enlarged and with a border left and right: 320 x 256."""
    path = tmp_path_factory.mktemp("clip") / "scene.mp4"
    frames = scene.frames[:9].repeat(2, axis=1).repeat(2, axis=2)
    write_video(path, np.pad(frames, ((0, 0), (0, 0), (32, 32), (0, 0)), mode="edge"), 8)
    return path


def _box(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.nonzero(mask)
    return Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def _point(mask: NDArray[np.bool_]) -> Point:
    rows, columns = np.nonzero(mask)
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return Point(columns[nearest] + 0.5, rows[nearest] + 0.5)


def test_boxes_and_points_choose_objects_in_their_order(segmenter: Segmenter, scene: SyntheticScene) -> None:
    first, second = scene.ids[0] == 1, scene.ids[0] == 2
    ids = segmenter.segment_at(scene.frames[0], [_box(second), _point(first)])
    assert mask_iou(ids == 1, second) > 0.6
    assert mask_iou(ids == 2, first) > 0.6


def test_places_outside_and_boxes_inside_out_are_refused(segmenter: Segmenter, scene: SyntheticScene) -> None:
    for places, message in (
        ([Point(128.5, 3)], "point 128.5,3 lies outside of the 128 x 128 image"),
        ([Box(0, 0, 5, 200)], "box 0,0,5,200 lies outside"),
        ([Box(9, 9, 5, 20)], "box 9,9,5,20 has no inside; expected left < right"),
        ([], "There are 0 places; expected 1 to 12"),
    ):
        with pytest.raises(ValueError, match=message):
            segmenter.segment_at(scene.frames[0], places)


def test_objects_are_followed_through_a_file_in_its_own_coordinates(
    segmenter: Segmenter, scene: SyntheticScene, clip: Path
) -> None:
    box = Box(*(2 * value + (32 if axis % 2 == 0 else 0) for axis, value in enumerate(_box(scene.ids[0] == 1))))
    moves = extract_trajectory(segmenter, clip, [scene.plan.phrases[1], box], fps=4, num_frames=4, size=(64, 64))
    assert (moves.ids.shape, moves.fps) == ((4, 64, 64), 4.0)
    expected = MaskTrajectory(np.array([0, 2, 1], np.uint8)[scene.ids[:8:2]]).resize(64, 64)
    assert mean_iou(moves.ids, expected.ids) > 0.5


def test_what_can_not_be_extracted_is_one_clear_error(segmenter: Segmenter, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    box = Box(0, 0, 20, 20)
    for path, wanted, more, message in (
        (clip, [], {}, "0 objects are wanted; expected 1 to 12"),
        (clip, [Point(400, 3)], {}, "point 400,3 lies outside of the 320 x 256 image"),
        (clip, [box], {"size": (64, 32)}, "box 0,0,20,20 lies outside of the centred part"),
        (clip, [box], {"num_frames": 10}, "has 9 frames at 8 a second; expected at least 10"),
        (clip, [box], {"fps": 4.0, "num_frames": 6}, "has 5 frames at 4 a second; expected at least 6"),
        (clip, [box], {"fps": 30.0}, "has 8 frames a second; expected at least 30"),
        (tmp_path / "text.mp4", [box], {}, "damaged, cut off or no video"),
    ):
        with pytest.raises(ValueError, match=message):
            extract_trajectory(segmenter, path, wanted, **more)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="absent.mp4 is no file"):
        extract_trajectory(segmenter, tmp_path / "absent.mp4", [box])


def test_frames_are_the_first_or_spread_evenly() -> None:
    chosen, fps = choose_frames(33, 24.0, 17, spread=True)
    assert chosen.tolist() == list(range(0, 33, 2)) and fps == 12.0
    chosen, fps = choose_frames(33, 24.0, 17, spread=False)
    assert chosen.tolist() == list(range(17)) and fps == 24.0
    trajectory = MaskTrajectory(np.arange(10, dtype=np.uint8)[:, None, None] % 12, 5.0)
    chosen, fps = choose_frames(10, 5.0, 4, spread=True)
    resampled = trajectory.resample(4)
    assert resampled.ids[:, 0, 0].tolist() == chosen.tolist() and resampled.fps == fps
