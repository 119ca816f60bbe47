"""Masks that come with a source, at a clip's frames and size.

Letters: T frames of a clip, N frames of the source, H W pixels of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.prepare.footage import Footage
from tools.prepare.sources import Source, opened
from ttm.data.clip_folder import centred_part, read_masks
from ttm.data.sa_v import FolderMasklets, JsonMasklets, Masklets
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.resize_ids import resize_ids


class GivenMasks:
    """The masks of a source.

    Args:
        masks: SA-V's masklets, or one picture of ids a frame.
        footage: the source they belong to.
        max_objects: most objects to keep of masklets.

    Raises:
        ValueError: masks of another size or another number of frames than the source.
    """

    def __init__(self, masks: Masklets | MaskTrajectory, footage: Footage, max_objects: int) -> None:
        self._masks, self._own, self._max_objects = masks, footage.size, max_objects
        frames = footage.timeline.num_frames
        size = masks.size if isinstance(masks, Masklets) else masks.ids.shape[1:]
        if tuple(size) != footage.size:
            raise ValueError(f"its masks are {size[1]} x {size[0]} pixels; expected {self._own[1]} x {self._own[0]}")
        if isinstance(masks, Masklets) and masks.frames[-1] >= frames:
            raise ValueError(f"its masks reach to frame {masks.frames[-1]}; expected none after {frames - 1}, its last")
        if isinstance(masks, MaskTrajectory) and masks.num_frames != frames:
            raise ValueError(f"it has {masks.num_frames} masks; expected {frames}, as it has frames")

    def at(self, numbers: Sequence[int], size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The ids of a clip.

        Args:
            numbers: of its frames in the source.
            size: (H, W).

        Returns:
            ids uint8 [T, H, W], and bool [T]: whether a frame has masks of its own; else it has those of the nearest
            frame that does.

        Raises:
            ValueError: no object in the clip, or damaged masks.
        """
        if isinstance(self._masks, MaskTrajectory):
            ids, known = self._masks.ids[list(numbers)], np.ones(len(numbers), bool)
        else:
            annotated = np.asarray(self._masks.frames)
            nearest = np.abs(annotated[None] - np.asarray(numbers)[:, None]).argmin(axis=1)
            times, inverse = np.unique(nearest, return_inverse=True)
            ids = self._masks.ids(times.tolist(), self._max_objects)[inverse]
            known = annotated[nearest] == np.asarray(numbers)
        if size != self._own:
            box = centred_part(self._own, size)
            ids = np.stack([resize_ids(frame[box], *size) for frame in ids])
        return ids, known


def load_given_masks(folder: Path, source: Source, footage: Footage, max_objects: int) -> GivenMasks | None:
    """The masks of a source, None where it has none.

    Raises:
        ValueError: damaged masks, or masks that don't fit the source.
    """
    if source.masks is None:
        return None
    with opened(folder, source.masks) as path:
        if source.masks_kind == "trajectory":
            return GivenMasks(read_masks(path), footage, max_objects)
        masks = FolderMasklets(path) if path.is_dir() else JsonMasklets(path)
        return GivenMasks(masks, footage, max_objects)
