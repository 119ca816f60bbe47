"""What a measure is: items to go through, one row an item, figures over all rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.subject import Subject

Row = dict[str, Any]
"""Plain JSON values: what was measured on one item."""


@dataclass(frozen=True)
class Settings:
    """What a suite is run with.

    Attributes:
        scenes: number of test scenes, half with one object and half with 2-3.
        local_scenes: number of two-object scenes for the local prompts.
        seed: of the world and of all sampling.
        size: side of the scenes in pixels.
        num_frames: T of the scenes.
        real_data: folder of real samples; None or absent: their rows say "skipped".
        real_cases: images, hand-made masks and sentences, as configs/suite/synthetic.yaml lists them.
    """

    scenes: int = 64
    local_scenes: int = 32
    seed: int = 0
    size: int = 128
    num_frames: int = 17
    real_data: Path | None = None
    real_cases: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Figure:
    """One number of a report.

    Attributes:
        name: what it is.
        value: the number; None when nothing could be measured.
        count: N, what it is a mean over or a share of.
        unit: "", "dB", "s"; "%" values are shares in 0..1.
        goal: what is hoped for; None: reported only.
        at_most: the goal is a ceiling, not a floor.
        note: anything a reader should know.
    """

    name: str
    value: float | None
    count: int
    unit: str = ""
    goal: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"reached": self.reached}


@dataclass(frozen=True)
class Outcome:
    """What measuring one item gives: a row to keep, and clips uint8 [T, H, W, 3] by name, to look at."""

    row: Row
    clips: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """One measure of a suite.

    Attributes:
        name: as in ``measures=[...]``.
        items: the items it goes through, each a short text, the same for the same settings.
        measure: one item, measured.
        summarise: figures over all rows.
        samplings: how many runs of a sampler one item costs, for the time left.
    """

    name: str
    items: Callable[[Settings], list[str]]
    measure: Callable[[Subject, Settings, str], Outcome]
    summarise: Callable[[Sequence[Row]], list[Figure]]
    samplings: int = 0


def sampling_seed(settings: Settings, *names: str | int) -> int:
    """A seed of its own for every measure and item, the same in every run."""
    words = [settings.seed]
    for name in names:
        words += list(str(name).encode())
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def mean_figure(name: str, values: Sequence[float | None], **more: Any) -> Figure:
    """The mean of the values that are numbers; of "dB", none counts for more than 100 (a perfect PSNR is infinite)."""
    numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
    if more.get("unit") == "dB":
        numbers = [min(number, 100.0) for number in numbers]
    return Figure(name, float(np.mean(numbers)) if numbers else None, len(numbers), **more)


def share_figure(name: str, passed: Sequence[bool], **more: Any) -> Figure:
    """The share of True."""
    return Figure(name, float(np.mean(passed)) if len(passed) else None, len(passed), unit="%", **more)


def errors_figure(name: str, rows: Sequence[Row]) -> Figure:
    """The share of rows with an error, and the first one, so that no fault of the program passes for a result."""
    errors = [str(row["error"]) for row in rows if row["error"]]
    note = f"the first: {errors[0][:160]}" if errors else ""
    return share_figure(name, [bool(row["error"]) for row in rows], note=note)
