"""What the user hands in, read and checked before any slow work: the image, masks, a plan, a trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.cli.errors import CommandError
from ttm.motion.mask_pictures import read_mask_file
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan, ids_from_masks, validate_ids


def read_image(path: str) -> NDArray[np.uint8]:
    """Read a picture by the pipelines' own rule.

    Returns:
        uint8 [H, W, 3].

    Raises:
        CommandError: no such file, no picture, a damaged one, or more than 8 bits a channel.
    """
    _expect_file(Path(path), "an image")  # before torch is loaded, which takes seconds
    from ttm.pipelines import inputs

    try:
        return inputs.read_image(path)
    except ValueError as error:
        raise CommandError(str(error)) from error


def read_masks(paths: Sequence[str], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read first-frame masks.

    Args:
        paths: one file of ids (an indexed or grey PNG with values 0..MAX_OBJECTS, a PNG in the palette's
            colours, a NPY of integers [H, W] or booleans [L, H, W]), or L black-and-white pictures, in order
            of the plan.
        size: width and height of the image; None = whatever the first file has.

    Returns:
        uint8 [H, W], id k is the k-th object of the plan.

    Raises:
        CommandError: a file that is missing, damaged, of another size, or holds no masks.
    """
    try:
        arrays = [read_mask_file(path) for path in paths]
    except ValueError as error:
        raise CommandError(str(error)) from error
    like = "the image" if size else str(paths[0])
    expected = size or (arrays[0].shape[-1], arrays[0].shape[-2])
    for path, array in zip(paths, arrays, strict=True):
        height, width = array.shape[-2:]
        if (width, height) != expected:
            raise CommandError(f"{path} is {width} x {height}; expected {expected[0]} x {expected[1]}, as {like}.")
    try:
        if len(arrays) == 1 and arrays[0].dtype != bool:
            ids = validate_ids(arrays[0], ndim=2, name=str(paths[0]))
        else:
            wrong = [path for path, array in zip(paths, arrays, strict=True) if array.dtype != bool]
            if wrong:
                raise CommandError(f"{wrong[0]} holds ids; expected it alone, or black-and-white pictures alone.")
            ids = ids_from_masks([mask for array in arrays for mask in np.atleast_3d(array.T).T], name="--mask")
    except ValueError as error:
        raise CommandError(str(error)) from error
    if not ids.any():
        raise CommandError(f"{paths[0]} shows no object; expected ids from 1, or white where the object is.")
    return ids


def read_plan(path: str) -> PromptPlan:
    """Read a plan.json.

    Raises:
        CommandError: no such file, or no plan.
    """
    _expect_file(Path(path), "a plan (plan.json)")
    try:
        return PromptPlan.load(path)
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error


def read_trajectory(path: str) -> MaskTrajectory:
    """Read a trajectory.npz.

    Raises:
        CommandError: no such file, no trajectory, or one without an object.
    """
    _expect_file(Path(path), "a trajectory (.npz)")
    try:
        trajectory = MaskTrajectory.load(path)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if not trajectory.object_ids:
        raise CommandError(f"{path} shows no object in any frame; expected ids from 1.")
    return trajectory


def _expect_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise CommandError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected {what}.")
