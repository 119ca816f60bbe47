"""A folder of a few videos of one motion, as training clips with masks and prompts.

Letters: T frames of a window, A frames of a clip at the common rate, H W pixels.

The folder holds 5 to 8 videos (what the few-shot paper trains on; any number is taken, another one with a warning) and,
beside a clip ``run.mp4``, whatever of this is given:

    prompts.yaml         prompts and more, see :mod:`ttm.data.clip_prompts`; else file names are prompts
    run.npz              masks: a :class:`~ttm.motion.mask_trajectory.MaskTrajectory`
    run.masks.mp4        masks: a video, of any suffix that clips have, in the colours of the palette (objects of 3 x 3
                         pixels or more)
    run.masks/           masks: a folder of painted frames, see :mod:`ttm.motion.mask_pictures`

Given masks have the clip's own size and number of frames. A clip without masks is tracked by a segmenter, from the
first frame of every window on.

Clips of different sizes and frame rates are brought to one: see the rule of :mod:`ttm.data.video_resampling`. Every
clip then gives the same number of windows of T frames, evenly spread over it: as many as fit into the shortest clip
side by side, so that no clip counts for more than another. An object must be visible in the first and the last frame
of a window (it may be hidden between): what leaves the picture teaches the model to let things vanish.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ttm.data.clip_prompts import PROMPTS, ClipPrompt, read_clip_prompts
from ttm.data.video_reader import read_video
from ttm.data.video_resampling import ResampledVideo, resample_video
from ttm.motion.mask_pictures import read_painted_frames
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.motion.resize_ids import resize_ids

logger = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
MASKS_INFIX = ".masks"
FEWEST, MOST = 5, 8


class Tracker(Protocol):
    """What finds and follows objects; ``ttm.Segmenter`` does."""

    def segment(self, image: Any, phrases: Sequence[str]) -> NDArray[np.uint8]:
        """First-frame ids [H, W] of phrases in an image uint8 [H, W, 3]."""

    def track(self, frames: NDArray[np.uint8], first_ids: NDArray[Any]) -> NDArray[np.uint8]:
        """Ids [T, H, W] through frames uint8 [T, H, W, 3]."""


@dataclass(frozen=True)
class Clip:
    """One training window.

    Attributes:
        name: the file it is from.
        prompt: what it shows.
        frames: uint8 [T, H, W, 3].
        ids: uint8 [T, H, W], 0 = background.
    """

    name: str
    prompt: str
    frames: NDArray[np.uint8]
    ids: NDArray[np.uint8]


@dataclass(frozen=True)
class _Source:
    path: Path
    told: ClipPrompt
    video: ResampledVideo
    ids: NDArray[np.uint8] | None  # [A, H, W] where masks are given


def read_clip_folder(
    folder: str | Path, num_frames: int, fps: float, size: tuple[int, int], tracker: Tracker | None = None
) -> list[Clip]:
    """Read, resample, cut into windows and mask the clips of a folder; the rules stand at the head of this file.

    Everything that can be wrong with the files is found before the first object is tracked. Fewer than 5 clips or more
    than 8 are a warning.

    Args:
        folder: the clips.
        num_frames: T.
        fps: frames a second of the windows.
        size: (height, width) of the windows, pixels.
        tracker: for clips without masks.

    Returns:
        the windows, clip by clip in the order of their names.

    Raises:
        ValueError: no folder or no clip in it; a clip that can't be read, is too short or too slow, has no prompt,
            masks that don't fit it, an object that is not found, or one that leaves the picture.
    """
    folder = Path(folder)
    names = clip_names(folder)
    _warn_of_number(folder, len(names))
    told = read_clip_prompts(folder, names)
    _expect_no_stray_masks(folder, names, {prompt.masks for prompt in told.values()})
    sources = [_read(folder / name, told[name], fps, size) for name in names]
    for source in sources:
        _check(source, num_frames, fps, tracker)
    count = min(len(source.video.frames) // num_frames for source in sources)
    for source in sources:
        if source.ids is not None:
            for start in _window_starts(source, num_frames, count):
                _check_visible(source, source.ids[start : start + num_frames], start)
    return [clip for source in sources for clip in _windows(source, num_frames, count, tracker)]


def clip_names(folder: Path) -> list[str]:
    """The file names of a folder's clips, sorted.

    Raises:
        ValueError: no folder, or no clip in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected one with {FEWEST} to {MOST} videos of one motion.")
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file()
        and path.suffix.lower() in VIDEOS
        and not path.name.startswith(".")
        and not path.stem.endswith(MASKS_INFIX)
    )
    if not names:
        raise ValueError(f"{folder} holds no video; expected {FEWEST} to {MOST} ({', '.join(VIDEOS)}).")
    return names


