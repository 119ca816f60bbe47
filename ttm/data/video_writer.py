"""Frames to video files.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttm.atomic_write import written_beside


def write_video(path: str | Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Write an H.264 video in an mp4 file that browsers and players open (whole or not at all).

    H.264 with 4:2:0 chroma needs even sides: an odd side gets its last row or column once more.

    Args:
        path: where to; the folder exists.
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames a second.

    Raises:
        ValueError: frames of another shape or dtype, or fps that is not a positive number.
        OSError: the folder is missing or read-only, or the disk is full.
    """
    import av
    from av.video.reformatter import Colorspace

    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames has shape {list(np.shape(frames))}; expected [T, H, W, 3] with no empty axis.")
    if frames.dtype != np.uint8:
        raise ValueError(f"frames has dtype {frames.dtype}; expected uint8 in 0..255.")
    if not (isinstance(fps, (int, float)) and math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps!r}; expected frames a second above 0.")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with written_beside(path) as beside:
        try:
            options = {"movflags": "+faststart"}
            with av.open(str(beside), "w", format="mp4", container_options=options) as container:
                rate = Fraction(fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate, options={"crf": "15", "preset": "medium"})
                stream.height, stream.width = frames.shape[1:3]
                stream.pix_fmt = "yuv420p"
                # Written down, so that players do not guess the colours from the size of the picture.
                stream.codec_context.colorspace = Colorspace.ITU709
                stream.codec_context.color_primaries = stream.codec_context.color_trc = 1  # BT.709
                for index, frame in enumerate(frames):
                    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
                    picture.pts, picture.time_base = index, 1 / rate
                    container.mux(stream.encode(picture))
                container.mux(stream.encode(None))
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error
