"""Video files to frames: decord where it is installed, else PyAV, with equal results.

When each frame is shown comes from the container, read once by PyAV; the two readers only decode what is asked for.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttm.data.video_timeline import Timeline, read_timeline, unreadable, video_stream

Backend = Literal["auto", "decord", "pyav"]
_FRAMES_AT_ONCE = 8
"""Frames that lie in memory at the file's own size while a window is read."""


class Video(NamedTuple):
    """Frames uint8 [T, H, W, 3], RGB, upright, evenly spaced in time, and how many of them make a second."""

    frames: NDArray[np.uint8]
    fps: float


def read_video(
    path: str | Path,
    num_frames: int | None = None,
    start: int = 0,
    stride: int = 1,
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
    fps: float | None = None,
) -> Video:
    """Read frames ``start``, ``start + stride``, … of a video.

    A video of variable frame rate is first brought to a constant one by the times at which its frames are shown: as
    many frames as it has, evenly spaced; each is the one that is on show then (some twice, some not at all). Frames
    are turned as the file says that players should turn them (phones store which way they were held).

    Args:
        path: any file that FFmpeg reads; its first video stream is taken.
        num_frames: T; None = up to the end.
        start: the first frame, counted from 0.
        stride: take every so-manieth frame.
        size: (H, W) of the result: the largest centred part of that aspect ratio, resized. None = as it is.
        backend: "auto" tries decord and falls back to PyAV, also for files that decord can't open.
        fps: frames a second to which the video is brought, by the same rule, before ``start`` and ``stride`` count;
            None = its own (of a variable rate the mean).

    Returns:
        frames uint8 [T, H, W, 3], and fps divided by the stride.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, none in the file, fewer frames than asked for, a file that is cut off or damaged, or
            arguments out of range.
        ImportError: ``backend="decord"``, and it is not installed.
    """
    _check_arguments(num_frames, start, stride, size, backend, fps)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected a video.")
    timeline = read_timeline(path)
    wanted = start + 1 if num_frames is None else start + (num_frames - 1) * stride + 1
    shown, rate = timeline.at_rate(fps, wanted)
    stop = len(shown) if num_frames is None else wanted
    if start >= len(shown) or stop > len(shown):
        raise ValueError(_too_few(path, len(shown), num_frames, start, stride))
    frames = _decoded(path, timeline, shown[start:stop:stride], backend)
    return Video(_fitted(frames, size), rate / stride)


def _decoded(path: str | Path, timeline: Timeline, wanted: list[int], backend: Backend) -> NDArray[np.uint8]:
    """The frames of these numbers, in order of presentation; numbers ascend and may repeat."""
    if backend == "decord" or (backend == "auto" and find_spec("decord") is not None):
        try:
            return _read_with_decord(path, timeline, wanted)
        except _Unreadable as error:
            if backend == "decord":
                raise ValueError(str(error)) from error
    return _read_with_pyav(path, timeline, wanted)


class _Unreadable(Exception):
    """decord can't read this file; PyAV may, and says better what is wrong."""


def _read_with_decord(path: str | Path, timeline: Timeline, wanted: list[int]) -> NDArray[np.uint8]:
    return _open_with_decord(path, timeline)(wanted)


def _open_with_decord(path: str | Path, timeline: Timeline) -> Callable[[Sequence[int]], NDArray[np.uint8]]:
    """A function that gives the frames of any numbers, of a file that is opened once."""
    import decord

    # Others leave the bridge on torch, which would hand out tensors here.
    decord.bridge.set_bridge("native")

    def read(wanted: Sequence[int]) -> NDArray[np.uint8]:
        try:
            return np.asarray(reader.get_batch(list(wanted)).asnumpy())  # upright: decord follows the file's rotation
        except (decord.DECORDError, RuntimeError) as error:
            raise _no_decord(path, error) from error

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise _no_decord(path, error) from error
    if len(reader) != timeline.num_frames:
        counts = f"{len(reader)} frames, and {timeline.num_frames} by their times"
        raise _Unreadable(f"{path} can't be read as a video by decord ({counts}).")
    return read


def _no_decord(path: str | Path, error: Exception) -> _Unreadable:
    reason = str(error).strip().splitlines()[-1][:200]
    return _Unreadable(f"{path} can't be read as a video ({reason}).")


def _read_with_pyav(path: str | Path, timeline: Timeline, wanted: list[int]) -> NDArray[np.uint8]:
    found = dict(decode_frames(path, timeline, wanted))
    return np.stack([found[number] for number in wanted])


