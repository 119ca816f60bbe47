"""Tables that a user brings: one row a video, from CSV, JSON Lines or JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.selection import Candidate

Describe = Callable[[NDArray[np.uint8]], tuple[str, str]]
"""Caption and category of three frames uint8 [3, H, W, 3]: the first, the middle and the last of a video."""


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a table.

    Args:
        path: .csv (a head line; values are texts), .jsonl (an object a line) or .json (a list of objects).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, no rows, or rows that are no objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected a table (.csv, .jsonl or .json).")
    try:
        if path.suffix == ".csv":
            with open(path, encoding="utf-8-sig", newline="") as stream:
                rows: list[Any] = list(csv.DictReader(stream))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            raise ValueError(f"{path} ends in {path.suffix!r}; expected .csv, .jsonl or .json.")
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table ({error}); expected a whole {path.suffix} file.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds no rows; expected one object a video.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in (row.values() if path.suffix == ".csv" else ()):
            raise ValueError(f"Row {number} of {path} has another number of cells than the head line.")
    return rows


def described(
    rows: Sequence[Mapping[str, Any]], frames_of: Callable[[str], NDArray[np.uint8]], describe: Describe
) -> list[dict[str, Any]]:
    """Rows with a caption and a category each: those that lack one get both from a vision language model.

    Args:
        rows: with an "id" each.
        frames_of: of an id, three frames uint8 [3, H, W, 3] (:func:`three_frames`).
        describe: the model. It is asked once for each row that lacks something; what a row has, it keeps.
    """
    filled = []
    for row in rows:
        own = {key: row[key] for key in ("caption", "category") if row.get(key)}
        if len(own) < 2:
            caption, category = describe(frames_of(str(row["id"])))
            own = {"caption": caption, "category": category, **own}
        filled.append({**row, **own})
    return filled


def three_frames(path: Path, num_frames: int | None = None) -> NDArray[np.uint8]:
    """The first, the middle and the last frame of a video (of its first ``num_frames``), uint8 [3, H, W, 3]."""
    from ttm.data.video_reader import read_video

    frames = read_video(path, num_frames).frames
    return frames[[0, len(frames) // 2, len(frames) - 1]]


def candidates(rows: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    """Rows as the selection reads them.

    Args:
        rows: each with id, category, aesthetic, motion and objects.

    Raises:
        ValueError: names the first row that lacks one of them or holds no number.
    """
    found = []
    for number, row in enumerate(rows, start=1):
        missing = [key for key in ("id", "category", "aesthetic", "motion", "objects") if row.get(key) in (None, "")]
        if missing:
            raise ValueError(f"Row {number} of the table lacks {missing}; expected them in every row.")
        try:
            scores = float(row["aesthetic"]), float(row["motion"]), int(row["objects"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"Row {number} of the table (id {row['id']!r}): {error}; expected numbers.") from error
        found.append(Candidate(str(row["id"]), str(row["category"]), *scores))
    return found
