"""Candidate masks of an image: SAM2's automatic mask generator, cleaned of specks, duplicates and whole-image
masks.

Letters: M masks, H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import nn

from ttm.segmentation.sam2_loading import hydra_left_as_found

GENERATOR_DEFAULTS: dict[str, Any] = {
    "points_per_side": 32,
    "points_per_batch": 64,
    "pred_iou_thresh": 0.8,
    "stability_score_thresh": 0.92,
    "box_nms_thresh": 0.8,
}
"""What a segmenter's config may set of ``SAM2AutomaticMaskGenerator``, with values for the public weights."""

SMALLEST, LARGEST = 0.001, 0.8
"""Least and greatest area of a candidate, as a fraction of the image."""
_DUPLICATE = 0.85  # IoU above which two masks are one
_SPECK = 0.1  # pieces smaller than this fraction of a mask's largest piece are dropped


@dataclass(frozen=True)
class Candidates:
    """Masks found in an image, best first.

    Attributes:
        masks: bool [M, H, W].
        quality: float32 [M] in 0..1, SAM2's own prediction of each mask's IoU.
    """

    masks: NDArray[np.bool_]
    quality: NDArray[np.float32]


def find_candidates(sam2: nn.Module, image: NDArray[np.uint8], settings: Mapping[str, Any]) -> Candidates:
    """All masks that SAM2 finds in an image.

    Args:
        sam2: of :func:`ttm.segmentation.sam2_loading.build_sam2`.
        image: uint8 [H, W, 3].
        settings: some of ``GENERATOR_DEFAULTS``.

    Returns:
        the candidates; none at all is possible.
    """
    with hydra_left_as_found():
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    with warnings.catch_warnings():  # it scripts its transforms, which newer torch calls deprecated
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        generator = SAM2AutomaticMaskGenerator(sam2, **{**GENERATOR_DEFAULTS, **settings})
    fit_feature_sizes(generator.predictor, sam2)
    found = sorted(generator.generate(image), key=lambda each: -each["predicted_iou"])
    pixels = image.shape[0] * image.shape[1]
    kept: list[tuple[NDArray[np.bool_], float]] = []
    flat: list[NDArray[np.float32]] = []
    for each in found:
        mask = without_specks(each["segmentation"])
        if not SMALLEST * pixels <= mask.sum() <= LARGEST * pixels:
            continue
        line = rearrange(mask, "h w -> (h w)").astype(np.float32)
        if flat and _ious(np.stack(flat), line).max() > _DUPLICATE:
            continue
        flat.append(line)
        kept.append((mask, float(each["predicted_iou"])))
    masks = np.stack([mask for mask, _ in kept]) if kept else np.zeros((0, *image.shape[:2]), bool)
    return Candidates(masks, np.array([quality for _, quality in kept], np.float32))


def fit_feature_sizes(predictor: Any, sam2: Any) -> None:
    """Tell SAM2's image predictor the sizes of the feature maps: it assumes an input of 1024 pixels."""
    side = sam2.image_size
    predictor._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]


def without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask [H, W] without the pieces that are much smaller than its largest piece."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = 0
    return (areas >= _SPECK * areas.max())[labels] & mask


def _ious(masks: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    shared = masks @ mask
    return shared / (masks.sum(axis=1) + mask.sum() - shared)
