"""The rule for aspect ratio and size, and the reading of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.inputs import (
    centre_crop,
    check_num_frames,
    fit_ids,
    fit_image,
    fit_trajectory,
    read_image,
    to_model,
    to_uint8,
)


@pytest.mark.parametrize(
    ("size", "to", "box"),
    [
        ((100, 100), (128, 128), (0, 0, 100, 100)),
        ((720, 1280), (128, 128), (0, 280, 720, 720)),
        ((1280, 720), (128, 128), (280, 0, 720, 720)),
        ((480, 854), (128, 224), (0, 7, 480, 840)),
        ((5, 1000), (128, 128), (0, 497, 5, 5)),
        ((1, 1), (64, 128), (0, 0, 1, 1)),
    ],
)
def test_the_largest_centred_part(size: tuple[int, int], to: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert centre_crop(size, to) == box


@pytest.mark.parametrize("size", [(64, 64), (90, 200), (333, 127), (20, 20)])
@pytest.mark.parametrize("to", [(32, 32), (32, 64)])
def test_image_masks_and_trajectory_stay_together(size: tuple[int, int], to: tuple[int, int]) -> None:
    """A white disc drawn into all three is in the same place after."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    centre, radius = (size[0] * 0.48, size[1] * 0.53), min(centre_crop(size, to)[2:]) * 0.3
    disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    image = np.repeat(disc[..., None], 3, axis=2).astype(np.uint8) * 255
    bright = fit_image(image, *to)[..., 0] > 127
    ids = fit_ids(disc.astype(np.uint8), *to) == 1
    moves = fit_trajectory(MaskTrajectory(disc[None].astype(np.uint8)), size, *to).ids[0] == 1
    np.testing.assert_array_equal(ids, moves)
    # At most the rim differs, where one is smoothed and the other takes the nearest pixel.
    assert (bright != ids).sum() <= 0.12 * ids.sum()
    rows_seen, columns_seen = ids.any(axis=1).sum(), ids.any(axis=0).sum()
    assert abs(int(rows_seen) - int(columns_seen)) <= 1  # round things stay round


def test_what_has_the_working_size_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_image(pixels, 32, 48), pixels)
    moves = MaskTrajectory(np.ones((5, 32, 48), np.uint8))
    assert fit_trajectory(moves, (100, 100), 32, 48) is moves


def test_a_trajectory_drawn_at_another_size_of_the_same_aspect() -> None:
    ids = np.zeros((3, 90, 160), np.uint8)
    ids[:, 40:50, 75:85] = 1
    fitted = fit_trajectory(MaskTrajectory(ids, fps=24), (720, 1280), 64, 64)
    assert fitted.ids.shape == (3, 64, 64) and fitted.fps == 24
    rows, columns = np.nonzero(fitted.ids[0])
    assert abs(rows.mean() - 31.5) < 1 and abs(columns.mean() - 31.5) < 1


def test_a_trajectory_whose_object_would_be_cut_away() -> None:
    ids = np.zeros((3, 90, 160), np.uint8)
    ids[:, 40:50, 75:85], ids[:, 40:50, 2:9] = 1, 2
    with pytest.raises(
        ValueError, match="Object 2 lies outside of the centred 90 x 90 part of the 90 x 160 trajectory"
    ):
        fit_trajectory(MaskTrajectory(ids), (720, 1280), 64, 64)
    ids[0, 40:50, 2:40] = 2  # it begins inside and leaves
    assert fit_trajectory(MaskTrajectory(ids), (720, 1280), 64, 64).object_ids == [1, 2]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_images_of_eight_bits_or_fewer(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGB", (6, 4), (200, 200, 200)).convert(mode)
    expected = np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(read_image(picture), expected)
    if mode != "CMYK":
        picture.save(tmp_path / "image.png")
        np.testing.assert_array_equal(read_image(tmp_path / "image.png"), expected)
    assert expected.shape == (4, 6, 3)


def test_files_that_pil_has_only_opened_are_judged_as_paths_are(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 6, 3), 40000, np.uint16))
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    for name, words in (("deep.png", "more than 8 bits"), ("cut.jpg", "cannot be read .*truncated")):
        for image in (tmp_path / name, Image.open(tmp_path / name)):
            with pytest.raises(ValueError, match=words):
                read_image(image)


def test_a_cameras_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (6, 4))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    pixels = read_image(tmp_path / "turned.png")
    assert pixels.shape == (6, 4, 3) and pixels[0, 3, 0] == 255


@pytest.mark.parametrize(("value", "good"), [(1, True), (5, True), (17, True), (16, False), (3, False)])
def test_frames_that_pack(value: Any, good: bool) -> None:
    if good:
        assert check_num_frames(np.int64(value), 4) == value
        return
    with pytest.raises(ValueError, match="nearest are"):
        check_num_frames(value, 4)


def test_pixels_survive_the_way_to_the_model_and_back() -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 8, 16, 3)
    tensor = to_model(frames, torch.device("cpu"))
    assert tensor.shape == (1, 3, 2, 8, 16) and tensor.min() == -1 and tensor.max() == 1
    np.testing.assert_array_equal(to_uint8(tensor), frames)
