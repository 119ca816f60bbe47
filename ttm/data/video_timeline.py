"""When each frame of a video is shown, by the container alone: nothing is decoded.

Letters: N frames of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Timeline:
    """The frames of a video in the order in which they are shown.

    Args:
        pts: N presentation times, ascending, in units of the stream; None if the container has none.
        seconds: the same in seconds, N of them also where ``pts`` is None.
        rate: frames a second by the container, for videos of a constant rate.
    """

    def __init__(self, pts: list[int] | None, seconds: list[float], rate: float) -> None:
        self.seconds, self.rate = np.asarray(seconds, np.float64), rate
        distinct = pts is not None and len(set(pts)) == len(pts)
        self._numbers = {time: number for number, time in enumerate(pts)} if pts is not None and distinct else None

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.seconds)

    def number_of(self, pts: int | None, count: int) -> int | None:
        """The number of a decoded frame: by its presentation time; where there is none, by those decoded before it."""
        return count if self._numbers is None or pts is None else self._numbers.get(pts)

    def at_rate(self, fps: float | None = None, least: int = 0) -> tuple[list[int], float]:
        """Which frame is on show at evenly spaced times, from the first frame on.

        A frame counts as shown from half a step before its time: containers round times, and a video of a constant
        rate keeps each of its frames exactly once.

        Args:
            fps: of those times; None = as many as there are frames.
            least: so many times where the last of them is still within the video, though rounding would give one less.

        Returns:
            the numbers of the frames, ascending, and their frames a second.
        """
        begin, count = self.seconds[0], self.num_frames
        span = float(self.seconds[-1] - begin)
        step = span / (count - 1) if span > 0 else 1 / (self.rate or 1.0)
        if fps is None:
            times, spacing = begin + step * np.arange(count), step
        else:  # the last frame is on show for one step
            many, spacing = max(1, round((span + step) * fps)), 1 / fps
            if many < least and (least - 1) * spacing <= span + step / 2:
                many = least
            times = begin + np.arange(many) * spacing
        shown = np.searchsorted(self.seconds, times + min(step, spacing) / 2, side="left") - 1
        numbers = [int(number) for number in shown.clip(0, count - 1)]
        constant = numbers == list(range(count))
        own = self.rate if constant and self.rate else 1 / step
        return numbers, own if fps is None else fps


def read_timeline(path: str | Path) -> Timeline:
    """Read when each frame of a file's first video stream is shown.

    Raises:
        ValueError: an empty file, no video, no frame, or a file that is cut off.
    """
    import av

    size = Path(path).stat().st_size
    if size == 0:
        raise ValueError(f"{path} is cut off or damaged: it has 0 bytes; expected a video.")
    try:
        with av.open(str(path)) as container:
            stream = video_stream(container, path)
            promised, lasts = _promised(container, stream), _promised_seconds(stream)
            packets = [packet for packet in container.demux(stream) if packet.size]
            rate, unit = float(stream.average_rate or 0), float(stream.time_base or 0)
    except av.FFmpegError as error:
        raise unreadable(path, error, "no frame") from error
    kept = [packet for packet in packets if not packet.is_discard]
    if len(packets) < promised or any(packet.is_corrupt for packet in packets):
        whole = sum(not packet.is_corrupt for packet in packets)
        raise ValueError(f"{path} is cut off or damaged: it promises {promised} frames, and {whole} can be read.")
    if not kept:
        raise ValueError(f"{path} holds no frame; expected a video.")
    if any(packet.pts is None for packet in kept):
        return Timeline(None, [number / (rate or 1.0) for number in range(len(kept))], rate)
    pts = sorted(int(packet.pts or 0) for packet in kept)
    seconds = [time * unit for time in pts]
    if lasts is not None and seconds[-1] - seconds[0] < lasts - 1 - 2 / (rate or 1.0):
        told = f"it promises {lasts:.1f} s, and {seconds[-1] - seconds[0]:.1f} s can be read"
        raise ValueError(f"{path} is cut off or damaged: {told}.")
    return Timeline(pts, seconds, rate)


def video_stream(container: Any, path: str | Path) -> Any:
    """The first video stream that is no cover picture of a sound file; raises ValueError if there is none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise ValueError(f"{path} has no video stream; expected a video.")


def unreadable(path: str | Path, error: Any, when: str) -> ValueError:
    """The error of a file that FFmpeg can't read."""
    return ValueError(f"{path} is damaged, cut off or no video ({error.strerror}, {when}); expected a whole video.")


def _promised(container: Any, stream: Any) -> int:
    """Frames by the file's own table. An edit list takes frames out of mp4's index, but not out of its count."""
    if "mp4" in container.format.name:
        return len(stream.index_entries)
    return int(stream.frames)


def _promised_seconds(stream: Any) -> float | None:
    """Matroska has no count of frames; many writers note how long each stream lasts."""
    told = {key.upper(): value for key, value in stream.metadata.items()}.get("DURATION")
    try:
        hours, minutes, seconds = (float(part) for part in (told or "").split(":"))
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds
