"""Things to look at: sheets of frames and the paths of objects (and videos, from their own module).

Letters: T frames, H W pixels, L objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ttm.atomic_write import written_beside
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory
from ttm.objects import PromptPlan

__all__ = ["contact_sheet", "draw_paths", "labelled_rows", "preview_sheet", "write_video"]

_PAPER, _INK, _QUIET, _LINE = (255, 255, 255), (28, 30, 34), (120, 124, 132), (222, 224, 228)
_MARGIN, _GAP = 20, 8
_CELL_AREA = 200 * 200  # pixels of one frame on a sheet: small clips are enlarged, large ones reduced
_SMALL, _TEXT, _HEADING = (ImageFont.load_default(size) for size in (13, 15, 20))
_TITLE_LINES = 3
_STILL = 0.02  # a path shorter than this share of the longer side is drawn as a point


def draw_paths(image: NDArray[np.uint8] | Image.Image, trajectory: MaskTrajectory, scale: float = 1.0) -> Image.Image:
    """Draw, over an image, the way of every object's centre: a ring where it starts, an arrow where it ends.

    An object that hardly moves is a point. Where an object is hidden for some frames, its way goes on straight.

    Args:
        image: uint8 [H, W, 3] or PIL, of the trajectory's size.
        trajectory: whose paths to draw, in the colours of their ids.
        scale: size of the result relative to the image; lines keep their width on the page.

    Raises:
        ValueError: an image of another size.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if picture.size != (trajectory.width, trajectory.height):
        expected = (trajectory.height, trajectory.width)
        raise ValueError(f"image has size {picture.size[::-1]}; expected {expected}, as the trajectory.")
    finer = 3  # drawn larger and reduced, which smooths the edges of lines
    size = (round(picture.width * scale), round(picture.height * scale))
    base = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", (size[0] * finer, size[1] * finer), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    unit = finer * max(1.0, min(size) / 110)
    for number in trajectory.object_ids:
        centres = trajectory.centroids(number)
        points = (centres[~np.isnan(centres[:, 0])] + 0.5) * scale * finer
        colour = tuple(int(value) for value in PALETTE[number])
        _draw_path(draw, points, colour, unit, max(layer.size) * _STILL)
    smooth = layer.resize(size, Image.Resampling.LANCZOS)
    base.paste(smooth, mask=smooth.getchannel("A"))
    return base


def _draw_path(
    draw: ImageDraw.ImageDraw, points: NDArray[np.float64], colour: tuple[int, ...], unit: float, still: float
) -> None:
    outline = (*_INK, 255)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    start, end = points[0], points[-1]
    if np.linalg.norm(points - start, axis=1).max() < still:
        for radius, fill in ((3.4 * unit, outline), (2.4 * unit, (*colour, 255))):
            draw.ellipse((*(start - radius), *(start + radius)), fill=fill)
        return
    # The arrow points along the last stretch that is long enough to have a direction.
    rest = np.cumsum(steps[::-1])[::-1]
    tail = points[:-1][rest >= min(5 * unit, float(rest[0]))][-1]
    forward = (end - tail) / max(float(np.linalg.norm(end - tail)), 1e-6)
    across = np.array([-forward[1], forward[0]])
    for thick, fill in ((3.6 * unit, outline), (1.9 * unit, (*colour, 255))):
        grow = 0.9 * unit if fill == outline else 0.0
        draw.line([tuple(point) for point in points], fill=fill, width=round(thick), joint="curve")
        radius = 2.1 * unit + grow
        draw.ellipse((*(start - radius), *(start + radius)), fill=fill)
        tip, back = end + forward * (4 * unit + grow * 1.6), end - forward * (2 * unit + grow)
        wing = across * (3.4 * unit + grow * 1.3)
        draw.polygon([tuple(tip), tuple(back + wing), tuple(back - wing)], fill=fill)
    radius = 1.0 * unit
    draw.ellipse((*(start - radius), *(start + radius)), fill=(*_PAPER, 255))


def labelled_rows(
    rows: Mapping[str, NDArray[np.uint8] | Sequence[Image.Image]],
    title: str = "",
    captions: Sequence[str] = (),
    plan: PromptPlan | None = None,
) -> NDArray[np.uint8]:
    """A sheet of frames: one row a label.

    Args:
        rows: label -> frames uint8 [T, H, W, 3] or PIL images, all of which are shown, at about 200 x 200 pixels.
            What follows a line break in a label is printed paler.
        title: stands above, wrapped; what goes beyond three lines is left out.
        captions: under the frames of the last row, one a column.
        plan: adds a legend below: the colour of every object, and what it does.

    Returns:
        the sheet, uint8 [H', W', 3].

    Raises:
        ValueError: no row, or a row without frames.
    """
    if not rows:
        raise ValueError("rows is empty; expected at least one label with its frames.")
    cells = {label: _cells(frames, label) for label, frames in rows.items()}
    cell_width = max(cell.width for row in cells.values() for cell in row)
    columns = max(len(row) for row in cells.values())
    left = _MARGIN + 14 + round(max(_TEXT.getlength(line) for label in cells for line in label.split("\n")))
    width = max(left + columns * (cell_width + _GAP) - _GAP + _MARGIN, 420)
    blocks = [
        *([_title_block(title, width)] if title else []),
        *(_row_block(label, row, left, cell_width, width) for label, row in cells.items()),
        *([_caption_block(captions, left, cell_width, width)] if captions else []),
        *([_legend_block(plan, left, width)] if plan else []),
    ]
    height = 2 * _MARGIN + sum(block.height for block in blocks) + _GAP * (len(blocks) - 1)
    sheet = Image.new("RGB", (width, height), _PAPER)
    top = _MARGIN
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height + _GAP
    return np.asarray(sheet)


def contact_sheet(
    path: str | Path,
    frames: NDArray[np.uint8],
    trajectory: MaskTrajectory,
    plan: PromptPlan | None = None,
    columns: int = 5,
) -> Image.Image:
    """Draw a clip on one page and write it: its frames, its trajectory, both on top of each other, and its plan.

    Args:
        path: of the picture, .png or .jpg (whole or not at all).
        frames: uint8 [T, H, W, 3].
        trajectory: of the same size and number of frames.
        plan: its sentence becomes the title, its objects the legend.
        columns: how many frames to show, evenly spread, the first and last among them.

    Returns:
        the picture.

    Raises:
        ValueError: frames that are no video, or of another size than the trajectory.
        OSError: the folder is missing or read-only, or the disk is full.
    """
    _check_frames(frames, "frames")
    shown = _spread(trajectory.num_frames, columns)
    overlay = trajectory.overlay(frames)[shown]
    rows = {"video": frames[shown], "trajectory": trajectory.to_video()[shown], "overlay": overlay}
    times = [f"{index / trajectory.fps:.1f} s" for index in shown]
    sheet = Image.fromarray(labelled_rows(rows, plan.prompt if plan else "", times, plan))
    with written_beside(path) as beside:
        sheet.save(beside)
    return sheet


