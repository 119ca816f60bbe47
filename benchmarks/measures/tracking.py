"""Measure "tracking": the true first-frame masks followed through the true video.

J of video object segmentation: IoU a frame over frames 1 to T - 1 (frame 0 is given), the mean over frames,
then over all objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, mean_figure
from benchmarks.scenes import load_scene, scene_names
from benchmarks.subject import Subject
from ttm.metrics.mask_iou import object_iou
from ttm.motion.mask_trajectory import MaskTrajectory


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene."""
    scene = load_scene(settings, item)
    ids = subject.track(scene.frames, scene.ids[0])
    scores = [object_iou(ids[1:], scene.ids[1:], number + 1) for number in range(len(scene.objects))]
    clips = {"true": scene.frames, "tracked": MaskTrajectory(ids).to_video()}
    return Outcome({"j": scores}, clips)


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """J over objects, single and multi apart too."""
    return [
        mean_figure("tracking of first-frame masks, J", [j for row in rows for j in row["j"]], goal=0.75),
        mean_figure("  scenes with one object", [j for row in rows if len(row["j"]) == 1 for j in row["j"]]),
        mean_figure("  scenes with 2-3 objects", [j for row in rows if len(row["j"]) > 1 for j in row["j"]]),
    ]


MEASURE = Measure("tracking", scene_names, measure, summarise)
