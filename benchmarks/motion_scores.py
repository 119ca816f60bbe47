"""Scores of motion where a suite knows the truth: how a model's trajectory compares with it, object by object.

- "trajectory IoU": the mean over objects of the mean over frames of the IoU with the true masks, frame 0 left out where
  it was given.
- "motion right": the share of objects whose trajectory does what was asked, by the rules of
  :mod:`ttm.metrics.displacement`.

Both need a model that makes trajectories of its own, and a manifest whose plan says which object is which. One that
follows the true trajectory it was given has no such score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.manifest import Sample
from benchmarks.sample_run import PLAN, TRAJECTORY, TRUTH
from ttm.metrics.displacement import check_motion
from ttm.metrics.mask_iou import object_iou
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan


@dataclass(frozen=True)
class MotionMetric:
    """What a report says of a metric of motion."""

    name: str
    better: Literal["higher", "lower"]
    rule: dict[str, str]


IOU = MotionMetric("trajectory IoU", "higher", {"over objects": "mean", "over frames": "mean, from frame 1 on"})
RIGHT = MotionMetric("motion right", "higher", {"over objects": "share", "rules": "ttm.metrics.displacement"})
MOTION_METRICS = (RIGHT, IOU)


def motion_scores(place: Path, sample: Sample) -> tuple[dict[str, float], dict[str, str]]:
    """The scores of one sample's trajectory, and why one can't be had.

    Args:
        place: the folder of the sample's results.
        sample: knows the objects, and what each is asked to do.
    """
    if not ((place / TRAJECTORY).is_file() and (place / TRUTH).is_file()):
        return {}, {}
    try:
        _check_objects(place, sample)
        made, truth = (MaskTrajectory.load(place / name) for name in (TRAJECTORY, TRUTH))
        if made.ids.shape != truth.ids.shape:
            raise ValueError(f"The trajectory is {list(made.ids.shape)}; expected {list(truth.ids.shape)}.")
        objects = [number for number in truth.object_ids if (truth.ids[0] == number).any()]
        frames = slice(1, None) if made.num_frames > 1 else slice(None)
        shown = [number for number in objects if (truth.ids[frames] == number).any()]
        values: dict[str, float] = {}
        if shown:
            ious = [object_iou(made.ids[frames], truth.ids[frames], number) for number in shown]
            values[IOU.name] = float(np.mean(ious))
        if sample.motions:
            asked = enumerate(sample.motions, start=1)
            right = [check_motion(made.ids, truth.ids, number, motion).right for number, motion in asked]
            values[RIGHT.name] = float(np.mean(right))
        return values, {}
    except (ValueError, OSError) as error:
        return {}, {metric.name: str(error) for metric in MOTION_METRICS}


def _check_objects(place: Path, sample: Sample) -> None:
    """Object k of the trajectory must be object k of the manifest."""
    if sample.plan is None:
        raise ValueError("The sample has no plan; expected one, which says what object each id of the truth is.")
    if (place / PLAN).is_file():
        planned = PromptPlan.load(place / PLAN).phrases
        if planned != sample.plan.phrases:
            raise ValueError(f"The model planned the objects {planned}; expected {sample.plan.phrases}.")
