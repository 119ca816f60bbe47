"""What a ControlNet is shown of a first frame's masks (the few-shot paper, arXiv 2503.18386, Eq. 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttm.motion.mask_trajectory import PALETTE

CONTROL_PICTURES = ("palette", "silhouette")


def control_picture(ids: NDArray[np.uint8], kind: str = "palette") -> Image.Image:
    """What ControlNet sees of a first frame's masks.

    Args:
        ids: uint8 [H, W].
        kind: "palette", each object in its colour (what ttm-tiny-unet's ControlNet was trained on), or "silhouette",
            white on black (what public ControlNets for scribbles and segments come nearest to).

    Raises:
        ValueError: another kind.
    """
    if kind not in CONTROL_PICTURES:
        raise ValueError(f"control_picture is {kind!r}; expected one of {', '.join(CONTROL_PICTURES)}.")
    if kind == "palette":
        return Image.fromarray(PALETTE[ids])
    return Image.fromarray(((ids > 0) * 255).astype(np.uint8)).convert("RGB")