def read_windows(
    path: str | Path,
    timeline: Timeline,
    windows: Sequence[Sequence[int]],
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
) -> Iterator[NDArray[np.uint8]]:
    """Several clips of one file, one after the other: the file is opened once, and one clip at a time is in memory.

    Args:
        path: of the video.
        timeline: :func:`~ttm.data.video_timeline.read_timeline` of it.
        windows: for each clip the numbers of its frames, ascending; the clips in the order of their first frames.
        size, backend: as in :func:`read_video`.

    Yields:
        uint8 [T, H, W, 3] for each window.

    Raises:
        ValueError: the file is damaged where a window lies.
        ImportError: ``backend="decord"``, and it is not installed.
    """
    remaining = list(windows)
    if backend == "decord" or (backend == "auto" and find_spec("decord") is not None):
        try:
            read = _open_with_decord(path, timeline)
            while remaining:
                numbers = remaining[0]
                parts = [numbers[first : first + _FRAMES_AT_ONCE] for first in range(0, len(numbers), _FRAMES_AT_ONCE)]
                yield np.concatenate([_fitted(read(part), size) for part in parts])
                remaining.pop(0)
            return
        except _Unreadable as error:
            if backend == "decord":
                raise ValueError(str(error)) from error
    yield from _windows_with_pyav(path, timeline, remaining, size)


def _windows_with_pyav(
    path: str | Path, timeline: Timeline, windows: Sequence[Sequence[int]], size: tuple[int, int] | None
) -> Iterator[NDArray[np.uint8]]:
    """In one pass: what no later window needs is let go."""
    kept: dict[int, NDArray[np.uint8]] = {}
    decoded = decode_frames(path, timeline, sorted({number for window in windows for number in window}))
    for window in windows:
        while window[-1] not in kept:
            number, picture = next(decoded)
            kept[number] = _fitted(picture[None], size)[0]
        yield np.stack([kept[number] for number in window])
        kept = {number: picture for number, picture in kept.items() if number >= window[0]}


def _fitted(frames: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    return frames if size is None else np.stack([fit_frame(frame, size) for frame in frames])


def decode_frames(
    path: str | Path, timeline: Timeline, wanted: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode by PyAV, one at a time: number and picture uint8 [H, W, 3], upright, of each wanted frame once.

    Raises:
        ValueError: the file is damaged, or ends before the last of them.
    """
    import av

    missing, count = set(wanted), 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video_stream(container, path)):
                number = timeline.number_of(frame.pts, count)
                count += 1
                if number in missing:
                    missing.remove(number)
                    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    yield number, np.rot90(picture, round(frame.rotation / 90))
                if not missing:
                    return
    except av.FFmpegError as error:
        raise unreadable(path, error, f"after {count} frames" if count else "no frame") from error
    raise ValueError(
        f"{path} is cut off or damaged: it promises {timeline.num_frames} frames, and {count} can be decoded."
    )


def _too_few(path: str | Path, count: int, num_frames: int | None, start: int, stride: int) -> str:
    needed = start + 1 if num_frames is None else start + (num_frames - 1) * stride + 1
    wanted = f"{num_frames or 'any'} frames from frame {start} on, every {stride}."
    return f"{path} has {count} frames; expected at least {needed}, to take {wanted}"


def fit_frame(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The largest centred part of the wanted aspect ratio, resized with its details averaged.

    Args:
        frame: uint8 [H, W, 3].
        size: (height, width) of the result.
    """
    height, width = frame.shape[:2]
    scale = min(height / size[0], width / size[1])
    part_height, part_width = size[0] * scale, size[1] * scale
    top, left = (height - part_height) / 2, (width - part_width) / 2
    box = (left, top, left + part_width, top + part_height)
    resized = Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized)


def _check_arguments(
    num_frames: int | None,
    start: int,
    stride: int,
    size: tuple[int, int] | None,
    backend: str,
    fps: float | None,
) -> None:
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; expected at least 1, or None for all.")
    if start < 0 or stride < 1:
        raise ValueError(f"start is {start}, stride is {stride}; expected at least 0 and 1.")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}; expected (height, width), each at least 1.")
    if backend not in ("auto", "decord", "pyav"):
        raise ValueError(f"backend is {backend!r}; expected 'auto', 'decord' or 'pyav'.")
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps is {fps}; expected frames a second above 0, or None for the video's own.")