def _warn_of_number(folder: Path, count: int) -> None:
    if not FEWEST <= count <= MOST:
        advice = "fewer teach the clips themselves rather than their motion" if count < FEWEST else "more are fine"
        logger.warning("%s holds %d clips; expected %d to %d (%s).", folder, count, FEWEST, MOST, advice)


def _read(path: Path, told: ClipPrompt, fps: float, size: tuple[int, int]) -> _Source:
    video = resample_video(path, fps, size)
    masks = told.masks or masks_beside(path)
    if masks is None:
        return _Source(path, told, video, None)
    given = read_masks(masks)
    expected = (video.source_frames, *video.source_size)
    if given.ids.shape != expected:
        raise ValueError(
            f"{masks} holds {given.num_frames} masks of {given.height} x {given.width}; expected {expected[0]} of"
            f" {expected[1]} x {expected[2]}, as {path.name} has frames."
        )
    box = centred_part(video.source_size, size)
    ids = np.stack([resize_ids(given.ids[number][box], *size) for number in video.sources])
    return _Source(path, told, video, ids)


def masks_beside(path: Path) -> Path | None:
    """The file or folder of masks beside a clip, or None.

    Raises:
        ValueError: there are two.
    """
    videos = (f"{path.stem}{MASKS_INFIX}{suffix}" for suffix in VIDEOS)
    beside = (f"{path.stem}.npz", *videos, f"{path.stem}{MASKS_INFIX}")
    found = [path.with_name(name) for name in beside if path.with_name(name).exists()]
    if len(found) > 1:
        raise ValueError(f"{path} has masks in {found[0].name} and in {found[1].name}; expected one of them.")
    return found[0] if found else None


def _expect_no_stray_masks(folder: Path, names: Sequence[str], told: set[Path | None]) -> None:
    """Masks that no clip takes are a misspelt name, and their clip would be tracked instead without a word."""
    used = told | {masks_beside(folder / name) for name in names}
    for path in sorted(folder.iterdir()):
        is_masks = path.suffix.lower() == ".npz" or path.name.endswith(MASKS_INFIX) or path.stem.endswith(MASKS_INFIX)
        if is_masks and not path.name.startswith(".") and path not in used:
            raise ValueError(
                f"{path} looks like the masks of a clip, but there is no such clip; expected the name of one before"
                f" the suffix ({', '.join(names)}), or 'masks: {path.name}' in {PROMPTS}."
            )


def read_masks(path: Path) -> MaskTrajectory:
    """Masks of any of the forms that may lie beside a clip.

    Raises:
        ValueError: no masks, or damaged ones.
    """
    if path.is_dir():
        return read_painted_frames(path)
    if path.suffix.lower() == ".npz":
        return MaskTrajectory.load(path)
    if path.suffix.lower() in VIDEOS:
        return _from_palette_video(read_video(path).frames)
    raise ValueError(f"{path} is no file of masks; expected .npz, a palette video, or a folder of painted frames.")


