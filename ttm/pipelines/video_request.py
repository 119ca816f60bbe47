"""What a call of ``Pipeline`` asks for, checked before the planner or a model runs.

Letters: H W pixels, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan
from ttm.pipelines.autoencoders import LatentFormat
from ttm.pipelines.inputs import check_num_frames, check_size, fit_trajectory, read_image, read_masks


@dataclass(frozen=True)
class Packing:
    """What autoencoder and transformer ask of a clip.

    Attributes:
        group: frames of one latent frame after the first.
        multiple: of height and width, pixels.
    """

    group: int
    multiple: tuple[int, int]

    @classmethod
    def of(cls, vae: Any, transformer: Any) -> Packing:
        """Of an autoencoder and a host."""
        form, patch = LatentFormat.of(vae), transformer.token_patch
        return cls(form.group, (form.space * patch[1], form.space * patch[2]))


@dataclass(frozen=True)
class VideoRequest:
    """Checked arguments of a call.

    Attributes:
        image: uint8 [H, W, 3], as the user gave it.
        prompt: the sentence; only used without a plan.
        plan: the user's, or None.
        masks: ids uint8 [H, W] of the image's size, or None.
        trajectory: at the working size, or None.
        num_frames: T.
        size: the working size, (height, width).
    """

    image: NDArray[np.uint8]
    prompt: str
    plan: PromptPlan | None
    masks: NDArray[np.uint8] | None
    trajectory: MaskTrajectory | None
    num_frames: int
    size: tuple[int, int]

    @classmethod
    def read(
        cls,
        packing: Packing,
        image: Any,
        prompt: Any,
        masks: Any,
        trajectory: Any,
        plan: Any,
        num_frames: Any,
        height: Any,
        width: Any,
    ) -> VideoRequest:
        """Check everything that can be checked without a plan; arguments as in ``Pipeline``, none left open.

        Raises:
            ValueError: anything wrong with them.
        """
        picture = read_image(image)
        size = check_size(height, width, packing.multiple)
        if plan is not None and not isinstance(plan, PromptPlan):
            raise ValueError(f"plan is a {type(plan).__name__}; expected a ttm.PromptPlan, or None.")
        if plan is None and (not isinstance(prompt, str) or not prompt.strip()):
            raise ValueError(f"prompt is {prompt!r}; expected a sentence about how the objects move.")
        ids = None if masks is None else read_masks(masks, picture.shape[:2])
        if trajectory is not None:
            trajectory = fit_trajectory(trajectory, picture.shape[:2], *size)
        frames = check_num_frames(num_frames, packing.group)
        return cls(picture, prompt or "", plan, ids, trajectory, frames, size)


def clip_length(num_frames: Any, trajectory: Any, default: int, group: int) -> Any:
    """How many frames a video gets: the trajectory's, else the number asked for, else the pipeline's own.

    Raises:
        ValueError: the trajectory has another number than the one asked for, or one that can't be packed.
    """
    if not isinstance(trajectory, MaskTrajectory):
        return default if num_frames is None else num_frames
    change = "trajectory.resample(num_frames), or --num-frames beside --trajectory,"
    hint = f" The frames are the trajectory's: {change} changes them."
    length = check_num_frames(trajectory.num_frames, group, hint)
    if num_frames not in (None, length):
        raise ValueError(
            f"num_frames is {num_frames}, the trajectory has {length} frames; expected the same (leave num_frames"
            " out, or hand in trajectory.resample(num_frames))."
        )
    return length
