"""Plots of a report as inline SVG: they take the page's colours, and need neither a script nor a file.

A plot is about as wide as a phone; a page sets several side by side where it has room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

WIDTH = 370
_LABEL = 128
_ROW = 22
_RIGHT = 12
_AXIS = 26
_BINS = 16


@dataclass(frozen=True)
class Estimate:
    """One line of :func:`interval_plot`: a mean, its interval, and N."""

    label: str
    value: float
    interval: tuple[float, float]
    count: int


def interval_plot(title: str, estimates: Sequence[Estimate]) -> str:
    """Means with their intervals below each other, on one axis.

    Args:
        title: for those who can't see the plot.
        estimates: at least one; the values are finite.
    """
    low, high = _range([bound for estimate in estimates for bound in estimate.interval])
    height = _ROW * len(estimates) + _AXIS
    parts = [_grid(low, high, height)]
    for number, estimate in enumerate(estimates):
        y = _ROW * number + _ROW / 2 + 2
        left, right, middle = (_x(value, low, high) for value in (*estimate.interval, estimate.value))
        bounds = "[{:.4g}, {:.4g}]".format(*estimate.interval)
        note = f"{estimate.label}: {estimate.value:.4g} {bounds}, N = {estimate.count}"
        label = f'x="{_LABEL - 8}" y="{y + 4}" text-anchor="end">{escape(_short(estimate.label))}'
        parts += [
            f"<g><title>{escape(note)}</title>",
            f'<text class="label" {label}</text>',
            f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="dot" cx="{middle:.1f}" cy="{y}" r="4"/></g>',
        ]
    return _svg(title, height, parts)


def histogram(title: str, values: Sequence[float]) -> str:
    """How the samples' values are spread.

    Args:
        title: for those who can't see the plot.
        values: at least one, finite.
    """
    low, high = _range(values)
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / (high - low) * _BINS))] += 1
    tall = 96
    height = tall + _AXIS
    step = (WIDTH - _RIGHT - 8) / _BINS
    parts = [_grid(low, high, height, left=8)]
    for number, count in enumerate(counts):
        if count:
            size = (tall - 8) * count / max(counts)
            edges = (low + (high - low) * n / _BINS for n in (number, number + 1))
            note = "{:.3g} to {:.3g}: ".format(*edges) + f"{count} samples"
            parts.append(
                f'<rect class="column" x="{8 + step * number + 1:.1f}" y="{tall - size:.1f}" width="{step - 2:.1f}"'
                f' height="{size:.1f}"><title>{escape(note)}</title></rect>'
            )
    return _svg(title, height, parts)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers between two bounds, about so many."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _x(value: float, low: float, high: float, left: int = _LABEL) -> float:
    return left + (WIDTH - _RIGHT - left) * (value - low) / (high - low)


def _grid(low: float, high: float, height: int, left: int = _LABEL) -> str:
    bottom = height - _AXIS + 4
    lines = []
    for tick in ticks(low, high):
        x = _x(tick, low, high, left)
        lines.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:.6g}</text>'
        )
    return "".join(lines)


def _short(label: str) -> str:
    return label if len(label) <= 19 else label[:18] + "…"


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    label = quoteattr(title)
    return f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label={label}>{"".join(parts)}</svg>'
