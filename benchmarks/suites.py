"""What each suite consists of, in the order in which it runs: what explains the rest comes first."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Measure
from benchmarks.measures import (
    autoencoder,
    disc,
    end_to_end,
    local_prompts,
    real,
    sa_v,
    segmentation,
    stage_one,
    stage_two,
    timing,
    tracking,
)

SUITES: dict[str, tuple[Measure, ...]] = {
    "synthetic": (
        autoencoder.MEASURE,
        segmentation.MEASURE,
        tracking.MEASURE,
        stage_one.MEASURE,
        stage_two.MEASURE,
        local_prompts.MEASURE,
        end_to_end.MEASURE,
        disc.MEASURE,
        real.MEASURE,
        sa_v.MEASURE,
        timing.MEASURE,
    ),
}


def choose(suite: str, names: Sequence[str] | None) -> list[Measure]:
    """The measures of a suite, all or some by name, in the suite's order.

    Raises:
        ValueError: an unknown suite or measure.
    """
    if suite not in SUITES:
        raise ValueError(f"There is no suite {suite!r}; expected one of {sorted(SUITES)}.")
    measures = SUITES[suite]
    known = [measure.name for measure in measures]
    if names is None:
        return list(measures)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"measures={list(names)} names {unknown}; expected some of {known}.")
    return [measure for measure in measures if measure.name in names]
