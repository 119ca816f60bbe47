"""How the objects of a video move, as a mask trajectory: chosen in its first frame, followed by SAM2.

Letters: T frames, L objects, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttm.data.video_reader import decode_frames
from ttm.data.video_resampling import resample_video
from ttm.data.video_timeline import read_timeline
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import MAX_OBJECTS
from ttm.segmentation.places import Box, Place, Point, check_places, shown

LONGEST_SIDE = 1024
"""Pixels on the longer side that a segmenter is shown at most, if it does not say what its network takes in."""


def extract_trajectory(
    segmenter: Any,
    path: str | Path,
    wanted: Sequence[str | Place],
    fps: float | None = None,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
) -> MaskTrajectory:
    """Follow objects through a video file.

    Args:
        segmenter: a :class:`ttm.Segmenter`.
        path: any file that FFmpeg reads.
        wanted: L objects of the first frame, each a phrase ("the dog"), a :class:`Box` around it or a :class:`Point`
            on it (pixels of the video); the l-th (from 0) gets id ``l + 1``.
        fps: frames a second, the nearest in time; None = the video's own.
        num_frames: T. With ``fps`` the first T frames at that rate; without, T frames spread evenly over the video.
        size: (height, width): the largest centred part with that aspect ratio, resized; None = the video's own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no video, too few frames, an object that is not found in the first frame, or a place outside of it
            or of the part that is kept.
    """
    if not 1 <= len(wanted) <= MAX_OBJECTS:
        raise ValueError(f"{len(wanted)} objects are wanted; expected 1 to {MAX_OBJECTS} phrases, boxes or points.")
    source_size, source_fps = _form(path)
    height, width = size or source_size
    check_places(places := [each for each in wanted if not isinstance(each, str)], *source_size)
    seen = _seen_size(segmenter, source_size, (height, width))
    placed = [_moved(each, source_size, seen) for each in wanted]
    _check_in_part(places, [each for each in placed if not isinstance(each, str)], seen)
    rate = fps or source_fps

    def choose(count: int) -> NDArray[np.int64]:
        nonlocal rate
        chosen, rate = choose_frames(count, rate, num_frames, spread=fps is None, name=str(path))
        return chosen

    frames = resample_video(path, rate, seen, choose).frames
    ids = segmenter.track(frames, _first_ids(segmenter, frames[0], placed))
    return MaskTrajectory(ids, rate).resize(height, width)


def choose_frames(
    count: int, fps: float, num_frames: int | None, spread: bool, name: str = "the video"
) -> tuple[NDArray[np.int64], float]:
    """Which frames to take, and how many of them make a second.

    Args:
        count: frames that there are.
        fps: of them.
        num_frames: how many to take; None = all.
        spread: evenly over all of them, the first and the last among them; otherwise the first so many.
        name: what to call it in an error.

    Raises:
        ValueError: fewer frames than asked for.
    """
    taken = count if num_frames is None else num_frames
    if taken > count:
        raise ValueError(f"{name} has {count} frames at {fps:g} a second; expected at least {taken} (num_frames).")
    if not spread or taken == count:
        return np.arange(taken), fps
    # As MaskTrajectory.resample: the same time with fewer frames.
    chosen = np.floor(np.linspace(0, count - 1, taken) + 0.5).astype(np.int64)
    return chosen, fps * (taken - 1) / (count - 1) if taken > 1 else fps


def _check_in_part(places: Sequence[Place], moved: Sequence[Place], size: tuple[int, int]) -> None:
    """Raise ValueError for a place whose middle lies outside of the part of the picture that is kept."""
    for place, now in zip(places, moved, strict=True):
        x, y = float(np.mean(now[0::2])), float(np.mean(now[1::2]))
        if not (0 <= x <= size[1] and 0 <= y <= size[0]):
            raise ValueError(f"{shown(place)} lies outside of the centred part with the aspect ratio that is wanted.")


def _form(path: str | Path) -> tuple[tuple[int, int], float]:
    """(height, width) of a video's frames, upright, and how many make a second."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected a video.")
    timeline = read_timeline(path)
    _, first = next(decode_frames(path, timeline, [0]))
    return (first.shape[0], first.shape[1]), timeline.at_rate()[1]


def _seen_size(segmenter: Any, source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The part of the video that is kept, no larger than what the segmenter's network takes in, or than ``size``."""
    part = _part_scale(source, size)
    height, width = size[0] * part, size[1] * part
    network = getattr(getattr(segmenter, "sam2", None), "image_size", LONGEST_SIDE)
    scale = min(1.0, max(network, *size) / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _part_scale(source: tuple[int, int], size: tuple[int, int]) -> float:
    """Pixels of the source for one of ``size``, within the largest part that has its aspect ratio."""
    return min(source[0] / size[0], source[1] / size[1])


def _moved(wanted: str | Place, source: tuple[int, int], seen: tuple[int, int]) -> str | Place:
    """A place of the source in the frames that the segmenter sees (see ``ttm.data.video_reader.fit_frame``)."""
    if isinstance(wanted, str):
        return wanted
    scale = _part_scale(source, seen)
    top, left = (source[0] - seen[0] * scale) / 2, (source[1] - seen[1] * scale) / 2
    corner = [left, top] * (len(wanted) // 2)
    values = [(value - start) / scale for value, start in zip(wanted, corner, strict=True)]
    return Box(*values) if isinstance(wanted, Box) else Point(*values)


def _first_ids(segmenter: Any, frame: NDArray[np.uint8], wanted: Sequence[str | Place]) -> NDArray[np.uint8]:
    """Ids [H, W] of the first frame: phrases together (each takes its own region), then the places, in front."""
    ids = np.zeros(frame.shape[:2], np.uint8)
    phrases = [each for each in wanted if isinstance(each, str)]
    places = [_cut(each, frame.shape[0], frame.shape[1]) for each in wanted if not isinstance(each, str)]
    for kind, found in (
        (str, segmenter.segment(frame, phrases) if phrases else None),
        ((Box, Point), segmenter.segment_at(frame, places) if places else None),
    ):
        numbers = [number for number, each in enumerate(wanted, start=1) if isinstance(each, kind)]
        for index, number in enumerate(numbers, start=1):
            assert found is not None
            ids[found == index] = number
    for number, each in enumerate(wanted, start=1):
        if not (ids == number).any():
            name = repr(each) if isinstance(each, str) else shown(each)
            raise ValueError(f"{name} is the same as another object of the list, or lies wholly under it.")
    return ids


def _cut(place: Place, height: int, width: int) -> Place:
    """A box that reaches over the part that is kept ends at its border."""
    if isinstance(place, Point):
        return place
    x0, x1 = np.clip((place.x0, place.x1), 0, width).tolist()
    y0, y1 = np.clip((place.y0, place.y1), 0, height).tolist()
    return Box(x0, y0, x1, y1)
