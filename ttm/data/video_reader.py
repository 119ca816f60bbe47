"""Video files to frames: decord where it is installed, else PyAV, with equal results.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Backend = Literal["auto", "decord", "pyav"]


class Video(NamedTuple):
    """Frames uint8 [T, H, W, 3], RGB, and how many of them make a second."""

    frames: NDArray[np.uint8]
    fps: float


def read_video(
    path: str | Path,
    num_frames: int | None = None,
    start: int = 0,
    stride: int = 1,
    size: tuple[int, int] | None = None,
    backend: Backend = "auto",
) -> Video:
    """Read frames ``start``, ``start + stride``, … of a video.

    Args:
        path: any file that FFmpeg reads; its first video stream is taken.
        num_frames: T; None = up to the end.
        start: the first frame, counted from 0.
        stride: take every so-manieth frame.
        size: (H, W) of the result: the largest centred part of that aspect ratio, resized. None = as it is.
        backend: "auto" tries decord and falls back to PyAV, also for files that decord can't open.

    Returns:
        frames uint8 [T, H, W, 3] and fps, the file's own divided by the stride.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, none in the file, fewer frames than asked for, a file that is cut off or damaged, or
            arguments out of range.
        ImportError: ``backend="decord"``, and it is not installed.
    """
    _check_arguments(num_frames, start, stride, size, backend)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected a video.")
    video: Video | None = None
    if backend == "decord" or (backend == "auto" and find_spec("decord") is not None):
        try:
            video = _read_with_decord(path, num_frames, start, stride)
        except _Unreadable as error:
            if backend == "decord":
                raise ValueError(str(error)) from error
    if video is None:
        video = _read_with_pyav(path, num_frames, start, stride)
    if size is None:
        return video
    return Video(np.stack([fit_frame(frame, size) for frame in video.frames]), video.fps)


class _Unreadable(Exception):
    """decord can't read this file; PyAV may, and says better what is wrong."""


def _read_with_decord(path: str | Path, num_frames: int | None, start: int, stride: int) -> Video:
    import decord

    # Others leave the bridge on torch, which would hand out tensors here.
    decord.bridge.set_bridge("native")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        stop = len(reader) if num_frames is None else start + (num_frames - 1) * stride + 1
        if start >= len(reader) or stop > len(reader):
            raise ValueError(_too_few(path, len(reader), num_frames, start, stride))
        frames = reader.get_batch(list(range(start, stop, stride))).asnumpy()
        return Video(frames, float(reader.get_avg_fps()) / stride)
    except (decord.DECORDError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise _Unreadable(f"{path} can't be read as a video ({reason}).") from error


def _read_with_pyav(path: str | Path, num_frames: int | None, start: int, stride: int) -> Video:
    import av

    frames: list[NDArray[np.uint8]] = []
    count = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream; expected a video.")
            stream = container.streams.video[0]
            promised, fps = stream.frames, float(stream.average_rate or 0)
            for frame in container.decode(stream):
                if count >= start and (count - start) % stride == 0:
                    frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                count += 1
                if num_frames is not None and len(frames) == num_frames:
                    return Video(np.stack(frames), fps / stride)
    except av.FFmpegError as error:
        reason = f"after {count} frames" if count else "no frame"
        raise ValueError(
            f"{path} is damaged, cut off or no video ({error.strerror}, {reason}); expected a whole video."
        ) from error
    if count < promised:
        raise ValueError(f"{path} is cut off or damaged: it promises {promised} frames, and {count} can be read.")
    if num_frames is not None or not frames:
        raise ValueError(_too_few(path, count, num_frames, start, stride))
    return Video(np.stack(frames), fps / stride)


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
    num_frames: int | None, start: int, stride: int, size: tuple[int, int] | None, backend: str
) -> None:
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}; expected at least 1, or None for all.")
    if start < 0 or stride < 1:
        raise ValueError(f"start is {start}, stride is {stride}; expected at least 0 and 1.")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}; expected (height, width), each at least 1.")
    if backend not in ("auto", "decord", "pyav"):
        raise ValueError(f"backend is {backend!r}; expected 'auto', 'decord' or 'pyav'.")