def _from_palette_video(frames: NDArray[np.uint8]) -> MaskTrajectory:
    """Compression mixes colours at the rims, and a mixture may be nearest to a third object's colour. Rims are thin:
    an object counts if one of the frames shows it 3 x 3 pixels large."""
    decoded = MaskTrajectory.from_video(frames)
    core = np.ones((3, 3), np.uint8)
    numbers = [
        number
        for number in decoded.object_ids
        if any(cv2.erode((ids == number).astype(np.uint8), core).any() for ids in decoded.ids)
    ]
    return MaskTrajectory.from_video(frames, ids=numbers)


def centred_part(size: tuple[int, int], to: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the part of masks of ``size`` that :func:`~ttm.data.video_reader.fit_frame` keeps."""
    scale = min(size[0] / to[0], size[1] / to[1])
    lengths = (min(have, max(1, round(want * scale))) for have, want in zip(size, to, strict=True))
    rows, columns = (slice((have - n) // 2, (have - n) // 2 + n) for have, n in zip(size, lengths, strict=True))
    return rows, columns


def _check(source: _Source, num_frames: int, fps: float, tracker: Tracker | None) -> None:
    available, path = len(source.video.frames), source.path
    if available < num_frames:
        raise ValueError(
            f"{path} has {source.video.source_frames} frames, {available} at {fps:g} frames a second; expected at least"
            f" {num_frames}, the length of a training window (give a longer clip, more frames a second, or a shorter"
            " window)."
        )
    if source.ids is not None:
        return
    if not source.told.phrases:
        raise ValueError(
            f"{path} is said to show {source.told.prompt!r}, which names nothing that moves; expected masks beside the"
            f" clip, or phrases to look for in {PROMPTS}."
        )
    if tracker is None:
        raise ValueError(f"{path} has no masks, and there is no segmenter to track with; expected one of the two.")


def _windows(source: _Source, num_frames: int, count: int, tracker: Tracker | None) -> list[Clip]:
    clips = []
    for start in _window_starts(source, num_frames, count):
        frames = source.video.frames[start : start + num_frames]
        if source.ids is None:
            ids = _tracked(source, frames, start, tracker)
            _check_visible(source, ids, start)
        else:
            ids = source.ids[start : start + num_frames]
        clips.append(Clip(source.path.name, source.told.prompt, frames, ids))
    return clips


def _window_starts(source: _Source, num_frames: int, count: int) -> list[int]:
    last = len(source.video.frames) - num_frames
    return [int(start) for start in np.linspace(0, last, count).round()]


def _tracked(source: _Source, frames: NDArray[np.uint8], start: int, tracker: Tracker | None) -> NDArray[np.uint8]:
    assert tracker is not None
    try:
        first = tracker.segment(frames[0], source.told.phrases)
    except ValueError as error:
        place = f"frame {int(source.video.sources[start])}"
        raise ValueError(
            f"{source.path}, {place}: {', '.join(source.told.phrases)} not found. {error} Masks can also be given, and"
            f" other phrases in {PROMPTS}."
        ) from error
    return tracker.track(frames, first)


def _check_visible(source: _Source, ids: NDArray[np.uint8], start: int) -> None:
    """Every object that the window shows is in its first and in its last frame."""
    numbers = [int(number) for number in np.unique(ids) if number]
    if not numbers:
        from_frame = int(source.video.sources[start])
        raise ValueError(f"{source.path} shows no object in its masks from frame {from_frame} on; expected one.")
    for number in numbers:
        shown = np.flatnonzero((ids == number).any(axis=(1, 2)))
        names = source.told.phrases
        name = f"{number} ({names[number - 1]!r})" if number <= len(names) else str(number)
        first, last = (int(source.video.sources[start + shown[end]]) for end in (0, -1))
        if shown[-1] < len(ids) - 1:
            raise ValueError(
                f"Object {name} leaves the picture of {source.path} after frame {last}; expected it to be visible to"
                " the end of the training window (end the clip there, or give masks)."
            )
        if shown[0] > 0:
            raise ValueError(
                f"Object {name} enters the picture of {source.path} only at frame {first}; expected it from the first"
                " frame on (begin the clip there)."
            )
