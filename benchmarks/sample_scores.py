"""The scores of a run: every metric that can be had, over all samples, each split and each category, and every sample.

The metrics of videos are the library's (``ttm evaluate``); those of motion, which only a benchmark that knows the truth
can have, stand in :mod:`benchmarks.motion_scores`. A sample that failed is in no figure; N says how many are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.manifest import Sample
from benchmarks.motion_scores import MOTION_METRICS, motion_scores
from benchmarks.progress import TimeLeft, format_seconds
from benchmarks.sample_run import REFERENCE, TRAJECTORY, VIDEO, SampleRun
from ttm.evaluation.choice import Given, Sources, build_metrics, choose, locate_networks
from ttm.evaluation.inputs import Item
from ttm.metrics.bootstrap import interval_of_mean
from ttm.metrics.scoring import Figure, MeanOverVideos, Metric

ALL = ""
"""The group of all samples."""
_WAYS: Mapping[Given, str] = {
    "reference": "samples with a reference or a video",
    "prompt": "samples with a prompt",
    "ids": "a model that makes trajectories",
}


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes:
        metrics: names as ``ttm evaluate`` knows them; None: all that can be had here; empty: those of motion alone.
        tiny: with the embedded stand-ins; their columns end in "-tiny".
        weights: of the networks, by the names of ``ttm.evaluation.choice.Sources``.
        device: where the networks run.
    """

    metrics: tuple[str, ...] | None = None
    tiny: bool = False
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def sources(self) -> Sources:
        """Of the networks."""
        return Sources(**self.weights, tiny=self.tiny)  # type: ignore[arg-type]


def check_settings(settings: ScoreSettings, samples: Sequence[Sample], trajectories: bool) -> None:
    """What can be known before a video is made.

    Args:
        settings: which metrics, by which weights.
        samples: of the run.
        trajectories: whether the model makes them beside its videos.

    Raises:
        ValueError: a metric that is asked for by name can't be had: there is none, or it lacks what it needs, or its
            weights; or weights are named that nothing would read.
    """
    sources = settings.sources
    references = any(sample.reference or sample.video for sample in samples)
    names = _names(settings, references, trajectories)
    if settings.metrics:
        locate_networks(names, sources)


def score_run(run: SampleRun, settings: ScoreSettings, cache: Path) -> dict[str, Any]:
    """Score a complete run.

    Args:
        run: whose samples are all done or failed.
        settings: which metrics, by which weights.
        cache: folder of features that were computed before.

    Returns:
        plain JSON values: "metrics" (name, better, convention, weights, warnings, and for each group of samples value,
        count and interval), "samples" (values and problems of each), "not_measured" (metric -> why).

    Raises:
        ValueError: a metric that was asked for by name can't be had.
    """
    records = run.records()
    good = [sample for sample in run.samples if not records[sample.id]["error"]]
    rows: dict[str, dict[str, Any]] = {s.id: {"id": s.id, "values": {}, "problems": {}} for s in run.samples}
    items = [_item(run.place(sample), sample.id, sample.prompt) for sample in good]
    groups = {ALL: good}
    for name in dict.fromkeys(sample.split for sample in good if sample.split):
        groups[name] = [sample for sample in good if sample.split == name]
    by_id = {item.name: item for item in items}
    members = {name: [by_id[sample.id] for sample in group] for name, group in groups.items()}
    of_videos, not_measured = _video_scores(members, settings, cache, rows)
    for sample in (sample for sample in good if not records[sample.id].get("trajectory_given")):
        values, problems = motion_scores(run.place(sample), sample)
        rows[sample.id]["values"] |= values
        rows[sample.id]["problems"] |= problems
    of_motion: list[dict[str, Any]] = [
        {"name": metric.name, "better": metric.better, "convention": metric.rule, "figures": {}}
        for metric in MOTION_METRICS
        if any(metric.name in row["values"] for row in rows.values())
    ]
    metrics = [*of_motion, *of_videos]
    for metric in metrics:
        ids = {name: [sample.id for sample in group] for name, group in groups.items()}
        categories = dict.fromkeys(sample.category for sample in good if sample.category)
        by_category = {name: [sample.id for sample in good if sample.category == name] for name in categories}
        _fill(metric, rows, ids, by_category)
    return {"metrics": metrics, "samples": list(rows.values()), "not_measured": not_measured}


