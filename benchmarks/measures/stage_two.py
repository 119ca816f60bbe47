"""Measure "stage_two": motion to video, from the true first frame, trajectory and plan.

Objects are found in the video by colour alone (:mod:`ttm.metrics.rendered_objects`; the detector sees no
trajectory), and compared with the trajectory: IoU a frame, the mean over frames, then over objects. The same
on the autoencoder's round trip of the true video (what no stage 2 can beat) and on the true video (what the
detector itself loses). The goal is a share of 90% of the round trip's figure. Beside it the PSNR of the video
against the true one.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.detection import SceneDetector
from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, mean_figure, sampling_seed
from benchmarks.scenes import load_scene, scene_names
from benchmarks.subject import Subject
from ttm.metrics.mask_iou import object_iou
from ttm.metrics.psnr import psnr
from ttm.motion.mask_trajectory import MaskTrajectory


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene."""
    scene = load_scene(settings, item)
    seed = sampling_seed(settings, "stage_two", item)
    trajectory = MaskTrajectory(scene.ids)
    rendered = subject.render(scene.frames[0], trajectory, scene.plan, seed)
    decoded = subject.round_trip(scene.frames)
    detector = SceneDetector(subject, scene)
    found = {
        "generated": detector.in_decoded(rendered),
        "round_trip": detector.in_decoded(decoded),
        "true": detector.in_true(scene.frames),
    }
    row: Row = {
        name: [object_iou(ids, scene.ids, number + 1) for number in range(len(scene.objects))]
        for name, ids in found.items()
    }
    row["psnr"] = psnr(rendered, scene.frames)
    row["prompt"] = scene.plan.prompt
    clips = {
        "true": scene.frames,
        "true trajectory": trajectory.to_video(),
        "generated": rendered,
        "found in it": MaskTrajectory(found["generated"]).to_video(),
    }
    return Outcome(row, clips)


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """IoU over objects of the three videos, and the share that the goal is about."""
    figures = {
        name: mean_figure(f"  on {text}, IoU", [v for row in rows for v in row[name]]) for name, text in _VIDEOS.items()
    }
    generated, reference = figures["generated"].value, figures["round_trip"].value
    share = None if generated is None or not reference else generated / reference
    count = figures["generated"].count
    return [
        Figure("stage 2 follows the true trajectory, share of round trip", share, count, unit="%", goal=0.90),
        *figures.values(),
        mean_figure("  PSNR against the true video", [row["psnr"] for row in rows], unit="dB"),
    ]


_VIDEOS = {
    "generated": "the generated video",
    "round_trip": "the round trip of the true video",
    "true": "the true video",
}

MEASURE = Measure("stage_two", scene_names, measure, summarise, samplings=1)
