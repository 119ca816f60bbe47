"""What an evaluation found, as a table to read and as JSON that says what is behind every figure."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ttm.atomic_write import written_beside
from ttm.evaluation.streaming import Scores
from ttm.metrics.scoring import Figure

_PACKAGES = ("through-the-mask", "torch", "torchvision", "transformers", "open-clip-torch", "numpy", "av", "decord")
_COLUMNS = ("metric", "value", "95% interval", "N", "better")
_ROWS_SHOWN = 10


def table(scores: Scores) -> str:
    """The figures with N and interval, what warns of them, and the videos that are missing from them."""
    rows = [_COLUMNS, *(_cells(figure) for figure in scores.figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    warned = [f"{figure.metric}: {warning}." for figure in scores.figures for warning in figure.warnings]
    return "\n".join([*lines, *([""] if warned else []), *warned, *_faults(scores)])


def _cells(figure: Figure) -> tuple[str, ...]:
    if figure.value is None:
        return (figure.metric, "-", "-", str(figure.num_videos), figure.better)
    interval = "-" if figure.interval is None else f"[{_number(figure.interval.low)}, {_number(figure.interval.high)}]"
    return (figure.metric, _number(figure.value), interval, str(figure.num_videos), figure.better)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _faults(scores: Scores) -> list[str]:
    faulty = scores.faulty
    if not faulty:
        return []
    lines = ["", f"{len(faulty)} of {len(scores.rows)} videos are missing from some figure:"]
    for row in faulty[:_ROWS_SHOWN]:
        lines += [f"  {row.name}: {what}: {reason}" for what, reason in row.problems.items()]
    if len(faulty) > _ROWS_SHOWN:
        lines.append(f"  and {len(faulty) - _ROWS_SHOWN} more (--json lists all)")
    return lines


def to_dict(scores: Scores, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All of it as plain JSON values: every figure with its convention, weights and N; every video; versions."""
    return {
        "figures": [_figure(figure) for figure in scores.figures],
        "videos": [{"name": row.name, "values": row.values, "problems": row.problems} for row in scores.rows],
        "settings": dict(settings),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "metric": figure.metric,
        "value": figure.value,
        "num_videos": figure.num_videos,
        "interval": None if figure.interval is None else list(figure.interval),
        "better": figure.better,
        "convention": dict(figure.convention),
        "weights": dict(figure.weights),
        "warnings": list(figure.warnings),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a fallback takes its place, or another package does
            continue
    return found


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write it, whole or not at all.

    Raises:
        OSError: the folder is missing or read-only, or the disk is full.
    """
    with written_beside(path) as beside:
        beside.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