def _item(place: Path, name: str, prompt: str) -> Item:
    def known(file: str) -> Path | None:
        return place / file if (place / file).is_file() else None

    return Item(name, place / VIDEO, known(REFERENCE), prompt, known(TRAJECTORY))


def _video_scores(
    members: Mapping[str, Sequence[Item]], settings: ScoreSettings, cache: Path, rows: dict[str, dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The library's metrics of all items, and of each split where a metric is of the set and not of one video."""
    from ttm.evaluation.streaming import score_videos

    if not members[ALL]:
        return [], {"everything": "no sample has a video"}
    references, trajectories = (any(getattr(i, of) for i in members[ALL]) for of in ("reference", "trajectory"))
    built, not_measured = _build(_names(settings, references, trajectories), settings, cache)
    if not built:
        return [], not_measured
    scores = score_videos(members[ALL], list(built.values()), on_video=_Told(len(members[ALL])))
    for row in scores.rows:
        rows[row.name]["values"] |= row.values
        rows[row.name]["problems"] |= row.problems
    entries = []
    for (name, metric), figure in zip(built.items(), scores.figures, strict=True):
        entry = _entry(figure)
        splits = {} if isinstance(metric, MeanOverVideos) else members
        for split, items in splits.items():
            if split != ALL:
                again, _ = _build([name], settings, cache)
                (of_split,) = score_videos(items, list(again.values())).figures
                entry["figures"][split] = _numbers(of_split)
        entries.append(entry)
    return entries, not_measured


class _Told:
    """Says how far the scoring is, ten times in all."""

    def __init__(self, count: int) -> None:
        self._count, self._done = count, 0
        self._clock, self._last = TimeLeft({"videos": count}, {"videos": 1}), time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self._clock.done("videos", now - self._last)
        self._done, self._last = self._done + 1, now
        if self._done % max(1, self._count // 10) == 0:
            print(f"scored {self._done}/{self._count}, {format_seconds(self._clock.seconds())} left", flush=True)


def _names(settings: ScoreSettings, references: bool, trajectories: bool) -> list[str]:
    """The metrics to build, as far as what they need is there."""
    if settings.metrics == ():
        return []
    given: list[Given] = ["prompt"]
    given += ["reference"] if references else []
    given += ["ids"] if trajectories else []
    return choose(settings.metrics or (), given, settings.tiny, _WAYS)


def _build(names: Sequence[str], settings: ScoreSettings, cache: Path) -> tuple[dict[str, Metric], dict[str, str]]:
    """Metrics ready to take samples, by name; and why others can't be had.

    Built together, they share their networks; only where one is absent, each is tried by itself first.
    """
    sources = settings.sources
    absent: dict[str, str] = {}
    try:
        return dict(zip(names, build_metrics(names, sources, settings.device, cache), strict=True)), absent
    except ValueError:
        if settings.metrics is not None:
            raise
    for name in names:
        try:
            build_metrics([name], sources, settings.device, cache)
        except ValueError as error:
            absent[name] = str(error)
    there = [name for name in names if name not in absent]
    return dict(zip(there, build_metrics(there, sources, settings.device, cache), strict=True)), absent


def _entry(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.metric,
        "better": figure.better,
        "convention": dict(figure.convention),
        "weights": dict(figure.weights),
        "warnings": list(figure.warnings),
        "figures": {ALL: _numbers(figure)},
    }


def _numbers(figure: Figure) -> dict[str, Any]:
    interval = list(figure.interval) if figure.interval else None
    return {"value": figure.value, "count": figure.num_videos, "interval": interval}


def _fill(
    metric: dict[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    categories: Mapping[str, Sequence[str]],
) -> None:
    """The means of a metric that has a value for every sample, over splits and categories."""
    metric["categories"] = {}
    if not any(metric["name"] in row["values"] for row in rows.values()):
        return
    for place, parts in ((metric["figures"], groups), (metric["categories"], categories)):
        for name, ids in parts.items():
            place.setdefault(name, _mean([rows[item]["values"].get(metric["name"]) for item in ids]))


def _mean(values: Sequence[float | None]) -> dict[str, Any]:
    numbers = np.array([value for value in values if value is not None and math.isfinite(value)], np.float64)
    interval = interval_of_mean(numbers)
    mean = float(numbers.mean()) if len(numbers) else None
    return {"value": mean, "count": len(numbers), "interval": list(interval) if interval else None}
