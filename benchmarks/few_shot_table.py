"""The rows of :mod:`benchmarks.few_shot` as a table, and whether the order of the paper's Table II holds in it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ttm.atomic_write import written_beside

ABLATIONS = ("without mask", "without ControlNet", "without sharing", "full")
"""The paper's, in its order: every figure rises from one to the next (IoU 0.184, 0.864, 0.908, 0.917)."""
OPTIONS = ("shared as it is", "renormalised", "latents matched", "histograms matched")
BOUNDS = ("first frame given", "first frame carried", "round trip")
VARIANTS = (*ABLATIONS, *OPTIONS, *BOUNDS)
FIGURES = ("IoU-tiny", "Text-tiny-foreground", "Frame-tiny-foreground", "Found-IoU-tiny", "Text-tiny", "Frame-tiny")
GOAL = 0.9
"""Of the round trip's IoU, for the full model."""

Row = Mapping[str, Any]


def spread(rows: Sequence[Row], variant: str, figure: str) -> tuple[float, float, int]:
    """Mean, standard deviation and number of the parts (pattern and seed), each the mean of its scenes."""
    parts: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["variant"] == variant and row[figure] is not None:
            parts.setdefault((row["pattern"], row["seed"]), []).append(row[figure])
    means = [statistics.fmean(values) for values in parts.values()]
    return (*spread_of(means), len(means))


def spread_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; NaN of nothing, and no deviation of one."""
    if not values:
        return float("nan"), float("nan")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def compared(rows: Sequence[Row], first: str, second: str, figure: str) -> tuple[float, float, int]:
    """Means of two variants over the parts, and their number; of scenes alone that have a figure of both."""
    scenes = [
        {_scene(row) for row in rows if row["variant"] == variant and row[figure] is not None}
        for variant in (first, second)
    ]
    both = [row for row in rows if _scene(row) in scenes[0] & scenes[1]]
    (low, _, count), (high, _, _) = (spread(both, variant, figure) for variant in (first, second))
    return low, high, count


def _scene(row: Row) -> tuple[str, int, int]:
    return row["pattern"], row["seed"], row["scene"]


def orders(rows: Sequence[Row]) -> list[str]:
    """One sentence for each neighbouring pair of the paper's order and each figure: does it hold."""
    said = []
    for figure in FIGURES[:3]:
        for worse, better in zip(ABLATIONS, ABLATIONS[1:], strict=False):
            low, high, count = compared(rows, worse, better, figure)
            if count:
                verdict = "holds" if low < high else "DOES NOT HOLD"
                said.append(f"{figure}: {worse} < {better} {verdict} ({low:.3f}, {high:.3f}) over {count} parts")
    full, reference, count = compared(rows, "full", "round trip", "IoU-tiny")
    if count and reference > 0:
        reached = "reached" if full >= GOAL * reference else "NOT REACHED"
        said.append(
            f"full: {full / reference:.0%} of the round trip's IoU over {count} parts; goal {GOAL:.0%}: {reached}"
        )
    return said


def write_table(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Write ``table.md`` and ``table.json``, each whole or not at all.

    Args:
        folder: which exists.
        rows: of the benchmark.
        settings: said beneath the table.
    """
    measured = {
        variant: {figure: spread(rows, variant, figure) for figure in FIGURES}
        for variant in VARIANTS
        if any(row["variant"] == variant for row in rows)
    }
    lines = ["| variant | " + " | ".join(FIGURES) + " | N |", "| --- " * (len(FIGURES) + 2) + "|"]
    for variant, figures in measured.items():
        cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation, _ in figures.values()]
        lines.append(f"| {variant} | " + " | ".join(cells) + f" | {figures[FIGURES[0]][2]} |")
    lines += ["", "Mean ± standard deviation over N parts (a pattern and a seed each).", ""]
    lines += [f"- {sentence}" for sentence in orders(rows)]
    lines += ["", "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."]
    with written_beside(folder / "table.md") as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with written_beside(folder / "table.json") as path:
        values = {"settings": dict(settings), "figures": measured, "orders": orders(rows)}
        path.write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")
