"""What a table of ablations would cost: a few steps and one scene of every row are timed, and multiplied.

The steps are taken in a folder that is removed again: nothing that a run would begin with is made or changed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ablation_plan import START, Plan
from benchmarks.ablation_run import FINISHED, scene_settings
from benchmarks.ablation_scores import score_scene
from benchmarks.ablation_subject import TrainedStage
from benchmarks.progress import format_seconds
from stages.settings_loading import load_settings
from stages.train import run

STEPS = 4
"""Taken of each row; the first is not timed."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: to load, a step, and each scene that it is scored on; and how many of both."""

    loading: float
    step: float
    steps: int
    scene: float
    scenes: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.loading + self.step * self.steps + self.scene * self.scenes


def measure_cost(plan: Plan) -> dict[str, Cost]:
    """The cost of one run of the start and of every row.

    Raises:
        ValueError: settings that don't fit, or no encoded scene to measure on.
    """
    with tempfile.TemporaryDirectory(prefix="ablation-cost-") as place:
        return {row: _cost_of(plan, row, Path(place) / row) for row in (START, *plan.rows)}


def _cost_of(plan: Plan, row: str, place: Path) -> Cost:
    settings = load_settings(_overrides(plan, row, place))
    begin = time.perf_counter()
    run(settings)
    whole = time.perf_counter() - begin
    logged = [json.loads(line) for line in (place / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    paces = [settings.batch_size / line["clips_per_second"] for line in logged[1:]]
    step = sum(paces) / len(paces)
    stage = TrainedStage(settings, plan.sampling)
    names, scenes = plan.scenes.names(), scene_settings(plan, settings)
    score_scene(stage, scenes, names[0])  # what the runs of one process share is made here
    begin = time.perf_counter()
    score_scene(stage, scenes, names[0])
    scene = time.perf_counter() - begin
    steps = plan.start_steps if row == START else plan.steps
    return Cost(max(0.0, whole - STEPS * step), step, steps, scene, len(names))


def _overrides(plan: Plan, row: str, place: Path) -> list[str]:
    """A run's settings for a few steps; where the start is not there yet, from what the start begins with."""
    few = [f"output_dir={place}", f"max_steps={STEPS}", "log_every=1", "data.encode_scenes=0"]
    words = [*plan.overrides(row, 0), *few]
    if row != START and not (plan.run_folder(START, 0) / "transformer").is_dir():
        begins = ("host.init_from=", "host.motion_adapter=")
        words = [word for word in words if not word.startswith(begins)]
        words += [word for word in plan.start if word.startswith(begins)]
    return words


def told(plan: Plan, costs: Mapping[str, Cost]) -> str:
    """A table of what is still to be done, and its sum."""
    lines = [f"{plan.title}, {plan.host}: {len(plan.jobs)} runs", ""]
    lines.append(f"{'row':<12}{'runs left':>10}{'s/step':>9}{'steps':>7}{'s/scene':>9}{'scenes':>8}{'a run':>10}")
    total = 0.0
    for row, cost in costs.items():
        left = sum(not (plan.run_folder(*job) / FINISHED).exists() for job in plan.jobs if job[0] == row)
        total += left * cost.seconds
        numbers = f"{left:>10}{cost.step:>9.2f}{cost.steps:>7}{cost.scene:>9.2f}{cost.scenes:>8}"
        lines.append(f"{row:<12}{numbers}{format_seconds(cost.seconds):>10}")
    return "\n".join([*lines, "", f"in all {format_seconds(total)}, one run after the other; nothing was trained"])
