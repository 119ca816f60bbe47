"""First-frame masks by a segmenter: of the part of an image that a video will show.

Letters: H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttm.motion.resize_ids import resize_ids
from ttm.objects import PromptPlan, validate_ids
from ttm.pipelines.embedded import embedded_folder, embedded_models
from ttm.pipelines.inputs import centre_crop, check_masks_against_plan, cut, fit_image
from ttm.segmentation import Segmenter

LONGEST_SIDE = 1024
"""Pixels on the longer side that a segmenter is shown at most, if it does not say what its network takes in."""


def require_segmenter(segmenter: Any) -> Any:
    """The segmenter, or ValueError if a pipeline has none."""
    if segmenter is None:
        raise ValueError(
            "This pipeline has no segmenter to find the objects with; expected masks= (ids [H, W] or L boolean"
            " masks), or trajectory=, or a pipeline opened with segmenter=ttm.Segmenter."
        )
    return segmenter


def embedded_segmenter(name: str) -> Segmenter:
    """The segmenter of an embedded model, for one that has none of its own.

    Raises:
        ValueError: there is no embedded model of this name, or it has no segmenter.
    """
    folder = _segmenter_folder(name)
    if folder is None:
        names = ", ".join(filter(_segmenter_folder, embedded_models())) or "none in this installation"
        raise ValueError(f"segmenter_from is {name!r}; expected an embedded model with a segmenter ({names}).")
    return Segmenter.from_pretrained(folder, torch_dtype=torch.float32)


def _segmenter_folder(name: str) -> Path | None:
    model = embedded_folder(name)
    return model / "segmenter" if model is not None and (model / "segmenter").is_dir() else None


def segment_shown_part(
    segmenter: Any, image: NDArray[np.uint8], plan: PromptPlan, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Find a plan's objects in the part of an image that is kept for a video.

    Args:
        segmenter: a ``ttm.Segmenter``, or anything with its ``segment``.
        image: uint8 [H, W, 3].
        plan: whose phrases to look for.
        size: (height, width) of the video.

    Returns:
        ids uint8 [H, W]; 0 outside of that part.

    Raises:
        ValueError: no segmenter, or a phrase that was not found.
    """
    require_segmenter(segmenter)
    top, left, height, width = box = centre_crop((image.shape[0], image.shape[1]), size)
    # More pixels than its network takes in cost a segmenter time and memory, and show it nothing more.
    network = getattr(getattr(segmenter, "sam2", None), "image_size", LONGEST_SIDE)
    scale = min(1.0, max(network, *size) / max(height, width))
    seen = fit_image(cut(image, box), max(1, round(height * scale)), max(1, round(width * scale)))
    found = validate_ids(segmenter.segment(seen, plan.phrases), ndim=2, name="the segmenter's ids")
    ids = np.zeros(image.shape[:2], np.uint8)
    ids[top : top + height, left : left + width] = resize_ids(found, height, width)
    check_masks_against_plan(ids, plan)
    return ids
