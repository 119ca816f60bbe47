"""SA-V annotations as mask trajectories: real objects that hide, overlap and appear late.

Letters: T annotated frames, H W pixels, L objects.

A video ``{id}.mp4`` of SA-V comes with ``{id}_manual.json`` and ``{id}_auto.json``. Both hold ``masklet[t][l]``, the
mask of object ``l`` in the ``t``-th annotated frame as COCO run lengths; every 4th frame of the 24 fps video is
annotated. Validation and test videos come as ``JPEGImages_24fps/{id}/{frame}.jpg`` with
``Annotations_6fps/{id}/{object}/{frame}.png``. Data: SA 2 (Ravi et al. 2024, arXiv 2408.00714), CC BY 4.0.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import MAX_OBJECTS

ANNOTATED_EVERY = 4
"""One frame in so many of the video is annotated."""
VIDEO_FPS = 24.0


class Masklets(ABC):
    """The annotated frames of one video: which, of which size, and each object's mask in them.

    Attributes:
        name: of the file or folder, for errors.
        size: (H, W), pixels.
        frames: the video's numbers of the T annotated frames, ascending.
        num_objects: L.
    """

    name: str
    size: tuple[int, int]
    frames: list[int]
    num_objects: int

    @abstractmethod
    def mask(self, time: int, number: int) -> NDArray[np.bool_]:
        """Object ``number`` (0 to L - 1) in annotated frame ``time`` (0 to T - 1), bool [H, W]."""

    def area(self, time: int, number: int) -> int:
        """Its pixels."""
        return int(self.mask(time, number).sum())

    def ids(self, times: Sequence[int], max_objects: int = MAX_OBJECTS) -> NDArray[np.uint8]:
        """Object ids in some annotated frames, by the rules of :func:`load_trajectory`.

        Args:
            times: which, each 0 to T - 1.
            max_objects: most objects to keep, 1 to MAX_OBJECTS.

        Returns:
            uint8 [len(times), H, W].

        Raises:
            ValueError: no object in any of them, a damaged mask, or arguments out of range.
        """
        if not 1 <= max_objects <= MAX_OBJECTS:
            raise ValueError(f"max_objects is {max_objects}; expected 1 to {MAX_OBJECTS}.")
        areas = np.zeros(self.num_objects, np.int64)
        for time in times:
            areas += [self.area(time, number) for number in range(self.num_objects)]
        kept = [int(number) for number in np.argsort(-areas, kind="stable")[:max_objects] if areas[number] > 0]
        if not kept:
            raise ValueError(f"{self.name} shows no object in its {len(times)} frames; expected at least one.")
        new_ids = {number: index for index, number in enumerate(sorted(kept), start=1)}
        ids = np.zeros((len(times), *self.size), np.uint8)
        for frame, time in zip(ids, times, strict=True):
            for number in kept:  # largest first, so that smaller ones lie in front
                frame[self.mask(time, number)] = new_ids[number]
        return ids


class JsonMasklets(Masklets):
    """Of ``…_manual.json`` or ``…_auto.json``, of the training videos.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no SA-V annotation, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._masklet, self.size = _read(path)
        self.frames = [ANNOTATED_EVERY * time for time in range(len(self._masklet))]
        self.num_objects = len(self._masklet[0])

    def mask(self, time: int, number: int) -> NDArray[np.bool_]:
        return decode_mask(self._masklet[time][number])

    def area(self, time: int, number: int) -> int:
        return int(run_lengths(self._masklet[time][number])[1::2].sum())


