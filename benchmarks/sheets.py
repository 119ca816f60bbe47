"""What was measured, to look at: one strip of frames an item, and a sheet of strips.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ttm.atomic_write import written_beside

COLUMNS = 5
"""Frames a strip shows of a clip, evenly spread."""
_CAPTION = 16


def strip(title: str, clips: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """One row for each clip, its frames evenly spread, with captions.

    Args:
        title: stands above.
        clips: by caption, uint8 [T, H, W, 3].
    """
    height, width = next(iter(clips.values())).shape[1:3]
    label = 130
    sheet = Image.new("RGB", (label + COLUMNS * (width + 2), _CAPTION + len(clips) * (height + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), title, fill="black")
    for row, (caption, clip) in enumerate(clips.items()):
        top = _CAPTION + row * (height + 2)
        draw.text((4, top + height // 2 - 6), caption, fill="black")
        picks = np.unique(np.linspace(0, len(clip) - 1, COLUMNS).round().astype(int))
        for column, index in enumerate(picks):
            sheet.paste(Image.fromarray(clip[index]), (label + column * (width + 2), top))
    return sheet


def contact_sheet(strips: Sequence[Path], columns: int = 2) -> Image.Image:
    """Strips beside and below each other."""
    pictures = [Image.open(path).convert("RGB") for path in strips]
    width = max(picture.width for picture in pictures) + 8
    heights = [0] * columns
    places = []
    for picture in pictures:  # into the column that is shortest so far
        column = heights.index(min(heights))
        places.append((column * width, heights[column]))
        heights[column] += picture.height + 8
    sheet = Image.new("RGB", (width * columns, max(heights)), "white")
    for picture, place in zip(pictures, places, strict=True):
        sheet.paste(picture, place)
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        picture.save(beside, format="PNG")
