"""The true video and the true motion of a sample, at the size and the frame rate of the video that a model made.

The rule: frame ``t`` of the truth is the one nearest to the time ``t / fps`` of the made video, both beginning
together; of each frame the largest centred part with the made video's aspect ratio, resized, which is what models see
of their pictures. A truth that ends before the made video does is refused, never stretched or repeated.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.data.video_reader import read_video
from ttm.motion.mask_trajectory import MaskTrajectory


def nearest_frames(
    num_frames: int, fps: float, true_fps: float, true_frames: int | None, what: str
) -> NDArray[np.intp]:
    """Which frames of the truth belong to ``num_frames`` frames at ``fps``, int [T].

    Raises:
        ValueError: the truth is over by more than half a frame before the video is.
    """
    if not (math.isfinite(true_fps) and true_fps > 0):
        raise ValueError(f"{what} has {true_fps} frames a second; expected a number above 0.")
    # Times that lie between two frames by rounding alone go to the earlier one, on every machine.
    index = np.ceil(np.arange(num_frames) * (true_fps / fps) - 0.5 - 1e-6).astype(np.intp)
    if true_frames is not None and index[-1] >= true_frames:
        lasts, needed = true_frames / true_fps, num_frames / fps
        raise ValueError(
            f"{what} lasts {lasts:.2f} s; expected at least the {needed:.2f} s of the model's video:"
            f" {index[-1] + 1} frames at {true_fps:g} a second, not {true_frames}."
        )
    return index


def true_video(path: Path, shape: tuple[int, int, int], fps: float) -> NDArray[np.uint8]:
    """The true video at the made one's times and size.

    Args:
        path: of the true video.
        shape: T, H, W of the made video.
        fps: of the made video.

    Returns:
        uint8 [T, H, W, 3].

    Raises:
        FileNotFoundError: no such file. ValueError: no video, damaged, or too short.
    """
    what = f"the reference {path.name}"
    true_fps = read_video(path, num_frames=1).fps
    index = nearest_frames(shape[0], fps, true_fps, None, what)
    try:
        return read_video(path, num_frames=int(index[-1]) + 1, size=shape[1:]).frames[index]
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def true_trajectory(path: Path, shape: tuple[int, int, int], fps: float) -> MaskTrajectory:
    """The true motion at the made video's times and size; arguments and errors as :func:`true_video`."""
    from ttm.pipelines.inputs import fit_trajectory

    truth = timed_trajectory(path, shape[0], fps)
    return fit_trajectory(truth, (truth.height, truth.width), *shape[1:])


def timed_trajectory(path: Path, num_frames: int, fps: float) -> MaskTrajectory:
    """The true motion at the times of a model's video, in its own size; errors as :func:`true_video`."""
    truth = MaskTrajectory.load(path)
    index = nearest_frames(num_frames, fps, truth.fps, truth.num_frames, f"the true motion {path.name}")
    return MaskTrajectory(truth.ids[index], fps)