class FolderMasklets(Masklets):
    """Of ``Annotations_6fps/{id}``, of the validation and test videos: a folder an object, and in it a picture for each
    annotated frame in which it is seen, named by the frame's number in ``JPEGImages_24fps/{id}``.

    Args:
        folder: of the video.

    Raises:
        ValueError: no folder, no picture, names that are no numbers, or pictures of several sizes or that are damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.name = str(folder)
        objects = sorted((path for path in Path(folder).glob("*") if path.is_dir()), key=lambda path: path.name)
        pictures = [{_frame_number(path): path for path in sorted(each.glob("*.png"))} for each in objects]
        self.frames = sorted({number for found in pictures for number in found})
        if not self.frames:
            raise ValueError(f"{folder} holds no mask; expected a folder an object, with 00000.png, 00004.png, …")
        self._pictures, self.num_objects = pictures, len(pictures)
        self.size = self._read(next(path for found in pictures for path in found.values())).shape  # type: ignore[assignment]

    def mask(self, time: int, number: int) -> NDArray[np.bool_]:
        path = self._pictures[number].get(self.frames[time])
        if path is None:
            return np.zeros(self.size, bool)
        mask = self._read(path)
        if mask.shape != self.size:
            raise ValueError(f"{path} has {list(mask.shape)} pixels; expected {list(self.size)}, as the others.")
        return mask

    def _read(self, path: Path) -> NDArray[np.bool_]:
        try:
            with Image.open(path) as picture:
                values = np.asarray(picture)  # of an indexed picture the indices
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"{path} can't be read as a picture ({error}); expected a mask.") from error
        return np.asarray(values if values.ndim == 2 else values[..., :3].any(axis=-1), bool)


def _frame_number(path: Path) -> int:
    if not path.stem.isdigit():
        raise ValueError(f"{path} has no frame's number for a name; expected one such as 00004{path.suffix}.")
    return int(path.stem)


def load_trajectory(
    path: str | Path,
    max_objects: int = MAX_OBJECTS,
    start: int = 0,
    num_frames: int | None = None,
) -> MaskTrajectory:
    """Read one SA-V annotation.

    Objects keep the order of the file, without gaps: the first one kept has id 1. Of more than ``max_objects``, those
    with the largest area over the chosen frames are kept. An object that is nowhere in these frames is left out.

    Objects of SA-V may overlap (a hand in front of the person it belongs to), ids may not. Where they do, the object
    that is smaller over the whole clip is in front: so parts stay visible on what they are a part of, and in every
    frame in the same order.

    Args:
        path: ``…_manual.json`` or ``…_auto.json``, or a folder ``Annotations_6fps/{id}``.
        max_objects: most objects to keep, 1 to MAX_OBJECTS.
        start: the first annotated frame to read, counted in annotated frames.
        num_frames: how many annotated frames; None = up to the last.

    Returns:
        a trajectory of 6 fps (the annotated frames alone), in the video's full size. Annotated frame ``t`` is frame
        ``4 * t`` of the video.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no SA-V annotation, damaged, without any object, or arguments out of range.
    """
    masklets = FolderMasklets(path) if Path(path).is_dir() else JsonMasklets(path)
    available = len(masklets.frames)
    stop = available if num_frames is None else start + num_frames
    if not 0 <= start < stop <= available:
        wanted = f"frames {start} to {stop - 1}"
        raise ValueError(f"{path} has {available} annotated frames; expected some of them, not {wanted}.")
    return MaskTrajectory(masklets.ids(range(start, stop), max_objects), VIDEO_FPS / ANNOTATED_EVERY)


def _read(path: str | Path) -> tuple[list[list[dict[str, Any]]], tuple[int, int]]:
    """The run lengths [T][L] and the size (H, W), checked."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; expected an SA-V annotation (…_manual.json, …_auto.json).")
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no SA-V annotation: it holds no whole JSON ({error}).") from error
    masklet = values.get("masklet") if isinstance(values, dict) else None
    if not isinstance(masklet, list) or not masklet or not all(isinstance(frame, list) for frame in masklet):
        raise ValueError(f"{path} is no SA-V annotation; expected a list 'masklet[frame][object]' of run lengths.")
    counts = {len(frame) for frame in masklet}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"{path} has {sorted(counts)} objects a frame; expected the same number, at least 1.")
    first = masklet[0][0]
    size = first.get("size") if isinstance(first, dict) else None
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise ValueError(f"{path} has a mask of size {size!r}; expected [height, width].")
    for time, frame in enumerate(masklet):
        for number, item in enumerate(frame):
            if not isinstance(item, dict) or item.get("size") != size or not isinstance(item.get("counts"), str):
                expected = f"{{'size': {size}, 'counts': text}}"
                raise ValueError(f"masklet[{time}][{number}] of {path} is no mask; expected {expected}.")
    return masklet, (size[0], size[1])


def decode_mask(encoded: dict[str, Any]) -> NDArray[np.bool_]:
    """Decode COCO run lengths, {"size": [H, W], "counts": text}, to bool [H, W].

    Raises:
        ValueError: the text is damaged: it holds other characters, or runs that do not fill the mask.
    """
    runs = run_lengths(encoded)
    values = np.arange(len(runs)) % 2 == 1  # the first run is of background
    height, width = encoded["size"]
    return np.repeat(values, runs).reshape(width, height).T  # runs go down the columns


def run_lengths(encoded: dict[str, Any]) -> NDArray[np.int64]:
    """The lengths of runs of background and object in turn, int64, without making the mask.

    The text is read here and not by pycocotools, which hands out memory it never wrote where the runs are too short.
    Each number is in groups of 5 bits, lowest first, as characters from "0": bit 5 says that another group follows,
    bit 4 of the last group is the sign. From the fourth number on, it is the difference to the run two before.

    Raises:
        ValueError: as :func:`decode_mask`.
    """
    runs: list[int] = []
    value = shift = 0
    for character in encoded["counts"]:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"A mask is damaged: its run lengths hold {character!r}.")
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    height, width = encoded["size"]
    if shift or sum(runs) != height * width or min(runs) < 0:
        found = "cut off" if shift else f"for {sum(runs)} pixels"
        raise ValueError(f"A mask is damaged: its run lengths are {found}; expected {height} x {width}.")
    return np.array(runs, np.int64)
