"""Painted frames become a trajectory, in the order of their numbers, or one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ttm.motion.mask_pictures import ids_picture, read_mask_file, read_painted_frames
from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory


@pytest.fixture
def moves() -> MaskTrajectory:
    """Two objects over 12 frames; the second is hidden at first."""
    ids = np.zeros((12, 6, 20), np.uint8)
    for t in range(12):
        ids[t, 1:3, t : t + 4] = 1
        ids[t, 4:, 19 - t :] = 2 if t else 0
    return MaskTrajectory(ids, 6.0)


def _paint(folder: Path, frames: NDArray[np.generic], name: str = "clip2_mask{}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(t))
    return folder


def test_colours_ids_and_indexed_pictures_give_the_same(tmp_path: Path, moves: MaskTrajectory) -> None:
    colours = _paint(tmp_path / "colours", moves.to_video())
    grey = _paint(tmp_path / "grey", moves.ids)
    indexed = tmp_path / "indexed"
    indexed.mkdir()
    for t, frame in enumerate(moves.ids):
        ids_picture(frame).save(indexed / f"{t}.png")
    (indexed / "notes.txt").write_text("not a frame")
    (indexed / ".hidden_3.png").write_text("not a frame")
    for folder in (colours, grey, indexed):
        assert read_painted_frames(folder, 6.0) == moves  # 2 before 10: by number, not by letter


def test_black_and_white_frames_are_one_object(tmp_path: Path, moves: MaskTrajectory) -> None:
    mask = moves.ids == 2
    folder = _paint(tmp_path / "white", (mask * 255).astype(np.uint8))
    np.testing.assert_array_equal(read_painted_frames(folder).ids, mask.astype(np.uint8))


def test_transparent_pixels_are_background(tmp_path: Path, moves: MaskTrajectory) -> None:
    ids, path = moves.ids[3], tmp_path / "mask.png"
    shown = ids == 1
    white = np.full((*ids.shape, 4), 255, np.uint8)
    white[..., 3] = 255 * shown
    Image.fromarray(white).save(path)
    np.testing.assert_array_equal(read_mask_file(path), shown)
    white[~shown, :3] = 90, 80, 70  # what editors leave below the transparent
    Image.fromarray(white).save(path)
    np.testing.assert_array_equal(read_mask_file(path), shown)
    ids_picture(ids).save(path, transparency=2)  # an index that is transparent
    np.testing.assert_array_equal(read_mask_file(path), ids * shown)
    white[0, 0, 3] = 100
    Image.fromarray(white).save(path)
    with pytest.raises(ValueError, match="mask.png has half-transparent pixels; expected opaque ones"):
        read_mask_file(path)


def test_bad_folders_are_one_clear_error(tmp_path: Path, moves: MaskTrajectory) -> None:
    def spoiled(name: str, file: str, frame: NDArray[np.generic]) -> Path:
        folder = _paint(tmp_path / name, moves.ids)
        Image.fromarray(frame).save(folder / file)
        return folder

    (tmp_path / "nothing").mkdir()
    photograph = np.random.default_rng(0).integers(0, 255, (6, 20, 3), np.uint8)
    cases = {
        spoiled("size", "clip_12.png", moves.ids[0, :, :10]): "clip_12.png is 10 x 6; expected 20 x 6, as clip2_mask0",
        spoiled("twice", "other_3.png", moves.ids[0]): "other_3.png and clip2_mask3.png have the same number",
        spoiled("unnamed", "first.png", moves.ids[0]): "first.png has no number",
        spoiled("photo", "clip_12.png", photograph): "clip_12.png is a colour picture",
        spoiled("white", "clip_12.png", PALETTE[7 * (moves.ids[0] > 0)]): "clip_12.png is black and white; expected",
        _paint(tmp_path / "black", moves.ids[:3] * 0): "shows no object",
        tmp_path / "nothing": "holds no mask picture",
        tmp_path / "absent": "is no folder",
    }
    for folder, message in cases.items():
        with pytest.raises(ValueError, match=message):
            read_painted_frames(folder)
