"""What the user hands in is read exactly, or refused with one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttm.cli.errors import CommandError
from ttm.cli.inputs import read_image, read_masks, read_plan, read_trajectory
from ttm.motion.mask_pictures import ids_picture
from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

SIZE = (7, 5)  # width, height


@pytest.fixture
def ids() -> np.ndarray:
    array = np.zeros((5, 7), np.uint8)
    array[1:3, 1:4] = 1
    array[4, 6] = 2
    return array


def _png(path: Path, array: np.ndarray) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def test_ids_picture_round_trip(tmp_path: Path, ids: np.ndarray) -> None:
    path = tmp_path / "ids.png"
    ids_picture(ids).save(path)
    np.testing.assert_array_equal(read_masks([str(path)], SIZE), ids)
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), PALETTE[ids])


def test_every_kind_of_mask_gives_the_same_ids(tmp_path: Path, ids: np.ndarray) -> None:
    np.save(tmp_path / "ids.npy", ids.astype(np.int64))
    np.save(tmp_path / "stack.npy", np.stack([ids == 1, ids == 2]))
    kinds = {
        "grey": [_png(tmp_path / "grey.png", ids)],
        "colours": [_png(tmp_path / "colours.png", PALETTE[ids])],
        "numbers": [str(tmp_path / "ids.npy")],
        "booleans": [str(tmp_path / "stack.npy")],
        "one a picture": [
            _png(tmp_path / "first.png", (ids == 1).astype(np.uint8) * 255),
            _png(tmp_path / "second.png", ids == 2),
        ],
    }
    for kind, paths in kinds.items():
        np.testing.assert_array_equal(read_masks(paths, SIZE), ids, err_msg=kind)


def test_black_and_white_in_colour_is_one_object(tmp_path: Path, ids: np.ndarray) -> None:
    white = np.repeat(((ids == 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_masks([_png(tmp_path / "m.png", white)], SIZE), (ids == 1).astype(np.uint8))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 7), np.uint8), "no .*pixel|shows no object"),
        (np.full((5, 7), 13, np.uint8), "values up to 13; expected ids 0..12"),
        (np.ones((7, 5), np.uint8), "5 x 7; expected 7 x 5, as the image"),
        (np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8), "colour picture"),
        (np.ones((5, 7), np.uint16), "expected an 8-bit grey or indexed PNG"),
    ],
)
def test_bad_mask_pictures_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        read_masks([_png(tmp_path / "mask.png", array)], SIZE)


def test_bad_mask_files_are_refused(tmp_path: Path, ids: np.ndarray) -> None:
    np.save(tmp_path / "float.npy", ids.astype(np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "float.npy").read_bytes()[:-9])
    (tmp_path / "text.png").write_text("no picture")
    whole = _png(tmp_path / "ids.png", ids)
    cases = {
        "float.npy": r"float32 \[5, 7\]; expected integers",
        "objects.npy": "no plain NumPy array",
        "cut.npy": "is damaged",
        "text.png": "no picture that can be read",
        "absent.png": "is not there; expected a mask",
    }
    for name, message in cases.items():
        with pytest.raises(CommandError, match=message):
            read_masks([str(tmp_path / name)], SIZE)
    with pytest.raises(CommandError, match="holds ids; expected it alone"):
        read_masks([whole, whole], SIZE)


def test_an_object_wholly_behind_another_is_refused(tmp_path: Path, ids: np.ndarray) -> None:
    mask = _png(tmp_path / "mask.png", (ids == 1).astype(np.uint8) * 255)
    with pytest.raises(CommandError, match="no visible pixel"):
        read_masks([mask, mask], SIZE)


def test_images_are_read_or_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    path = _png(tmp_path / "image.png", pixels)
    np.testing.assert_array_equal(read_image(path), pixels)
    (tmp_path / "cut.png").write_bytes(Path(path).read_bytes()[:60])
    deep = _png(tmp_path / "deep.png", np.ones((5, 7), np.uint16))
    for bad in (str(tmp_path / "cut.png"), deep, str(tmp_path), str(tmp_path / "absent.png")):
        with pytest.raises(CommandError, match="expected"):
            read_image(bad)


def test_plans_are_read_or_refused(tmp_path: Path) -> None:
    plan = PromptPlan("A ball rolls.", "the ball rolls", (ObjectPrompt("ball", "the ball rolls"),))
    plan.save(tmp_path / "plan.json")
    assert read_plan(str(tmp_path / "plan.json")) == plan
    (tmp_path / "typo.json").write_text('{"promt": "A ball rolls."}')
    (tmp_path / "cut.json").write_text('{"prompt": ')
    for name in ("typo.json", "cut.json", "absent.json"):
        with pytest.raises(CommandError, match=f"{name}.*expected|{name}.*JSON"):
            read_plan(str(tmp_path / name))


def test_trajectories_are_read_or_refused(tmp_path: Path, ids: np.ndarray) -> None:
    trajectory = MaskTrajectory(np.stack([ids] * 5), 8.0)
    trajectory.save(tmp_path / "whole.npz")
    assert read_trajectory(str(tmp_path / "whole.npz")) == trajectory
    MaskTrajectory(np.zeros((5, 5, 7), np.uint8)).save(tmp_path / "empty.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    for name, message in {"empty": "shows no object", "cut": "damaged", "absent": "is not there"}.items():
        with pytest.raises(CommandError, match=message):
            read_trajectory(str(tmp_path / f"{name}.npz"))
