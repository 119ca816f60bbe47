"""What a report says, as plain values that a template prints: the tables, and the samples from worst to best."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published import DIGITS, OURS, TABLES, PublishedTable

ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


@dataclass(frozen=True)
class RunResults:
    """A run, read from its folder: run.json, scores.json, and the record of every sample."""

    folder: Path
    info: dict[str, Any]
    scores: dict[str, Any]
    records: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> RunResults:
        """Read a run.

        Raises:
            FileNotFoundError: it has no scores yet.
        """
        paths = [folder / "run.json", folder / "scores.json"]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise FileNotFoundError(f"{folder} holds no {missing}; expected a run that has been scored.")
        info, scores = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
        records = {}
        for name in info["samples"]:
            path = folder / "samples" / name / "record.json"
            if path.is_file():
                records[name] = json.loads(path.read_text(encoding="utf-8"))
        return cls(folder, info, scores, records)

    @classmethod
    def of_suite(cls, folder: Path, suite: str) -> RunResults:
        """Read a run that is to be compared with others on a suite.

        Raises:
            FileNotFoundError: it has no scores yet. ValueError: another suite.
        """
        run = cls.load(folder)
        if run.info["suite"] != suite:
            raise ValueError(f"{folder} is of the suite {run.info['suite']!r}; expected {suite!r}.")
        return run

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The records of samples that failed."""
        return [record for record in self.records.values() if record["error"]]

    @property
    def versions(self) -> dict[str, list[str]]:
        """What made the videos, by package; several versions of one where a run went on after an upgrade."""
        kept = [record.get("versions", {}) for record in self.records.values() if not record["error"]]
        if not any(kept):  # a run of earlier days: those of the process that came last are all that is known
            return {name: [version] for name, version in self.info["versions"].items()}
        names = dict.fromkeys(name for versions in kept for name in versions)
        return {name: sorted({versions.get(name, "unknown") for versions in kept}) for name in names}

    def metric(self, name: str) -> dict[str, Any] | None:
        """A metric's entry in scores.json."""
        return next((metric for metric in self.scores["metrics"] if metric["name"] == name), None)


def run_names(runs: Sequence[RunResults]) -> list[str]:
    """What to call each run: its model, and its folder where two runs are of models of one name."""
    models = [str(run.info["model"]) for run in runs]
    return [f"{m} ({run.folder})" if models.count(m) > 1 else m for m, run in zip(models, runs, strict=True)]


@dataclass(frozen=True)
class Cell:
    """One figure of a table as text; what stands below it in small print; whether it is the best of the runs here."""

    text: str = "–"
    small: str = ""
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """One method: measured here, or published."""

    name: str
    published: bool
    cells: list[Cell]


@dataclass(frozen=True)
class Section:
    """The rows of one split."""

    title: str
    rows: list[TableRow]


@dataclass(frozen=True)
class Table:
    """The main table: columns (name with its arrow), a section for each split, and which figures do not compare."""

    columns: list[str]
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def main_table(runs: Sequence[RunResults]) -> Table:
    """The runs beside the paper's table, if the suite has one.

    Where a metric's convention or weights are not the first run's, or the N of an FVD, a note says so and none is best.

    Args:
        runs: the first is the one that the report is of.
    """
    published = TABLES.get(str(runs[0].info["published"]))
    metrics = list(dict.fromkeys(metric["name"] for run in runs for metric in run.scores["metrics"]))
    columns = list(published.columns) if published else []
    columns += [name for name in metrics if name not in {OURS.get(column) for column in columns}]
    found = [split for run in runs for metric in run.scores["metrics"] for split in metric["figures"]]
    splits = list(dict.fromkeys([*(published.splits if published else []), *found])) or [""]
    splits.sort(key=lambda split: split == "")  # all samples come last
    table = Table([f"{column} {arrow}".strip() for column, arrow in ((c, _arrow(c, runs)) for c in columns)])
    for split in splits:
        rows = [_published_row(published, name, split, columns) for name in _methods(published, split)]
        entries = [[_figure(run, OURS.get(column, column), split) for column in columns] for run in runs]
        best = []
        for n, column in enumerate(columns):
            figures = [entry[n] for entry in entries]
            notes = _apart(OURS.get(column, column), runs, figures)
            table.notes.extend(note for note in notes if note not in table.notes)
            best.append(None if notes else _best(column, runs, figures))
        for name, entry in zip(run_names(runs), entries, strict=True):
            cells = [_cell(figure, figure is not None and figure["value"] == best[n]) for n, figure in enumerate(entry)]
            rows.append(TableRow(name, False, cells))
        table.sections.append(Section(_split_title(split, len(splits)), rows))
    return table


def told_of_all(runs: Sequence[RunResults], told: Callable[[dict[str, Any]], Sequence[str]]) -> list[tuple[str, str]]:
    """What is told of every metric of the first run, and what of another run's is not told of the first's.

    Args:
        runs: the first is the one that the report is of.
        told: of a metric's entry in scores.json.

    Returns:
        (metric, text); where it is another run's, "metric of run".
    """
    found = [(str(metric["name"]), text) for metric in runs[0].scores["metrics"] for text in told(metric)]
    first = set(found)
    for run, title in zip(runs[1:], run_names(runs)[1:], strict=True):
        theirs = [(str(metric["name"]), text) for metric in run.scores["metrics"] for text in told(metric)]
        found += [(f"{name} of {title}", text) for name, text in theirs if (name, text) not in first]
    return found


