"""Objects chosen by where they are: a box around one, or a point on it (SAM2's image predictor).

Letters: L objects, H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ttm.segmentation.candidates import fit_feature_sizes, without_specks
from ttm.segmentation.sam2_loading import hydra_left_as_found


class Box(NamedTuple):
    """A box around an object: its left, upper, right and lower edge, pixels from the image's top left corner."""

    x0: float
    y0: float
    x1: float
    y1: float


class Point(NamedTuple):
    """A place on an object, pixels from the image's top left corner."""

    x: float
    y: float


Place = Box | Point


def check_places(places: Sequence[Place], height: int, width: int) -> None:
    """Raise ValueError unless each place lies in an image of that size, and each box has an inside."""
    for place in places:
        xs, ys = place[0::2], place[1::2]
        if not (0 <= min(xs) and max(xs) <= width and 0 <= min(ys) and max(ys) <= height):
            raise ValueError(f"{shown(place)} lies outside of the {width} x {height} image.")
        if isinstance(place, Box) and not (place.x0 < place.x1 and place.y0 < place.y1):
            raise ValueError(f"{shown(place)} has no inside; expected left < right and top < bottom.")


def shown(place: Place) -> str:
    """A place as an error names it."""
    return f"{type(place).__name__.lower()} {','.join(f'{value:g}' for value in place)}"


def ids_at(sam2: nn.Module, image: NDArray[np.uint8], places: Sequence[Place]) -> NDArray[np.uint8]:
    """The objects at places of an image.

    A point may mean a part or the whole (SAM2 offers three masks): the one that SAM2 is surest of is taken.

    Args:
        sam2: of :func:`ttm.segmentation.sam2_loading.build_sam2`.
        image: uint8 [H, W, 3].
        places: L, inside the image.

    Returns:
        ids uint8 [H, W]: place ``l`` (from 0) has id ``l + 1``; where two masks overlap, the surer one is in front.

    Raises:
        ValueError: nothing is seen at a place, or only what lies under another object.
    """
    masks, quality = masks_at(sam2, image, places)
    ids = np.zeros(image.shape[:2], np.uint8)
    for index in np.argsort(quality, kind="stable"):
        ids[masks[index]] = index + 1
    for index, place in enumerate(places):
        if not (ids == index + 1).any():
            why = "lies wholly under another object" if masks[index].any() else "shows no object"
            raise ValueError(f"{shown(place)} {why}; expected a box around one, or a point on it.")
    return ids


def masks_at(
    sam2: nn.Module, image: NDArray[np.uint8], places: Sequence[Place]
) -> tuple[list[NDArray[np.bool_]], list[float]]:
    """For each place its mask [H, W], perhaps empty, and in 0..1 how sure SAM2 is of it; see :func:`ids_at`."""
    with hydra_left_as_found():
        from sam2.sam2_image_predictor import SAM2ImagePredictor
    with warnings.catch_warnings():  # it scripts its transforms, which newer torch calls deprecated
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        predictor: Any = SAM2ImagePredictor(sam2)
    fit_feature_sizes(predictor, sam2)
    predictor.set_image(image)
    masks, quality = [], []
    for place in places:
        if isinstance(place, Box):
            found, scores, _ = predictor.predict(box=np.array(place), multimask_output=False)
        else:
            found, scores, _ = predictor.predict(np.array([place]), np.ones(1, np.int32), multimask_output=True)
        best = int(np.argmax(scores))
        masks.append(without_specks(found[best] > 0))
        quality.append(float(scores[best]))
    return masks, quality
