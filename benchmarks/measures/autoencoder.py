"""Measure "autoencoder": what the video autoencoder alone loses.

- PSNR: a true video through the autoencoder and back against itself; one MSE a clip over all its frames, dB,
  then the mean over clips.
- Palette IoU: a true trajectory as a colour video through the autoencoder and back, decoded to the nearest
  palette colour among those of frame 0; mean IoU over frames, then over objects (the ceiling of stage 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings, mean_figure
from benchmarks.scenes import load_scene, scene_names
from benchmarks.subject import Subject
from ttm.data.synthetic import SyntheticScene
from ttm.metrics.mask_iou import object_iou
from ttm.metrics.psnr import psnr
from ttm.motion.mask_trajectory import MaskTrajectory


def palette_round_trip(subject: Subject, scene: SyntheticScene) -> MaskTrajectory:
    """The true trajectory after the autoencoder, decoded as stage 1 decodes its own."""
    decoded = subject.round_trip(MaskTrajectory(scene.ids).to_video())
    return MaskTrajectory.from_video(decoded, ids=range(1, len(scene.objects) + 1))


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One scene."""
    scene = load_scene(settings, item)
    decoded = subject.round_trip(scene.frames)
    palette = palette_round_trip(subject, scene)
    ious = [object_iou(palette.ids, scene.ids, number + 1) for number in range(len(scene.objects))]
    row = {"psnr": psnr(decoded, scene.frames), "palette_iou": ious}
    return Outcome(row, {"true": scene.frames, "round trip": decoded, "palette round trip": palette.to_video()})


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """PSNR over clips, palette IoU over objects."""
    return [
        mean_figure(
            "autoencoder PSNR",
            [row["psnr"] for row in rows],
            unit="dB",
            goal=24.0,
            note="goal 27 where a GPU trained it",
        ),
        mean_figure("palette clip round trip, IoU", [iou for row in rows for iou in row["palette_iou"]]),
    ]


MEASURE = Measure("autoencoder", scene_names, measure, summarise)
