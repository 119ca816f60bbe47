"""PSNR against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ttm.metrics.psnr import psnr


def test_a_constant_error_has_the_closed_form() -> None:
    reference = np.full((3, 8, 8, 3), 100, np.uint8)
    assert psnr(reference + 5, reference) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(reference - 5, reference) == pytest.approx(20 * math.log10(255 / 5)), "no wrap-around of uint8"


def test_equal_pixels_are_infinite_and_black_against_white_is_zero() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 255) == pytest.approx(0.0)


def test_one_mean_over_the_whole_clip() -> None:
    reference = np.zeros((2, 4, 4, 3), np.uint8)
    frames = reference.copy()
    frames[1] = 10  # frame 0 alone would be infinite
    assert psnr(frames, reference) == pytest.approx(10 * math.log10(255**2 / 50))


def test_a_mask_leaves_the_rest_out() -> None:
    reference = np.zeros((2, 4, 4, 3), np.uint8)
    frames = reference.copy()
    frames[:, :2] = 200
    where = np.zeros((2, 4, 4), bool)
    where[:, 2:] = True
    assert psnr(frames, reference, where) == math.inf
    assert psnr(frames, reference, ~where) == pytest.approx(20 * math.log10(255 / 200))


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), None, "uint8"),
        (np.zeros((4, 5, 3), np.uint8), None, "equal shapes"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), "no True pixel"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), bool), "mask is"),
    ],
)
def test_bad_input_says_what_is_expected(image: np.ndarray, mask: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        psnr(image, np.zeros((4, 4, 3), np.uint8), mask)