def preview_sheet(
    first_frame: NDArray[np.uint8] | Image.Image,
    trajectories: Mapping[str, MaskTrajectory],
    plan: PromptPlan | None = None,
    columns: int = 4,
) -> NDArray[np.uint8]:
    """Several motions of one image, to choose from: one row each, first its paths, then a few frames of its masks.

    Args:
        first_frame: uint8 [H, W, 3] or PIL, of the trajectories' size.
        trajectories: by label ("seed 3").
        plan: its sentence becomes the title, its objects the legend.
        columns: frames a row, evenly spread after the first, the last among them.

    Returns:
        uint8 [H', W', 3].

    Raises:
        ValueError: no trajectory, or one of another size than the image.
    """
    still = np.asarray(first_frame if isinstance(first_frame, np.ndarray) else first_frame.convert("RGB"))
    _check_frames(still[None], "first_frame")
    rows: dict[str, list[Image.Image]] = {}
    times: list[str] = []
    for label, trajectory in trajectories.items():
        shown = _spread(trajectory.num_frames, columns + 1)[1:] or [0]
        paths = draw_paths(still, trajectory, scale=_scale(trajectory.width, trajectory.height))
        # Dimmed, because the objects of the first frame stay in it where they were.
        dimmed = np.repeat((still // 2 + 40)[None], len(shown), axis=0)
        overlay = MaskTrajectory(trajectory.ids[shown]).overlay(dimmed, alpha=0.75)
        rows[label] = [paths, *(Image.fromarray(frame) for frame in overlay)]
        times = ["paths", *(f"{index / trajectory.fps:.1f} s" for index in shown)]
    return labelled_rows(rows, plan.prompt if plan else "", times, plan)


# Parts of a sheet, each a picture as wide as the sheet --------------------------------------------------------


def _title_block(title: str, width: int) -> Image.Image:
    lines = _wrapped(title, _HEADING, width - 2 * _MARGIN)
    if len(lines) > _TITLE_LINES:
        lines = [*lines[: _TITLE_LINES - 1], lines[_TITLE_LINES - 1] + " …"]
    block = Image.new("RGB", (width, 27 * len(lines) + 4), _PAPER)
    for index, line in enumerate(lines):
        ImageDraw.Draw(block).text((_MARGIN, 27 * index), line, font=_HEADING, fill=_INK)
    return block


def _row_block(label: str, cells: list[Image.Image], left: int, cell_width: int, width: int) -> Image.Image:
    block = Image.new("RGB", (width, max(cell.height for cell in cells)), _PAPER)
    lines = label.split("\n")
    for index, line in enumerate(lines):
        place = (_MARGIN, block.height / 2 + 19 * (index - (len(lines) - 1) / 2))
        fill = _QUIET if index else _INK
        ImageDraw.Draw(block).text(place, line, font=_TEXT, fill=fill, anchor="lm")
    for column, cell in enumerate(cells):
        block.paste(cell, (left + column * (cell_width + _GAP), 0))
    return block


def _caption_block(captions: Sequence[str], left: int, cell_width: int, width: int) -> Image.Image:
    block = Image.new("RGB", (width, 16), _PAPER)
    for column, caption in enumerate(captions):
        place = (left + column * (cell_width + _GAP) + cell_width / 2, 6)
        ImageDraw.Draw(block).text(place, caption, font=_SMALL, fill=_QUIET, anchor="mm")
    return block


def _legend_block(plan: PromptPlan, left: int, width: int) -> Image.Image:
    entries = [_wrapped(text, _TEXT, width - left - 38 - _MARGIN) for text in plan.local_prompts]
    block = Image.new("RGB", (width, 10 + sum(20 * len(lines) + 4 for lines in entries)), _PAPER)
    draw = ImageDraw.Draw(block)
    draw.line((left, 1, width - _MARGIN, 1), fill=_LINE)
    top = 12
    for number, lines in enumerate(entries, start=1):
        colour = tuple(int(value) for value in PALETTE[number])
        draw.rectangle((left, top + 2, left + 26, top + 16), fill=colour, outline=_INK)
        for index, line in enumerate(lines):
            draw.text((left + 38, top + 9 + 20 * index), line, font=_TEXT, fill=_INK, anchor="lm")
        top += 20 * len(lines) + 4
    return block


def _cells(frames: NDArray[np.uint8] | Sequence[Image.Image], label: str) -> list[Image.Image]:
    if isinstance(frames, np.ndarray):
        _check_frames(frames, f"row {label!r}")
        frames = [Image.fromarray(frame) for frame in frames]
    if not len(frames):
        raise ValueError(f"row {label!r} has no frame; expected at least one.")
    cells = []
    for frame in frames:
        scale = _scale(*frame.size)
        size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        # A picture that drew itself at its size on the page stays as it is.
        close = abs(scale - 1) < 0.02
        cells.append(frame.convert("RGB") if close else frame.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return cells


def _scale(width: int, height: int) -> float:
    return math.sqrt(_CELL_AREA / (width * height))


def _spread(count: int, columns: int) -> list[int]:
    """Indices of at most so many frames, evenly spread from the first to the last."""
    return [int(index) for index in np.unique(np.linspace(0, count - 1, min(columns, count)).round())]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _check_frames(frames: NDArray[np.uint8], name: str) -> None:
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        shape = list(np.shape(frames))
        raise ValueError(f"{name} has shape {shape}; expected [T, H, W, 3] with no empty axis.")
    if frames.dtype != np.uint8:
        raise ValueError(f"{name} has dtype {frames.dtype}; expected uint8 in 0..255.")
