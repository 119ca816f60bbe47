"""Whole videos at another number of frames a second and another size, decoded frame by frame.

Letters: T frames, H W pixels.

The rule: frame ``i`` of the result is the source's frame that is nearest to the time ``i / fps``, by the times at which
its frames are shown; of every frame, turned upright, the largest centred part with the wanted aspect ratio is kept and
resized. Frames are never invented: a source with fewer frames a second than asked for is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.data.video_reader import decode_frames, fit_frame
from ttm.data.video_timeline import Timeline, read_timeline

_SLACK = 0.01
"""Share by which a source may be slower than asked for: 7.99 frames a second are 8."""
_TIE = 1e-6
"""Seconds by which rounded times may miss the middle between two frames."""


@dataclass(frozen=True)
class ResampledVideo:
    """A video at the wanted rate and size.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        sources: which frame of the file each of them is, int [T].
        source_frames: how many frames the file has.
        source_size: (height, width) of the file's frames, upright, pixels.
        source_fps: frames a second of the file, of a variable rate the mean.
    """

    frames: NDArray[np.uint8]
    sources: NDArray[np.int64]
    source_frames: int
    source_size: tuple[int, int]
    source_fps: float


def resample_video(
    path: str | Path, fps: float, size: tuple[int, int], choose: Callable[[int], NDArray[np.int64]] | None = None
) -> ResampledVideo:
    """Read a whole video at ``fps`` frames a second and (height, width) ``size``; see the rule above.

    Only the frames that are kept lie in memory, at their final size.

    Args:
        choose: given how many frames there are at that rate, which of them to keep; None = all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, a damaged one, or one slower than ``fps``; ``fps`` is no number above 0.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; expected frames a second above 0.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected a video.")
    timeline = read_timeline(path)
    _, source_fps = timeline.at_rate()
    _check_rate(path, source_fps, fps)
    sources = _nearest_sources(timeline, source_fps, fps)
    if choose is not None:
        sources = sources[choose(len(sources))]
    frames = np.empty((len(sources), *size, 3), np.uint8)
    for number, picture in decode_frames(path, timeline, sources.tolist()):
        source_size = (picture.shape[0], picture.shape[1])
        frames[sources == number] = fit_frame(picture, size)
    return ResampledVideo(frames, sources, timeline.num_frames, source_size, source_fps)


def _nearest_sources(timeline: Timeline, source_fps: float, fps: float) -> NDArray[np.int64]:
    """Source frames nearest to the times 0, 1 / fps, …, int [T]; a source that is hardly slower gives each of its own.

    Of two that are equally near, the later. One that is on show for long, in a video of variable rate, repeats.
    """
    shown = timeline.seconds - timeline.seconds[0]
    spacing = 1 / min(fps, source_fps)
    ends = shown[-1] + 0.5 / source_fps
    times = spacing * np.arange(int(np.ceil(ends / spacing - _TIE)))
    nearest = np.searchsorted((shown[1:] + shown[:-1]) / 2, times + _TIE, side="right")
    return nearest.astype(np.int64)


def _check_rate(path: str | Path, source_fps: float, fps: float) -> None:
    if source_fps < fps * (1 - _SLACK):
        raise ValueError(
            f"{path} has {source_fps:g} frames a second; expected at least {fps:g}, the rate asked for (ask for a lower"
            " one)."
        )
