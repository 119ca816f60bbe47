"""A run's figures as a table to read and as JSON to keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure
from ttm.atomic_write import written_beside

_WIDTHS = (58, 10, 6, 9)


def format_value(figure: Figure) -> str:
    """The figure's number with its unit; "-" without one."""
    return "-" if figure.value is None else _format(figure.value, figure.unit)


def format_goal(figure: Figure) -> str:
    """ ">= 80.0%", or "" without a goal."""
    if figure.goal is None:
        return ""
    return ("<= " if figure.at_most else ">= ") + _format(figure.goal, figure.unit)


def _format(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f}%"
    if unit == "dB":
        return f"{value:.2f} dB"
    if unit == "s":
        return f"{value:.1f} s"
    return f"{value:.3f}"


def format_table(figures: Sequence[Figure]) -> str:
    """One line a figure: name, value, N, goal, and whether it is reached."""
    lines = [_line("figure", "value", "N", "goal", ""), "-" * (sum(_WIDTHS) + 12)]
    for figure in figures:
        goal = format_goal(figure)
        verdict = {True: "reached", False: "NOT reached", None: ""}[figure.reached]
        remark = f"{verdict}  ({figure.note})" if figure.note else verdict
        lines.append(_line(figure.name, format_value(figure), str(figure.count), goal, remark))
    return "\n".join(lines)


def _line(name: str, value: str, count: str, goal: str, remark: str) -> str:
    first, second, third, fourth = _WIDTHS
    return f"{name:<{first}} {value:>{second}} {count:>{third}} {goal:>{fourth}}  {remark}".rstrip()


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        beside.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
