"""Sheets and paths: what is drawn, where, and in which colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.visualization import contact_sheet, draw_paths, labelled_rows, preview_sheet

PLAN = PromptPlan(
    "A square moves right while a block stays.",
    "the square moves right, the block stays",
    (ObjectPrompt("square", "the square moves right"), ObjectPrompt("block", "the block stays")),
)


def scene(frames: int = 9, side: int = 64) -> tuple[np.ndarray, MaskTrajectory]:
    """A grey clip; object 1 moves right by 4 px a frame, object 2 stays."""
    ids = np.zeros((frames, side, side), np.uint8)
    for t in range(frames):
        ids[t, 10:20, 8 + 4 * t : 18 + 4 * t] = 1
        ids[t, 44:56, 26:38] = 2
    return np.full((frames, side, side, 3), 128, np.uint8), MaskTrajectory(ids)


def near(picture: np.ndarray, colour: tuple[int, ...] | np.ndarray, distance: float = 40) -> np.ndarray:
    return np.linalg.norm(picture.astype(float) - np.asarray(colour, float), axis=-1) < distance


def test_a_path_runs_from_the_first_centre_to_the_last() -> None:
    frames, trajectory = scene()
    picture = np.asarray(draw_paths(frames[0], trajectory, scale=4))
    assert picture.shape == (256, 256, 3)
    red = np.argwhere(near(picture, PALETTE[1]))
    start, end = trajectory.centroids(1)[[0, -1]] * 4
    assert abs(red[:, 0].mean() - start[1]) < 4  # a level line, at the height of the centres
    assert red[:, 1].min() - start[0] > -16 and 0 < red[:, 1].max() - end[0] < 24  # the tip of the arrow lies ahead
    along = near(picture, PALETTE[1])[:, int(start[0]) + 16 : int(end[0]) - 8]
    assert along.any(axis=0).all()


def test_what_stays_is_a_point_and_the_rest_of_the_image_is_untouched() -> None:
    frames, trajectory = scene()
    picture = np.asarray(draw_paths(Image.fromarray(frames[0]), trajectory, scale=4))
    green = np.argwhere(near(picture, PALETTE[2]))
    assert 20 < len(green) < 40 * 40
    assert np.abs(green.mean(axis=0) - (trajectory.centroids(2)[0][::-1] + 0.5) * 4).max() < 2
    assert (picture[:20] == 128).all() and (picture[-20:] == 128).all()


def test_a_path_goes_on_where_its_object_was_hidden() -> None:
    frames, trajectory = scene()
    trajectory.ids[2:6][trajectory.ids[2:6] == 1] = 0
    trajectory.ids[trajectory.ids == 2] = 0
    whole = near(np.asarray(draw_paths(frames[0], trajectory, scale=4)), PALETTE[1])
    columns = np.flatnonzero(whole.any(axis=0))
    assert (np.diff(columns) == 1).all()
    trajectory.ids[:] = 0
    np.testing.assert_array_equal(np.asarray(draw_paths(frames[0], trajectory)), frames[0])


def test_rows_stand_below_each_other_with_their_labels() -> None:
    rows = {
        "first": np.full((3, 50, 50, 3), (200, 0, 0), np.uint8),
        "second\nsmall print": np.full((2, 50, 100, 3), (0, 0, 200), np.uint8),
    }
    sheet = labelled_rows(rows)
    assert sheet.dtype == np.uint8 and (sheet[0] == 255).all()
    red, blue = np.argwhere(near(sheet, (200, 0, 0))), np.argwhere(near(sheet, (0, 0, 200)))
    assert red[:, 0].max() < blue[:, 0].min()
    assert len(red) == pytest.approx(3 * 200 * 200, rel=0.01)
    assert len(blue) == pytest.approx(2 * 200 * 200, rel=0.02)  # twice as wide, of the same area
    left = red[:, 1].min()
    assert left == blue[:, 1].min()
    assert (sheet[red[:, 0].min() : red[:, 0].max(), :left] < 100).any()  # the label, dark, at the left
    longer = labelled_rows({"a label that is longer than the others": rows["first"]})
    assert np.argwhere(near(longer, (200, 0, 0)))[:, 1].min() > left + 100


def test_title_captions_and_legend_add_to_the_sheet() -> None:
    rows = {"a": np.full((2, 40, 40, 3), 90, np.uint8)}
    bare = labelled_rows(rows)
    titled = labelled_rows(rows, title=" ".join(["many words"] * 5))
    assert titled.shape[0] > bare.shape[0] + 30 and titled.shape[1] == bare.shape[1]
    longest = [labelled_rows(rows, title=" ".join(["many words"] * count)) for count in (30, 300)]
    assert longest[0].shape == longest[1].shape and longest[0].shape[0] > titled.shape[0]
    assert labelled_rows(rows, captions=["0.0 s", "1.0 s"]).shape[0] > bare.shape[0]
    legend = labelled_rows(rows, plan=PLAN)
    for number in (1, 2):
        swatch = np.argwhere(near(legend, PALETTE[number], 5))
        assert len(swatch) > 200 and swatch[:, 0].min() > bare.shape[0] - 20


def test_the_contact_sheet_shows_video_trajectory_and_both(tmp_path: Path) -> None:
    frames, trajectory = scene()
    path = tmp_path / "contact_sheet.png"
    picture = contact_sheet(path, frames, trajectory, PLAN, columns=3)
    written = Image.open(path).convert("RGB")
    np.testing.assert_array_equal(np.asarray(written), np.asarray(picture))
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    pixels = np.asarray(picture)
    mixed = (PALETTE[1].astype(float) + 128) / 2
    assert near(pixels, mixed, 8).sum() == pytest.approx(3 * 100 * (200 / 64) ** 2, rel=0.25)
    assert near(pixels, (128, 128, 128), 3).sum() > 4 * 200 * 200
    assert picture.width > 3 * 200


def test_the_preview_has_a_row_for_every_motion() -> None:
    frames, trajectory = scene()
    sheets = [preview_sheet(frames[0], {f"seed {seed}": trajectory for seed in range(count)}, PLAN) for count in (1, 6)]
    assert sheets[1].shape[0] - sheets[0].shape[0] == 5 * 208
    assert sheets[0].shape[1] > 5 * 200  # the paths and four frames
    short = MaskTrajectory(trajectory.ids[:1])
    assert preview_sheet(Image.fromarray(frames[0]), {"one frame": short}).shape[2] == 3


def test_bad_arguments() -> None:
    frames, trajectory = scene()
    with pytest.raises(ValueError, match="at least one label"):
        labelled_rows({})
    with pytest.raises(ValueError, match="'a' has no frame"):
        labelled_rows({"a": []})
    with pytest.raises(ValueError, match="'a' has shape"):
        labelled_rows({"a": frames[0]})
    with pytest.raises(ValueError, match="float64"):
        labelled_rows({"a": frames / 255})
    with pytest.raises(ValueError, match=r"expected \(64, 64\)"):
        draw_paths(frames[0, :32], trajectory)
    with pytest.raises(ValueError, match="as the trajectory"):
        contact_sheet("nowhere.png", frames[:3], trajectory)
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        contact_sheet("no/such/folder/sheet.png", frames, trajectory)
