"""SA-V annotations as mask trajectories: real objects that hide, overlap and appear late.

Letters: T annotated frames, H W pixels, L objects.

A video ``{id}.mp4`` of SA-V comes with ``{id}_manual.json`` and ``{id}_auto.json``. Both hold ``masklet[t][l]``, the
mask of object ``l`` in the ``t``-th annotated frame as COCO run lengths; every 4th frame of the 24 fps video is
annotated. Data: SA 2 (Ravi et al. 2024, arXiv 2408.00714), CC BY 4.0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import MAX_OBJECTS

ANNOTATED_EVERY = 4
"""One frame in so many of the video is annotated."""
VIDEO_FPS = 24.0


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
        path: ``…_manual.json`` or ``…_auto.json``.
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
    if not 1 <= max_objects <= MAX_OBJECTS:
        raise ValueError(f"max_objects is {max_objects}; expected 1 to {MAX_OBJECTS}.")
    masklet, size = _read(path)
    stop = len(masklet) if num_frames is None else start + num_frames
    if not 0 <= start < stop <= len(masklet):
        wanted = f"frames {start} to {stop - 1}"
        raise ValueError(f"{path} has {len(masklet)} annotated frames; expected some of them, not {wanted}.")
    chosen = masklet[start:stop]
    areas = _areas(chosen)
    kept = [number for number in np.argsort(-areas, kind="stable")[:max_objects] if areas[number] > 0]
    if not kept:
        raise ValueError(f"{path} shows no object in its {len(chosen)} frames; expected at least one.")
    new_ids = {number: index for index, number in enumerate(sorted(kept), start=1)}
    ids = np.zeros((len(chosen), *size), np.uint8)
    for frame, encoded in zip(ids, chosen, strict=True):
        for number in kept:  # largest first, so that smaller ones lie in front
            frame[decode_mask(encoded[number])] = new_ids[number]
    return MaskTrajectory(ids, VIDEO_FPS / ANNOTATED_EVERY)


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


def _areas(masklet: Sequence[Sequence[dict[str, Any]]]) -> NDArray[np.int64]:
    """Pixels of every object over all frames, int64 [L]."""
    return np.array([[run_lengths(item)[1::2].sum() for item in frame] for frame in masklet]).sum(axis=0)


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
