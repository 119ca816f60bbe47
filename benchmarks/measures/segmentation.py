"""Measure "segmentation": first-frame masks from the true first frame and the objects' phrases.

IoU of each object's mask with its true mask, then the mean over all objects. A scene where the segmenter
says that it did not find a phrase counts 0 for each of its objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, errors_figure, mean_figure
from benchmarks.scenes import load_scene, scene_names
from benchmarks.subject import Subject
from ttm.metrics.mask_iou import object_iou
from ttm.motion.mask_trajectory import PALETTE


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene."""
    scene = load_scene(settings, item)
    error = ""
    try:
        ids = subject.segment(scene.frames[0], scene.plan.phrases)
    except ValueError as caught:
        ids, error = np.zeros_like(scene.ids[0]), str(caught)
    ious = [object_iou(ids, scene.ids[0], number + 1) for number in range(len(scene.objects))]
    clips = {"first frame": scene.frames[:1], "true": PALETTE[scene.ids[:1]], "found": PALETTE[ids[None]]}
    return Outcome({"iou": ious, "phrases": scene.plan.phrases, "error": error}, clips)


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """IoU over objects, single and multi apart too."""
    every = [iou for row in rows for iou in row["iou"]]
    single = [iou for row in rows if len(row["iou"]) == 1 for iou in row["iou"]]
    multi = [iou for row in rows if len(row["iou"]) > 1 for iou in row["iou"]]
    return [
        mean_figure("first-frame segmentation, IoU", every, goal=0.80),
        mean_figure("  scenes with one object", single),
        mean_figure("  scenes with 2-3 objects", multi),
        errors_figure("  scenes with a phrase not found", rows),
    ]


MEASURE = Measure("segmentation", scene_names, measure, summarise)
