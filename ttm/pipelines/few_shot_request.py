"""What a call of the few-shot pipeline asks for, checked before a model runs.

Letters: T frames, W frames of a window, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttm.motion.control_picture import control_picture
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.pipelines.autoencoders import LatentFormat
from ttm.pipelines.inputs import check_count, check_size, fit_image, fit_trajectory, read_image
from ttm.pipelines.stage_pipeline import check_output_type


@dataclass(frozen=True)
class FewShotRequest:
    """Checked arguments of a call.

    Attributes:
        prompt: what happens.
        trajectory: at the working size, as many frames as the video.
        first_frame: the user's, uint8 [H, W, 3] at the working size; None: it is drawn.
        with_controlnet: it is drawn by ControlNet.
        size: the working size, (height, width).
    """

    prompt: str
    trajectory: MaskTrajectory
    first_frame: NDArray[np.uint8] | None
    with_controlnet: bool
    size: tuple[int, int]

    @classmethod
    def read(
        cls,
        pipe: Any,
        prompt: Any,
        trajectory: Any,
        image: Any,
        num_frames: Any,
        num_clips: Any,
        size: tuple[Any, Any],
        use_controlnet: bool | None,
        output_type: str,
    ) -> FewShotRequest:
        """Check the arguments of ``FewShotPipeline.__call__``.

        Raises:
            ValueError: anything wrong with them.
        """
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompt is {prompt!r}; expected a text that says what happens.")
        wanted = tuple(pipe.config[n] if v is None else v for n, v in zip(("height", "width"), size, strict=True))
        space = LatentFormat.of(pipe.vae).space
        height, width = check_size(wanted[0], wanted[1], (space, space))
        picture = None if image is None else read_image(image)
        seen = (height, width) if picture is None else (picture.shape[0], picture.shape[1])
        if picture is None and isinstance(trajectory, MaskTrajectory):
            seen = (trajectory.height, trajectory.width)  # no picture that they belong to: cut by their own centre
        moves = fit_trajectory(trajectory, seen, height, width)
        if not moves.ids[0].any():
            raise ValueError("The first frame of the trajectory shows no object; expected one to begin with.")
        length = video_length(num_frames, num_clips, pipe.config.num_frames, moves.num_frames)
        check_output_type(output_type)
        control_picture(moves.ids[0], pipe.config.control_picture)
        controlled = _with_controlnet(pipe, picture is not None, use_controlnet)
        frame = None if picture is None else fit_image(picture, height, width)
        return cls(prompt, MaskTrajectory(moves.ids[:length], moves.fps), frame, controlled, (height, width))


def video_length(num_frames: Any, num_clips: Any, window: int, available: int) -> int:
    """T: the number asked for, that of ``num_clips`` windows, or that of the masks.

    Raises:
        ValueError: both are asked for, fewer than 2 frames, or the masks are shorter than the video.
    """
    if num_frames is not None and num_clips is not None:
        raise ValueError(f"num_frames is {num_frames} and num_clips {num_clips}; expected one of the two.")
    length = available if num_frames is None else check_count(num_frames, "num_frames")
    if num_clips is not None:
        length = 1 + check_count(num_clips, "num_clips") * (window - 1)
    if length < 2:
        raise ValueError(f"The video would have {length} frame; expected at least 2, the first one and what follows.")
    if length > available:
        raise ValueError(
            f"The trajectory has {available} frames, the video asked for {length}; expected masks for every frame"
            f" (draw or extract more, or ask for {available} frames)."
        )
    return length


def extension_windows(num_frames: int, window: int) -> Iterator[slice]:
    """The windows of a video of T frames: each begins with the last frame of the one before, the last may be short."""
    for start in range(0, num_frames - 1, window - 1):
        yield slice(start, min(start + window, num_frames))


def _with_controlnet(pipe: Any, has_image: bool, wanted: bool | None) -> bool:
    if has_image:
        if wanted:
            raise ValueError("use_controlnet is True and there is an image; expected one of them: both make frame 1.")
        return False
    if wanted and pipe.controlnet is None:
        raise ValueError("use_controlnet is True, but this pipeline has no ControlNet; expected one, or an image.")
    if pipe.image_unet is None:
        raise ValueError("There is no image, and this pipeline has no image_unet to draw one; expected an image.")
    return pipe.controlnet is not None if wanted is None else bool(wanted)
