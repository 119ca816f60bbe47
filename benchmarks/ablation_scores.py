"""What the runs of an ablation are scored on: held-out scenes of two objects of which one does what no mask shows.

Each scene is rendered as asked and, in pairs of different look, once more with the two local prompts swapped and the
sentence as it was (:mod:`benchmarks.measures.local_prompts`), always from the same noise. One row a scene is kept.
"Twins" are two objects of one colour, shape and name: of them the sentence alone can't say which one acts.

Columns that end in -tiny are made of the embedded stand-ins and compare with no published figure.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.ablation_subject import TrainedStage
from benchmarks.detection import SceneDetector
from benchmarks.measure import Row, Settings, sampling_seed
from benchmarks.measures.local_prompts import shares, swapped
from benchmarks.measures.motion_figures import check_scene, directed
from benchmarks.scenes import TWINS, PairScene, pair_scene
from ttm.data.synthetic import SyntheticScene
from ttm.evaluation.tiny_features import TinyClipFeatures, tiny_segmenter
from ttm.metrics.appearance import DOES_IT
from ttm.metrics.clip import frame_consistency, text_alignment, unit
from ttm.metrics.mask_iou import object_iou
from ttm.metrics.psnr import psnr
from ttm.metrics.rendered_objects import largest_pieces
from ttm.metrics.scoring import Clip

Pixels = NDArray[np.uint8]
_KEPT: dict[tuple[Settings, str, str], tuple[PairScene, SceneDetector]] = {}


def score_scene(stage: TrainedStage, settings: Settings, item: str) -> tuple[Row, dict[str, Pixels]]:
    """The row of one scene, and the clips that were judged."""
    pair, detector = _scene(stage, settings, item)
    scene, kind = pair.scene, item.split("-")[0]
    seed = sampling_seed(settings, "ablation", item)
    video = stage.render(scene, scene.plan, seed)
    row: Row = {
        "kind": kind,
        "appearance": scene.objects[pair.asked].appearance,
        "asked": pair.asked,
        "prompt": scene.plan.prompt,
        "as_asked": shares(pair, video),
        "psnr": psnr(video, scene.frames),
    }
    clips = {"true": scene.frames, "as asked": video}
    found = detector.in_decoded(video)
    if kind == TWINS:  # colours can't tell twins apart
        row["iou"] = [object_iou((found > 0).astype(np.uint8), (scene.ids > 0).astype(np.uint8), 1)]
    else:
        row["iou"] = [object_iou(found, scene.ids, number) for number in (1, 2)]
        row["directions"] = directed(check_scene(largest_pieces(found), scene))
        other = video
        if stage.reads_local_prompts:
            other = clips["swapped"] = stage.render(scene, swapped(scene.plan), seed)
        row["swapped"] = shares(pair, other)
    return row | _stand_ins(video, scene), clips


def _scene(stage: TrainedStage, settings: Settings, item: str) -> tuple[PairScene, SceneDetector]:
    """A scene and the detector of its objects; the runs of one process share them."""
    key = (settings, stage.settings.host.pipeline, item)
    if key not in _KEPT:
        pair = pair_scene(settings, item)
        _KEPT[key] = pair, SceneDetector(stage, pair.scene)
    return _KEPT[key]


@lru_cache(maxsize=1)
def _clip_features() -> TinyClipFeatures:
    return TinyClipFeatures(*tiny_segmenter())


def _stand_ins(video: Pixels, scene: SyntheticScene) -> dict[str, float]:
    features = _clip_features()
    made, true = features.extract([Clip(video, 8.0), Clip(scene.frames, 8.0)])
    return {
        "cf_tiny": frame_consistency(made, "all pairs"),
        "text_tiny": text_alignment(made, features.embed_texts([scene.plan.prompt])[0]),
        "reference_tiny": float(unit(made.mean(axis=0)) @ unit(true.mean(axis=0))),
    }


@dataclass(frozen=True)
class Metric:
    """One column of the table.

    Attributes:
        name: its head.
        better: which way is better.
        of: its value over a run's rows; None where nothing could be measured.
    """

    name: str
    better: Literal["higher", "lower"]
    of: Callable[[Sequence[Row]], float | None]


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _acts(kind: str, said: str, who: Literal["right", "wrong", "margin"]) -> Callable[[Sequence[Row]], float | None]:
    """The share of scenes in which the right (wrong) object acts, or by how much its votes lead; a swap of the local
    prompts makes the other object the right one."""

    def value(row: Row) -> float:
        right = row["asked"] if said == "as_asked" else 1 - row["asked"]
        shown, other = row[said][right], row[said][1 - right]
        return float({"right": shown >= DOES_IT, "wrong": other >= DOES_IT, "margin": shown - other}[who])

    return lambda rows: _mean([value(row) for row in rows if row["kind"] == kind and said in row])


def _over(name: str, kind: str | None = None) -> Callable[[Sequence[Row]], float | None]:
    """The mean of a row's value, or of all values in its list."""

    def values(row: Row) -> list[float]:
        value = row.get(name, [])
        return value if isinstance(value, list) else [value]

    return lambda rows: _mean([v for row in rows if kind in (None, row["kind"]) for v in values(row)])


METRICS = (
    Metric("twins: right one acts", "higher", _acts(TWINS, "as_asked", "right")),
    Metric("twins: wrong one acts", "lower", _acts(TWINS, "as_asked", "wrong")),
    Metric("twins: lead of the right one", "higher", _acts(TWINS, "as_asked", "margin")),
    Metric("pairs: right one acts", "higher", _acts("pair", "as_asked", "right")),
    Metric("pairs: wrong one acts", "lower", _acts("pair", "as_asked", "wrong")),
    Metric("pairs: lead of the right one", "higher", _acts("pair", "as_asked", "margin")),
    Metric("swapped: right one acts", "higher", _acts("pair", "swapped", "right")),
    Metric("swapped: wrong one acts", "lower", _acts("pair", "swapped", "wrong")),
    Metric("direction right", "higher", _over("directions")),
    Metric("mask IoU", "higher", _over("iou", "pair")),
    Metric("mask IoU, twins as one", "higher", _over("iou", TWINS)),
    Metric("PSNR", "higher", _over("psnr")),
    Metric("CF-tiny", "higher", _over("cf_tiny")),
    Metric("Text-tiny", "higher", _over("text_tiny")),
    Metric("Reference-tiny", "higher", _over("reference_tiny")),
)
