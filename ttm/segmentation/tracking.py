"""First-frame ids through a video with SAM2's video predictor.

Letters: T frames, H W pixels, L objects.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn


def track_ids(sam2: nn.Module, frames: NDArray[np.uint8], first_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Follow the objects of the first frame.

    Args:
        sam2: of :func:`ttm.segmentation.sam2_loading.build_sam2`.
        frames: uint8 [T, H, W, 3].
        first_ids: uint8 [H, W], 0 = background.

    Returns:
        uint8 [T, H, W]; frame 0 as it was given; where two objects claim a pixel, the surer one has it.
    """
    predictor: Any = sam2
    numbers = [int(value) for value in np.unique(first_ids) if value]
    ids = np.zeros(frames.shape[:3], np.uint8)
    ids[0] = first_ids
    if not numbers or len(frames) == 1:
        return ids
    # SAM2 draws progress bars that cannot be turned off.
    with TemporaryDirectory(prefix="ttm-track-") as folder, contextlib.redirect_stderr(io.StringIO()):
        _write_frames(frames, Path(folder))
        state = predictor.init_state(folder, offload_video_to_cpu=True)
        for number in numbers:
            predictor.add_new_mask(state, frame_idx=0, obj_id=number, mask=torch.from_numpy(first_ids == number))
        for t, objects, logits in predictor.propagate_in_video(state):
            if t > 0:
                score, best = logits[:, 0].float().max(dim=0)
                owner = torch.tensor(objects, device=best.device)[best]
                ids[t] = torch.where(score > 0, owner, 0).cpu().numpy()
    return ids


def _write_frames(frames: NDArray[np.uint8], folder: Path) -> None:
    """SAM2 reads a folder of .jpg files, by their content: PNG under that name is read as PNG, without loss.

    Its other way in, an mp4, would leave decord's bridge set to torch.
    """
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t:05d}.jpg", format="PNG", compress_level=1)
