"""Measure "real": photographs, each with a mask made by hand and a sentence.

The cases stand in configs/suite/synthetic.yaml: a file of the real-data folder (of a video its first frame),
a polygon in fractions of the whole picture, a sentence, the motion asked. A case whose file is absent says
"skipped". Measured:

- Object: the asked direction in the trajectory, within 45 degrees and at least 10% of the side
  (:func:`ttm.metrics.displacement.check_heading`); beside it the same in the video, where the object is found
  by its colours in the first frame against the first frame with the object painted out.
- Background: PSNR of all frames against the autoencoder's round trip of frame 0, outside both the mask of
  frame 0 and the frame's own mask.

A case may name a working size of its own (height, width): a wide object needs a wide frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, sampling_seed
from benchmarks.subject import Subject
from ttm.metrics.displacement import check_heading
from ttm.metrics.psnr import psnr
from ttm.metrics.rendered_objects import largest_pieces, locate_objects, object_colours

MIN_DISTANCE = 0.1
MIN_PSNR = 20.0


def first_frame(path: Path) -> NDArray[np.uint8]:
    """A picture, or the first frame of a video, uint8 [H, W, 3]."""
    if path.suffix.lower() in (".mp4", ".mov", ".webm"):
        import av

        with av.open(str(path)) as container:
            return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def polygon_mask(polygon: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.uint8]:
    """Ids uint8 [H, W]: 1 inside a polygon of (x, y) in fractions of the picture."""
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).polygon([(x * width, y * height) for x, y in polygon], fill=1)
    return np.array(mask)


def items(settings: Settings) -> list[str]:
    """The names of the cases."""
    return [case["name"] for case in settings.real_cases]


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One case."""
    case = next(case for case in settings.real_cases if case["name"] == item)
    path = None if settings.real_data is None else settings.real_data / case["file"]
    if path is None or not path.is_file():
        return Outcome({"skipped": f"{case['file']} is not there; expected it in TTM_REAL_DATA or ../shared/data"})
    image = first_frame(path)
    ids = polygon_mask(case["polygon"], *image.shape[:2])
    size = (int(case["size"][0]), int(case["size"][1])) if case.get("size") else None
    out = subject.generate(image, case["prompt"], sampling_seed(settings, "real", item), first_ids=ids, size=size)
    fitted, start = subject.fit(image, size), subject.fit_ids(ids, size) > 0
    row: Row = {"prompt": case["prompt"], "motion": case["motion"]}
    row |= {"trajectory": check_heading(out.trajectory.ids, 1, case["motion"], MIN_DISTANCE).to_dict()}
    decoded = subject.round_trip(fitted[None])
    outside = ~(start[None] | (out.trajectory.ids > 0))
    row["background_psnr"] = psnr(out.frames, np.repeat(decoded, len(out.frames), axis=0), outside)
    row["video"] = _in_video(subject, fitted, start, out.frames, case["motion"])
    clips = {"trajectory": out.trajectory.overlay(out.frames), "generated": out.frames}
    return Outcome(row, clips)


def _in_video(
    subject: Subject,
    fitted: NDArray[np.uint8],
    start: NDArray[np.bool_],
    frames: NDArray[np.uint8],
    motion: str,
) -> dict[str, Any]:
    around = cv2.dilate(start.astype(np.uint8), np.ones((5, 5), np.uint8))
    plate = np.asarray(cv2.inpaint(fitted, around, 5, cv2.INPAINT_TELEA))
    layer = np.dstack([fitted, start.astype(np.uint8) * 255])[None]
    decoded = subject.round_trip(np.repeat(plate[None], len(frames), axis=0))
    found = largest_pieces(locate_objects(frames, decoded, [object_colours(layer)]))
    return check_heading(found, 1, motion, MIN_DISTANCE).to_dict()


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Two lines a case."""
    figures = []
    for row in rows:
        if "skipped" in row:
            figures.append(Figure("real input", None, 0, note="skipped: " + row["skipped"]))
            continue
        prompt, count = f'real input, "{row["prompt"]}"', 1
        verdict = f"the trajectory goes {row['motion']}: {_yes(row['trajectory'])}"
        verdict += f"; the video, by colour: {_yes(row['video'])}"
        figures.append(
            Figure(
                f"{prompt}: as asked",
                float(row["trajectory"]["right"]),
                count,
                unit="%",
                goal=1.0,
                note=verdict,
            )
        )
        figures.append(Figure("  background PSNR", row["background_psnr"], count, unit="dB", goal=MIN_PSNR))
    return figures


def _yes(check: dict[str, Any]) -> str:
    return "yes" if check["right"] else "lost" if check["lost"] else "no"


MEASURE = Measure("real", items, measure, summarise, samplings=2)
