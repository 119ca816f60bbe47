"""Coverage of tokens: against counting by hand, and what it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttm.motion.token_grid import object_coverage


def counted(ids: np.ndarray, num_objects: int, grid: tuple[int, int, int]) -> np.ndarray:
    """Coverage by loops over pixels: frame 0 alone, then equal groups of frames."""
    batch, length, height, width = ids.shape
    frames, rows, columns = grid
    out = np.zeros((batch, num_objects, *grid))
    size = (length - 1) // (frames - 1) if frames > 1 else 1
    for sample in range(batch):
        for t in range(length):
            group = 0 if t == 0 else 1 + (t - 1) // size
            for y in range(height):
                for x in range(width):
                    place = (group, y * rows // height, x * columns // width)
                    if ids[sample, t, y, x]:
                        out[(sample, ids[sample, t, y, x] - 1, *place)] += 1
    weight = np.full(frames, size * (height // rows) * (width // columns), float)
    weight[0] /= size
    return out / weight[:, None, None]


@pytest.mark.parametrize(("length", "frames"), [(5, 2), (9, 3), (1, 1), (4, 4)])
def test_it_is_the_share_of_a_tokens_pixels_and_frames(length: int, frames: int) -> None:
    ids = np.random.default_rng(length).integers(0, 4, (2, length, 8, 12))
    coverage = object_coverage(torch.from_numpy(ids), 3, (frames, 4, 3))
    assert coverage.dtype == torch.float32
    np.testing.assert_allclose(coverage.numpy(), counted(ids, 3, (frames, 4, 3)), atol=1e-6)


def test_frame_0_fills_a_token_alone_and_later_frames_share_one() -> None:
    ids = torch.zeros(1, 5, 4, 4, dtype=torch.uint8)
    ids[0, 0, :2, :2] = 1  # in frame 0, the first quarter
    ids[0, 3, 2:, 2:] = 1  # in one frame of the group of four, the last quarter
    coverage = object_coverage(ids, 1, (2, 2, 2))[0, 0]
    assert coverage[0].tolist() == [[1, 0], [0, 0]]
    assert coverage[1].tolist() == [[0, 0], [0, 0.25]]


def test_without_a_frame_alone_the_groups_are_equal() -> None:
    ids = torch.zeros(1, 4, 2, 2, dtype=torch.long)
    ids[0, 0] = 2
    coverage = object_coverage(ids, 2, (2, 1, 1), first_frame_alone=False)
    assert coverage[0, :, :, 0, 0].tolist() == [[0, 0], [0.5, 0]]


def test_no_pixel_is_lost_where_the_grid_does_not_divide_the_frame() -> None:
    for y in range(7):
        for x in range(10):
            ids = torch.zeros(1, 1, 7, 10, dtype=torch.uint8)
            ids[0, 0, y, x] = 1
            assert object_coverage(ids, 1, (1, 3, 4)).amax() > 0


def test_an_absent_object_has_no_coverage() -> None:
    coverage = object_coverage(torch.ones(1, 1, 4, 4, dtype=torch.uint8), 3, (1, 2, 2))
    assert coverage[0, 0].eq(1).all() and coverage[0, 1:].eq(0).all()


@pytest.mark.parametrize(
    ("ids", "num_objects", "grid", "alone", "message"),
    [
        (torch.zeros(1, 6, 4, 4, dtype=torch.uint8), 1, (3, 2, 2), True, r"6 frames; expected 1 \+ a multiple"),
        (torch.zeros(1, 5, 4, 4, dtype=torch.uint8), 1, (1, 2, 2), True, "5 frames; expected 1 frame"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 1, (2, 2, 2), True, "1 frames; expected"),
        (torch.zeros(1, 5, 4, 4, dtype=torch.uint8), 1, (2, 2, 2), False, "a multiple of 2 frames"),
        (torch.full((1, 1, 4, 4), 3), 2, (1, 2, 2), True, r"values 3\.\.3; expected 0\.\.2"),
        (torch.full((1, 1, 4, 4), -1), 2, (1, 2, 2), True, "values -1"),
        (torch.zeros(1, 1, 4, 4), 1, (1, 2, 2), True, "float32"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), 1, (1, 2, 2), True, r"\[1, 4, 4\]; expected"),
        (torch.zeros(1, 1, 0, 4, dtype=torch.uint8), 1, (1, 2, 2), True, "no empty axis"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 0, (1, 2, 2), True, "num_objects is 0"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 1, (1, 8, 2), True, "8 x 2 grid"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 1, (0, 2, 2), True, r"grid is \(0, 2, 2\)"),
    ],
)
def test_bad_input_is_named(
    ids: torch.Tensor, num_objects: int, grid: tuple[int, int, int], alone: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        object_coverage(ids, num_objects, grid, first_frame_alone=alone)
