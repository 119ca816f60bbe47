"""Measure "disc": a scene that the synthetic world did not draw.

A flat red disc, drawn with PIL, on photographs of scikit-image that training never sees; the sentence is
"the red ball moves right", and everything else is the program's own. Right: within 45 degrees of the asked
direction, by at least 15% of the side between first and last frame
(:func:`ttm.metrics.displacement.check_heading`), in the trajectory and in the video, where the disc is found
by colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, errors_figure, sampling_seed, share_figure
from benchmarks.subject import Subject
from ttm.data.sprites import TEST_PHOTOGRAPHS, photograph
from ttm.metrics.displacement import check_heading
from ttm.metrics.rendered_objects import largest_pieces, locate_objects

PROMPT = "the red ball moves right"
RED = (220, 30, 30)
MIN_DISTANCE = 0.15
_PLACES = ((0.28, 0.5, 0.15), (0.3, 0.3, 0.12), (0.35, 0.65, 0.17))
"""Centre x, y and radius as fractions of the side."""


def draw(photo: str, place: tuple[float, float, float], side: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photograph with a disc and without, both uint8 [side, side, 3]."""
    picture = Image.fromarray(photograph(photo))
    shorter = min(picture.size)
    left, top = (picture.width - shorter) // 2, (picture.height - shorter) // 2
    plate = picture.crop((left, top, left + shorter, top + shorter)).resize((side, side), Image.Resampling.LANCZOS)
    with_disc = plate.copy()
    x, y, radius = (value * side for value in place)
    ImageDraw.Draw(with_disc).ellipse((x - radius, y - radius, x + radius, y + radius), fill=RED)
    return np.array(with_disc), np.array(plate)


def items(settings: Settings) -> list[str]:
    """One for each photograph and place."""
    return [f"{photo}-{number}" for photo in TEST_PHOTOGRAPHS for number in range(len(_PLACES))]


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One disc."""
    photo, number = item.rsplit("-", 1)
    image, plate = draw(photo, _PLACES[int(number)])
    try:
        out = subject.generate(image, PROMPT, sampling_seed(settings, "disc", item))
    except ValueError as caught:
        return Outcome({"error": str(caught), "in_trajectory": False, "in_video": False})
    decoded_plate = subject.round_trip(np.repeat(subject.fit(plate)[None], len(out.frames), axis=0))
    found = locate_objects(out.frames, decoded_plate, [np.array([RED], np.float32)])
    row = {
        "error": "",
        "in_trajectory": check_heading(out.trajectory.ids, 1, "right", MIN_DISTANCE).right,
        "in_video": check_heading(largest_pieces(found), 1, "right", MIN_DISTANCE).right,
    }
    return Outcome(row, {"trajectory": out.trajectory.to_video(), "generated": out.frames})


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Shares of the discs."""
    return [
        share_figure("flat disc on a photograph goes right, in the video", [row["in_video"] for row in rows]),
        share_figure("  in the trajectory that led there", [row["in_trajectory"] for row in rows]),
        errors_figure("  not found by the segmenter", rows),
    ]


MEASURE = Measure("disc", items, measure, summarise, samplings=2)
