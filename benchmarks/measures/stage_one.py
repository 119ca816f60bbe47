"""Measure "stage_one": image to motion, from true first-frame masks and the true plan.

- Direction: for objects asked to move left, right, up or down or to stay, the rules of
  :mod:`ttm.metrics.displacement` (within 45 degrees, at least half of the true displacement; "stays": under
  5% of the side). The share of objects, in scenes with one object and with several. Circles, bounces, grows
  and shrinks have rules of their own and are printed apart.
- First two frames: IoU of the raw prediction (nothing pasted in) in frames 0 and 1 with the true masks, the
  mean over both frames, then over objects; beside it the same of the true palette clip's autoencoder round
  trip.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import (
    Figure,
    Measure,
    Outcome,
    Row,
    Settings,
    mean_figure,
    sampling_seed,
    share_figure,
)
from benchmarks.measures.autoencoder import palette_round_trip
from benchmarks.measures.motion_figures import by_motion, check_scene, directed
from benchmarks.scenes import load_scene, scene_names
from benchmarks.subject import Subject
from ttm.metrics.displacement import MOTIONS
from ttm.metrics.mask_iou import object_iou
from ttm.motion.mask_trajectory import MaskTrajectory


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene."""
    scene = load_scene(settings, item)
    seed = sampling_seed(settings, "stage_one", item)
    predicted = subject.predict_motion(scene.frames[0], scene.ids[0], scene.plan, seed)
    palette = palette_round_trip(subject, scene)
    numbers = range(1, len(scene.objects) + 1)
    row = {
        "prompt": scene.plan.motion_prompt,
        "checks": check_scene(predicted.ids, scene),
        "first_two_iou": [object_iou(predicted.ids[:2], scene.ids[:2], number) for number in numbers],
        "first_two_palette_iou": [object_iou(palette.ids[:2], scene.ids[:2], number) for number in numbers],
        "iou": [object_iou(predicted.ids, scene.ids, number) for number in numbers],
    }
    clips = {
        "true": scene.frames,
        "true trajectory": MaskTrajectory(scene.ids).to_video(),
        "predicted trajectory": predicted.to_video(),
    }
    return Outcome(row, clips)


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """Directions, single and multi apart; first two frames; the other motions."""
    single = [check for row in rows if len(row["checks"]) == 1 for check in row["checks"]]
    multi = [check for row in rows if len(row["checks"]) > 1 for check in row["checks"]]
    return [
        share_figure("stage 1 direction, one object", directed(single), goal=0.90),
        share_figure("stage 1 direction, 2-3 objects", directed(multi), goal=0.80),
        *by_motion(single + multi, MOTIONS),
        mean_figure("stage 1 raw first two frames, IoU", [v for row in rows for v in row["first_two_iou"]], goal=0.85),
        mean_figure(
            "  palette round trip, first two frames",
            [v for row in rows for v in row["first_two_palette_iou"]],
        ),
        mean_figure("  whole clip (other paths may be right too)", [v for row in rows for v in row["iou"]]),
    ]


MEASURE = Measure("stage_one", scene_names, measure, summarise, samplings=1)