def category_table(run: RunResults) -> Table:
    """Every metric that has a value a sample, by category; empty where the suite has no categories."""
    metrics = [metric for metric in run.scores["metrics"] if metric.get("categories")]
    names = list(dict.fromkeys(name for metric in metrics for name in metric["categories"]))
    table = Table([f"{metric['name']} {ARROWS[metric['better']]}".strip() for metric in metrics])
    rows = [TableRow(name, False, [_cell(metric["categories"].get(name)) for metric in metrics]) for name in names]
    if rows:
        table.sections.append(Section("", rows))
    return table


def worst_first(run: RunResults) -> list[str]:
    """Ids of the samples that have a video, worst first.

    Each metric that has a direction and a value for a sample ranks the samples (0 best, 1 worst, ties in the middle); a
    sample's place is by the mean of its ranks. Samples without a value come last, in the order of the suite.
    """
    rows = {row["id"]: row["values"] for row in run.scores["samples"] if not run.records[row["id"]]["error"]}
    ranks: dict[str, list[float]] = {name: [] for name in rows}
    for metric in run.scores["metrics"]:
        scored = {name: values[metric["name"]] for name, values in rows.items() if metric["name"] in values}
        if metric["better"] == "neither" or len(scored) < 2:
            continue
        values = np.array(list(scored.values()))
        sign = -1 if metric["better"] == "higher" else 1
        below = (sign * values[:, None] > sign * values[None, :]).sum(axis=1)
        ties = (values[:, None] == values[None, :]).sum(axis=1) - 1
        for name, rank in zip(scored, (below + ties / 2) / (len(values) - 1), strict=True):
            ranks[name].append(float(rank))
    order = list(rows)
    return sorted(order, key=lambda name: (-np.mean(ranks[name]) if ranks[name] else 1.0, order.index(name)))


def number(value: float | None) -> str:
    """Three figures behind the point, fewer for large values."""
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _methods(published: PublishedTable | None, split: str) -> list[str]:
    return list(published.rows) if published and split in published.splits else []


def _published_row(published: PublishedTable | None, method: str, split: str, columns: Sequence[str]) -> TableRow:
    assert published is not None
    values = [published.value(method, split, c) if c in published.columns else None for c in columns]
    texts = ["–" if v is None else f"{v:.{DIGITS.get(c, 3)}f}" for c, v in zip(columns, values, strict=True)]
    return TableRow(method, True, [Cell(text) for text in texts])


def _figure(run: RunResults, name: str, split: str) -> dict[str, Any] | None:
    metric = run.metric(name)
    figure: dict[str, Any] | None = metric["figures"].get(split) if metric else None
    return figure


def _cell(figure: Mapping[str, Any] | None, best: bool = False) -> Cell:
    if figure is None or figure["value"] is None:
        return Cell()
    interval = "[{}, {}], ".format(*map(number, figure["interval"])) if figure["interval"] else ""
    return Cell(number(figure["value"]), f"{interval}N {figure['count']}", best)


def _best(column: str, runs: Sequence[RunResults], figures: Sequence[Mapping[str, Any] | None]) -> float | None:
    """The best value of the runs here; None where there is nothing to choose from."""
    values = [figure["value"] for figure in figures if figure is not None and figure["value"] is not None]
    better = _better(column, runs)
    if len(set(values)) < 2 or better == "neither":
        return None
    return float(max(values) if better == "higher" else min(values))


def _apart(name: str, runs: Sequence[RunResults], figures: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Which runs' figures of a metric do not compare with the first one there is, and why."""
    known = [
        (title, metric, figure["count"])
        for title, run, figure in zip(run_names(runs), runs, figures, strict=True)
        if (metric := run.metric(name)) and figure is not None and figure["value"] is not None
    ]
    notes = []
    for title, metric, count in known[1:]:
        first, expected, expected_count = known[0]
        differing = {
            "convention": metric["convention"] != expected["convention"],
            "weights": _hash(metric) != _hash(expected),
            "N": name.startswith("FVD") and count != expected_count,  # a distance of sets depends on their size
        }
        if any(differing.values()):
            what = " and ".join(what for what, differs in differing.items() if differs)
            notes.append(f"{name}: {title} differs from {first} in {what}; none is marked as the best.")
    return notes


def _hash(metric: Mapping[str, Any]) -> Any:
    """Of a metric's weights, wherever they lay; None where it has none."""
    return metric.get("weights", {}).get("sha256")


def _better(column: str, runs: Sequence[RunResults]) -> str:
    found = (run.metric(OURS.get(column, column)) for run in runs)
    known = {"FVD": "lower", "AD": "neither", "Text": "neither", "Motion": "neither", "Quality": "neither"}
    return next((str(metric["better"]) for metric in found if metric), known.get(column, "higher"))


def _arrow(column: str, runs: Sequence[RunResults]) -> str:
    return ARROWS[_better(column, runs)]


def _split_title(split: str, count: int) -> str:
    if split == "":
        return "all samples" if count > 1 else ""
    return {"single": "single-object", "multi": "multi-object"}.get(split, split)
