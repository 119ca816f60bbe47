"""Measure "end_to_end": first frame and sentence in, video out; every part its own.

The objects are found in the video by colour (:mod:`ttm.metrics.rendered_objects`, each object's largest
piece a frame), and judged by the rules of :mod:`ttm.metrics.displacement` for the motions that have a
direction. Beside it the same judgement of the trajectory that led there, and of the true video by the same
detector. A scene where the segmenter did not find a phrase counts all its objects as lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.detection import SceneDetector
from benchmarks.measure import (
    Figure,
    Measure,
    Outcome,
    Row,
    Settings,
    errors_figure,
    mean_figure,
    sampling_seed,
    share_figure,
)
from benchmarks.measures.motion_figures import by_motion, check_scene, directed, lost_scene
from benchmarks.scenes import load_scene, scene_names
from benchmarks.subject import Subject
from ttm.metrics.displacement import MOTIONS
from ttm.metrics.rendered_objects import largest_pieces


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene."""
    scene = load_scene(settings, item)
    detector = SceneDetector(subject, scene)
    row: Row = {
        "prompt": scene.plan.prompt,
        "in_true": check_scene(largest_pieces(detector.in_true(scene.frames)), scene),
        "in_round_trip": check_scene(largest_pieces(detector.in_decoded(subject.round_trip(scene.frames))), scene),
    }
    started = time.perf_counter()
    try:
        out = subject.generate(scene.frames[0], scene.plan.prompt, sampling_seed(settings, "end_to_end", item))
    except ValueError as caught:
        lost = lost_scene(scene)
        return Outcome(row | {"error": str(caught), "seconds": None, "in_video": lost, "in_trajectory": lost})
    row["seconds"] = time.perf_counter() - started
    row["error"] = "" if out.plan.phrases == scene.plan.phrases else f"planned {out.plan.phrases}"
    trajectory = in_scene_order(out.trajectory.ids, out.plan.phrases, scene.plan.phrases)
    row["in_video"] = check_scene(largest_pieces(detector.in_decoded(out.frames)), scene)
    row["in_trajectory"] = check_scene(trajectory, scene)
    return Outcome(row, {"true": scene.frames, "trajectory": out.trajectory.to_video(), "generated": out.frames})


def in_scene_order(ids: np.ndarray, planned: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Renumber the objects of another plan by their phrases; an object that it lacks stays absent."""
    renumbered = np.zeros_like(ids)
    for number, phrase in enumerate(wanted, start=1):
        if phrase in planned:
            renumbered[ids == list(planned).index(phrase) + 1] = number
    return renumbered


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Directions in the video, then where they were lost."""
    video = [check for row in rows for check in row["in_video"]]
    single = [check for row in rows if len(row["in_video"]) == 1 for check in row["in_video"]]
    multi = [check for row in rows if len(row["in_video"]) > 1 for check in row["in_video"]]
    return [
        share_figure("end to end: direction in the rendered video", directed(video), goal=0.80),
        share_figure("  scenes with one object", directed(single)),
        share_figure("  scenes with 2-3 objects", directed(multi)),
        share_figure("  in the trajectory that led there", directed([c for row in rows for c in row["in_trajectory"]])),
        share_figure(
            "  the detector on the round trip of the true video",
            directed([c for row in rows for c in row["in_round_trip"]]),
        ),
        share_figure("  the detector on the true video", directed([c for row in rows for c in row["in_true"]])),
        errors_figure("  scenes with a phrase not found, or another plan", rows),
        *by_motion(video, MOTIONS),
        mean_figure("  seconds a video, weights loaded", [row["seconds"] for row in rows], unit="s"),
    ]


MEASURE = Measure("end_to_end", scene_names, measure, summarise, samplings=2)
