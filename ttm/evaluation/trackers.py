"""What follows masks through videos for mask IoU: a saved Segmenter, or a public SAM 2 without a CLIP beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttm.metrics.followed_masks import Tracker
from ttm.metrics.weights import find_weights, locate_weights, module_weights
from ttm.segmentation import Segmenter
from ttm.segmentation.sam2_loading import build_sam2, hub_files, load_checkpoint, public_config
from ttm.segmentation.tracking import track_ids

_FILES = ("diffusion_pytorch_model.safetensors", "config.json")
_SEGMENTER_WEIGHTS = (_FILES, "mask IoU", "a Segmenter of save_pretrained")


class Sam2Tracker:
    """SAM 2 alone: it follows masks and finds none.

    Args:
        network: of the sam2 package.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        for module in network.modules():
            if isinstance(cache := getattr(module, "cache", None), dict):
                cache.clear()  # position encodings that were made where the network was before

    @torch.inference_mode()
    def track(self, frames: NDArray[np.uint8], first_ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """See :class:`ttm.metrics.followed_masks.Tracker`."""
        return track_ids(self._network, frames, first_ids.astype(np.uint8))


def load_tracker(source: str, device: str) -> tuple[Tracker, dict[str, Any]]:
    """The tracker, and its weights by source and hash.

    Args:
        source: a folder of a saved Segmenter, or a public SAM 2's Hub id.
        device: where it runs.

    Raises:
        ValueError: no such folder or id, or weights that can't be had.
    """
    if Path(source).is_dir():
        weights = find_weights(source, *_SEGMENTER_WEIGHTS)
        segmenter = Segmenter.from_pretrained(source, torch_dtype=torch.float32)
        return segmenter.eval().to(device), weights.to_dict()
    config, checkpoint = _public_files(source)
    network = build_sam2(public_config(config))
    load_checkpoint(network, checkpoint)
    return Sam2Tracker(network.eval().to(device)), module_weights(source, network)


def locate_tracker(source: str) -> list[Path]:
    """The files that :func:`load_tracker` would open, found or fetched; raises as it does."""
    if Path(source).is_dir():
        return locate_weights(source, *_SEGMENTER_WEIGHTS)[1]
    return [Path(_public_files(source)[1])]


def _public_files(source: str) -> tuple[str, str]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return hub_files(source)
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"mask IoU: the checkpoint of {source!r} is not on this machine and can't be downloaded now"
            f" ({type(error).__name__}); expected that Hub id's file, or a folder of a saved Segmenter."
        ) from error
