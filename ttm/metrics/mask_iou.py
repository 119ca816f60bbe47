"""Intersection over union of masks and of id clips.

Letters: T frames, H W pixels. Ids: 0 = background, 1.. = objects.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mask_iou(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Intersection over union of two boolean masks of one shape (any number of axes).

    Two empty masks agree: 1.0.

    Raises:
        ValueError: unequal shapes.
    """
    first, second = np.asarray(prediction, bool), np.asarray(truth, bool)
    if first.shape != second.shape:
        raise ValueError(
            f"prediction has shape {list(first.shape)}, truth {list(second.shape)}; expected equal shapes."
        )
    union = int(np.count_nonzero(first | second))
    return 1.0 if union == 0 else int(np.count_nonzero(first & second)) / union


def object_iou(prediction: ArrayLike, truth: ArrayLike, object_id: int) -> float:
    """One object's region similarity J over a clip: the mean over frames of its mask's IoU.

    Frames where the object is in neither clip say nothing and are left out; frames where it is in one of the
    two count 0. An object in no frame of either clip: 1.0.

    Args:
        prediction: integer ids [T, H, W], or [H, W] for a single image.
        truth: the same shape.
        object_id: the object, 1 or more.

    Raises:
        ValueError: unequal shapes, or not [T, H, W] or [H, W].
    """
    first, second = _id_clips(prediction, truth)
    a, b = first == object_id, second == object_id
    union = np.count_nonzero(a | b, axis=(1, 2))
    seen = union > 0
    if not seen.any():
        return 1.0
    return float((np.count_nonzero(a & b, axis=(1, 2))[seen] / union[seen]).mean())


def mean_iou(prediction: ArrayLike, truth: ArrayLike, object_ids: Iterable[int] | None = None) -> float:
    """The mean of :func:`object_iou` over objects: the J of video object segmentation.

    Args:
        prediction: integer ids [T, H, W] or [H, W].
        truth: the same shape.
        object_ids: which objects; None: those that the truth shows anywhere.

    Raises:
        ValueError: unequal shapes, or no object to compare.
    """
    first, second = _id_clips(prediction, truth)
    wanted = [int(i) for i in np.unique(second) if i] if object_ids is None else [int(i) for i in object_ids]
    if not wanted:
        raise ValueError("The truth shows no object; expected at least one id above 0.")
    return float(np.mean([object_iou(first, second, number) for number in wanted]))


def _id_clips(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    first, second = np.asarray(prediction), np.asarray(truth)
    if first.shape != second.shape or first.ndim not in (2, 3) or 0 in first.shape:
        raise ValueError(
            f"prediction has shape {list(first.shape)}, truth {list(second.shape)};"
            " expected two of [T, H, W] or two of [H, W]."
        )
    for name, array in (("prediction", first), ("truth", second)):
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} has dtype {array.dtype}; expected integer ids.")
    shape = (-1, *first.shape[-2:])
    return first.reshape(shape), second.reshape(shape)
