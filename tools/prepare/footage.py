"""An opened source: when its frames are shown, and the frames of any of its clips.

Letters: T frames of a clip, N frames of the source, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.prepare.sources import Source, opened
from ttm.data.sa_v import VIDEO_FPS
from ttm.data.video_reader import decode_frames, fit_frame, read_windows
from ttm.data.video_timeline import Timeline, read_timeline

_NEARLY = 0.01
"""Share by which a rate may miss a whole multiple: 29.97 frames a second are 30."""


@dataclass(frozen=True)
class Footage:
    """A video file, or the frames of a folder.

    Attributes:
        path: of the file or folder.
        timeline: when each of its N frames is shown.
        pictures: the files of a folder's frames, in order; none for a video.
    """

    path: Path
    timeline: Timeline
    pictures: tuple[Path, ...] = ()

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H, W), upright, pixels.

        Raises:
            ValueError: the first frame can't be decoded.
        """
        if self.pictures:
            frame = _picture(self.pictures[0])
        else:
            _, frame = next(decode_frames(self.path, self.timeline, [0]))
        return frame.shape[0], frame.shape[1]

    def windows(self, windows: Sequence[Sequence[int]], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """The clips with these frame numbers, uint8 [T, H, W, 3] each, at (H, W) ``size``.

        Raises:
            ValueError: the source is damaged where a clip lies.
        """
        wanted = None if size == self.size else size
        if not self.pictures:
            yield from read_windows(self.path, self.timeline, windows, wanted)
            return
        for window in windows:
            frames = (_picture(self.pictures[number]) for number in window)
            yield np.stack([frame if wanted is None else fit_frame(frame, wanted) for frame in frames])

    def at_rate(self, fps: float) -> tuple[list[int], float]:
        """The numbers of the frames to take for ``fps`` frames a second, and how many a second that are.

        Raises:
            ValueError: the source is slower.
        """
        shown, own = self.timeline.at_rate()
        stride = max(1, round(own / fps))
        if abs(own / stride - fps) <= _NEARLY * fps:
            return shown[::stride], own / stride
        if own < fps:
            raise ValueError(f"it has {own:g} frames a second; expected at least {fps:g} (ask for a lower rate)")
        return self.timeline.at_rate(fps)


@contextmanager
def open_footage(folder: Path, source: Source) -> Iterator[Footage]:
    """Open a source.

    Raises:
        ValueError: it can't be prepared, is no video, empty, cut off or damaged.
        FileNotFoundError: it is no longer there.
    """
    if source.wrong:
        raise ValueError(source.wrong)
    with opened(folder, source.video) as path:
        if not path.exists():
            raise FileNotFoundError(f"{source.name} is no longer there.")
        if path.is_dir():
            pictures = _numbered(path)
            seconds = [number / VIDEO_FPS for number in range(len(pictures))]
            yield Footage(path, Timeline(None, seconds, VIDEO_FPS), pictures)
        else:
            yield Footage(path, read_timeline(path))


def _numbered(folder: Path) -> tuple[Path, ...]:
    """The pictures 00000.jpg, 00001.jpg, …, without a gap."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not pictures:
        raise ValueError(f"{folder.name} holds no frame; expected 00000.jpg, 00001.jpg, …")
    for number, path in enumerate(pictures):
        if not path.stem.isdigit() or int(path.stem) != number:
            raise ValueError(f"{folder.name}/{path.name} is not frame {number}; expected 00000.jpg, 00001.jpg, …")
    return tuple(pictures)


def _picture(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} can't be read as a picture ({error}).") from error
