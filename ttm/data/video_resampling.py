"""Whole videos at another number of frames a second and another size, decoded frame by frame.

Letters: T frames, H W pixels.

The rule: frame ``i`` of the result is the source's frame that is nearest to the time ``i / fps``; of every frame the
largest centred part with the wanted aspect ratio is kept and resized. Frames are never invented: a source with fewer
frames a second than asked for is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.data.video_reader import fit_frame

_SLACK = 0.01
"""Share by which a source may be slower than asked for: 7.99 frames a second are 8."""


@dataclass(frozen=True)
class ResampledVideo:
    """A video at the wanted rate and size.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        sources: which frame of the file each of them is, int [T].
        source_frames: how many frames the file has.
        source_size: (height, width) of the file, pixels.
        source_fps: frames a second of the file.
    """

    frames: NDArray[np.uint8]
    sources: NDArray[np.int64]
    source_frames: int
    source_size: tuple[int, int]
    source_fps: float


def resample_video(path: str | Path, fps: float, size: tuple[int, int]) -> ResampledVideo:
    """Read a whole video at ``fps`` frames a second and (height, width) ``size``; see the rule above.

    Only the frames that are kept lie in memory, at their final size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, a damaged one, one without a frame rate, or one slower than ``fps``.
    """
    import av

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected a video.")
    frames: list[NDArray[np.uint8]] = []
    sources: list[int] = []
    count, promised, source_size = 0, 0, (0, 0)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream; expected a video.")
            stream = container.streams.video[0]
            promised, source_fps = stream.frames, float(stream.average_rate or 0)
            _check_rate(path, source_fps, fps)
            wanted = _nearest_sources(source_fps, fps)
            upcoming = next(wanted)
            for frame in container.decode(stream):
                if count == upcoming:
                    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    source_size = (picture.shape[0], picture.shape[1])
                    frames.append(fit_frame(picture, size))
                    sources.append(count)
                    upcoming = next(wanted)
                count += 1
    except av.FFmpegError as error:
        reason = f"after {count} frames" if count else "no frame"
        raise ValueError(
            f"{path} is damaged, cut off or no video ({error.strerror}, {reason}); expected a whole video."
        ) from error
    if count < promised or not frames:
        raise ValueError(f"{path} is cut off or damaged: it promises {promised} frames, and {count} can be read.")
    return ResampledVideo(np.stack(frames), np.array(sources, np.int64), count, source_size, source_fps)


def _nearest_sources(source_fps: float, fps: float) -> Iterator[int]:
    """Source frames nearest to the times 0, 1 / fps, …; a source that is hardly slower gives each of its own."""
    step = max(1.0, source_fps / fps)
    place = 0
    while True:
        yield int(place * step + 0.5)
        place += 1


def _check_rate(path: str | Path, source_fps: float, fps: float) -> None:
    if not source_fps > 0:
        raise ValueError(f"{path} does not say how many frames make a second; expected a video file that does.")
    if source_fps < fps * (1 - _SLACK):
        raise ValueError(
            f"{path} has {source_fps:g} frames a second; expected at least {fps:g}, the rate of the training (set a"
            " lower one)."
        )
