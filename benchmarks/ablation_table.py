"""The runs of an ablation as a table: mean and spread over seeds, and which of the paper's orders hold.

In a run's folder: ``rows.jsonl``, a line a scene. In the table's folder, written anew after every run and whole or not
at all: ``runs.csv`` (a line a run), ``table.md`` (to read) and ``table.json`` (all of it, with the settings).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation_plan import START, Plan
from benchmarks.ablation_scores import METRICS, Metric
from benchmarks.few_shot_table import spread_of
from benchmarks.measure import Row
from benchmarks.report import write_report
from benchmarks.rows import plain, read_rows
from stages.settings import Settings
from stages.settings_loading import load_settings
from ttm.atomic_write import written_beside

SETTINGS = "ablation.json"
"""In a run's folder: the settings that it was trained with."""
TIE = 1e-9
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Verdict:
    """Whether one order holds in one metric.

    Attributes:
        worse, better: rows.
        metric: its name.
        difference: better minus worse, in the direction that the metric calls better; mean over seeds.
        seeds: how many runs of both rows have one seed.
        agreeing: in how many of them the order holds.
    """

    worse: str
    better: str
    metric: str
    difference: float
    seeds: int
    agreeing: int

    @property
    def holds(self) -> bool:
        """On the mean over seeds."""
        return self.difference > TIE

    def __str__(self) -> str:
        word = "holds" if self.holds else "equal" if abs(self.difference) <= TIE else "does not hold"
        return f"{word} ({self.agreeing} of {self.seeds} seeds)"


def run_values(rows: Sequence[Row]) -> dict[str, float | None]:
    """Every metric of one run."""
    return {metric.name: metric.of(rows) for metric in METRICS}


def read_runs(plan: Plan, belongs_to: str) -> dict[tuple[str, int], dict[str, float | None]]:
    """The metrics of every run whose scenes all have a row; also of rows and seeds that are not asked for now, if they
    were trained with the settings that the table says."""
    found = {}
    names, rows_known = plan.scenes.names(), {START, *plan.rows, *plan.others}
    for path in sorted(plan.folder.glob("**/rows.jsonl")):
        known = {item: row for (_, item), row in read_rows(path.parent, belongs_to).items()}
        if not set(names) <= known.keys():
            continue
        rows = [known[name] for name in names]
        row, seed = str(rows[0]["row"]), int(rows[0]["seed"])
        trained = json.loads((path.parent / SETTINGS).read_text(encoding="utf-8"))
        if row in rows_known and trained.items() >= decisive(load_settings(plan.overrides(row, seed))).items():
            found[row, seed] = run_values(rows)
    return found


def decisive(settings: Settings) -> dict[str, Any]:
    """A run's settings as plain values, but for where it lies and on how many threads it runs."""
    values: dict[str, Any] = plain(asdict(settings) | {"num_threads": None, "output_dir": ""})
    return values


def verdicts(runs: Mapping[tuple[str, int], Values], orders: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Every order in every metric, where runs of both rows with equal seeds are there."""
    found = []
    for worse, better in orders:
        for metric in METRICS:
            steps = _differences(runs, worse, better, metric)
            if steps:
                mean, agreeing = sum(steps) / len(steps), sum(step > TIE for step in steps)
                found.append(Verdict(worse, better, metric.name, mean, len(steps), agreeing))
    return found


def _differences(runs: Mapping[tuple[str, int], Values], worse: str, better: str, metric: Metric) -> list[float]:
    sign = 1.0 if metric.better == "higher" else -1.0
    found = []
    for row, seed in runs:
        low, high = runs.get((worse, seed), {}).get(metric.name), runs[row, seed].get(metric.name)
        if row == better and low is not None and high is not None:
            found.append(sign * (high - low))
    return found


def write_tables(plan: Plan, belongs_to: str) -> None:
    """Write what the runs say so far."""
    runs = read_runs(plan, belongs_to)
    if not runs:
        return
    _write(plan.folder / "runs.csv", _runs_csv(runs))
    _write(plan.folder / "table.md", _markdown(plan, runs))
    said = [vars(verdict) | {"holds": verdict.holds} for verdict in verdicts(runs, plan.orders)]
    listed = [{"row": row, "seed": seed, **values} for (row, seed), values in runs.items()]
    report = {"table": plan.described(), "rows": dict(plan.rows), "runs": listed, "orders": said}
    write_report(plan.folder / "table.json", plain(json.loads(json.dumps(report, default=str))))


def _runs_csv(runs: Mapping[tuple[str, int], Values]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "seed", *(metric.name for metric in METRICS)])
    for (row, seed), values in runs.items():
        numbers = [values[metric.name] for metric in METRICS]
        writer.writerow([row, seed, *("" if value is None else f"{value:.5f}" for value in numbers)])
    return stream.getvalue()


def _markdown(plan: Plan, runs: Mapping[tuple[str, int], Values]) -> str:
    rows = list(dict.fromkeys(row for row, _ in runs))
    ordered = [row for row in (START, *plan.rows) if row in rows] + [row for row in rows if row not in plan.rows]
    ordered = list(dict.fromkeys(ordered))
    counts = {row: sum(other == row for other, _ in runs) for row in ordered}
    heads = [f"{row} ({counts[row]})" for row in ordered]
    lines = [f"# {plan.title}, {plan.host}", "", "Mean ± standard deviation over seeds (number of seeds in brackets)."]
    lines += ["", "| metric | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for metric in METRICS:
        arrow = "↑" if metric.better == "higher" else "↓"
        cells = [_cell(runs, row, metric) for row in ordered]
        lines.append(f"| {metric.name} {arrow} | " + " | ".join(cells) + " |")
    said = verdicts(runs, plan.orders)
    pairs = [pair for pair in plan.orders if any((v.worse, v.better) == pair for v in said)]
    if pairs:
        lines += ["", "Does the order hold (on the mean; in how many seeds)?", ""]
        lines += ["| metric | " + " | ".join(f"{worse} < {better}" for worse, better in pairs) + " |"]
        lines += ["| --- " * (len(pairs) + 1) + "|"]
        for metric in METRICS:
            by_pair = {(v.worse, v.better): str(v) for v in said if v.metric == metric.name}
            lines.append(f"| {metric.name} | " + " | ".join(by_pair.get(pair, "-") for pair in pairs) + " |")
    held_out = f"{plan.scenes.pair} pairs and {plan.scenes.twins} twins"
    lines += ["", f"Each run: {plan.steps} steps, from one start of {plan.start_steps}. Held-out scenes: {held_out}."]
    return "\n".join(lines) + "\n"


def _cell(runs: Mapping[tuple[str, int], Values], row: str, metric: Metric) -> str:
    values = [value for (name, _), run in runs.items() if name == row and (value := run[metric.name]) is not None]
    if not values:
        return "-"
    mean, deviation = spread_of(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {deviation:.3f}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
