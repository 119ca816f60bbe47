"""Stage 1: from the image, its first-frame masks and the motion prompt to the pictures of the motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.settings import Settings
from stages.sources import Clips
from stages.task import Batch
from stages.text_table import Texts
from ttm.pipelines.conditioning import Conditions, image_to_motion_condition


class ImageToMotion:
    """Samples of stage 1; see :class:`stages.task.Task`."""

    def __init__(self, cache: Clips, texts: Texts, settings: Settings) -> None:
        self.cache, self.texts, self.seed = cache, texts, settings.seed
        self.num_scenes = len(cache)
        self.nothing, self.nothing_mask = texts.lookup([""])

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        clips = self.cache.rows(self.cache.order(self.seed, indices))
        first_masks = clips.motion[:, :, :1] if clips.first_masks is None else clips.first_masks
        condition = image_to_motion_condition(clips.video[:, :, :1], first_masks, clips.motion.shape[2])
        text, _ = self.texts.lookup([plan.motion_prompt for plan in clips.plans])
        covered = clips.coverage.sum(dim=1, keepdim=True).clamp(max=1)
        return Batch(clips.motion, Conditions(condition, text), covered)
