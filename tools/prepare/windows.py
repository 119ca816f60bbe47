"""Where the clips of a source lie: the rule, and each clip's id.

Letters: T frames of a clip, H W pixels.

A source gives clips of the longest length that it has room for, side by side from its first frame on; what is left at
its end is dropped. Where SA-V's masklets are given, every clip begins at an annotated frame.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tools.prepare.footage import Footage
from tools.prepare.settings import ClipSettings
from tools.prepare.sources import Source
from ttm.data.sa_v import ANNOTATED_EVERY


@dataclass(frozen=True)
class Window:
    """One clip before it is read.

    Attributes:
        clip_id: made of the source's name and the clip's first frame: the same in every run.
        first: its first frame, counted in the source's frames at the clips' rate.
        num_frames, height, width: T, H, W.
        start_seconds: where in the source it begins.
        shard: the file that it goes to; "" until that is decided.
    """

    clip_id: str
    first: int
    num_frames: int
    height: int
    width: int
    start_seconds: float
    shard: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Window:
        """The inverse of :meth:`to_dict`."""
        return cls(**values)


def cut(footage: Footage, source: Source, settings: ClipSettings) -> list[Window]:
    """The clips of a source.

    Raises:
        ValueError: it is too short, too slow or too small, or can't be decoded.
    """
    numbers, fps = footage.at_rate(settings.fps)
    fitting = [length for length in settings.num_frames if length <= len(numbers)]
    if not fitting:
        shortest = min(settings.num_frames)
        raise ValueError(f"it has {len(numbers)} frames at {fps:g} a second; expected at least {shortest}")
    length, size = max(fitting), _size(footage.size, settings.sizes)
    every, firsts = ANNOTATED_EVERY if source.masks_kind == "sa_v" else 1, list[int]()
    for place in range(len(numbers) - length + 1):
        if numbers[place] % every == 0 and (not firsts or place - firsts[-1] >= length):
            firsts.append(place)
    if settings.max_clips is not None and len(firsts) > settings.max_clips:
        firsts = [firsts[int(n)] for n in np.linspace(0, len(firsts) - 1, settings.max_clips).round()]
    begin = float(footage.timeline.seconds[0])
    return [
        Window(
            clip_id(source.name, numbers[first]), first, length, *size,
            round(float(footage.timeline.seconds[numbers[first]]) - begin, 6),
        )
        for first in firsts
    ]  # fmt: skip


def clip_id(name: str, frame: int) -> str:
    """The id of the clip of a source that begins with this frame; short, readable, unique."""
    words = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(name).stem.lower()).strip("-")[:40] or "clip"
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:10]}-{frame:06d}"


def _size(own: tuple[int, int], sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The size nearest to the source's aspect ratio."""
    if not sizes:
        return own
    size = min(sizes, key=lambda each: abs(math.log(each[0] / each[1]) - math.log(own[0] / own[1])))
    if own[0] < size[0] or own[1] < size[1]:
        raise ValueError(f"it is {own[1]} x {own[0]} pixels; expected at least {size[1]} x {size[0]}, as the clips")
    return size
