"""What a table of ablations consists of: its rows, their settings, seeds, common start, and where results lie.

A table is a file of ``configs/table``. Every row is a list of settings of :mod:`stages.train`; whatever else decides
a run is the same for all rows: the start, the steps, and by its seed the order of the data and all noise.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

START = "start"
"""The row that is the common start itself, untrained."""


@dataclass(frozen=True)
class Scenes:
    """Which held-out scenes a run is scored on: so many of each kind, of a world of some seed."""

    pair: int
    twins: int
    seed: int

    def names(self) -> list[str]:
        """The scenes' names, pairs first."""
        kinds = {"pair": self.pair, "twins": self.twins}
        return [f"{kind}-{number:03d}" for kind, count in kinds.items() for number in range(count)]


@dataclass(frozen=True)
class Plan:
    """A table, on one host.

    Attributes:
        name: of the table.
        title: what it asks.
        host: a file of ``configs/host``.
        rows: settings of each row that is asked for, in the order in which each seed runs them.
        seeds: of the runs.
        steps: that every row is trained for.
        start_steps: that the common start is trained for.
        start: settings of the common start.
        common: settings of every row.
        orders: pairs (worse, better) that the paper's table has.
        scenes: to score on.
        sampling: arguments of every sampling.
        folder: of the results.
        others: settings of the table's rows that are not asked for now, and may have runs.
    """

    name: str
    title: str
    host: str
    rows: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    steps: int
    start_steps: int
    start: Sequence[str]
    common: Sequence[str]
    orders: Sequence[tuple[str, str]]
    scenes: Scenes
    sampling: Mapping[str, Any]
    folder: Path
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """Row and seed of every run: the start, then one seed of every row before the next."""
        return [(START, 0), *((row, seed) for seed in self.seeds for row in self.rows)]

    def run(self, row: str, seed: int) -> None:
        """One run; see :func:`benchmarks.ablation_run.run_job`."""
        from benchmarks.ablation_run import run_job  # with torch, and after hydra: it imports sam2

        run_job(self, row, seed)

    def cost(self) -> str:
        """What the runs that are left would cost."""
        from benchmarks.ablation_cost import measure_cost, told

        return told(self, measure_cost(self))

    def run_folder(self, row: str, seed: int) -> Path:
        """Where a run keeps what it trains and its scores."""
        return self.folder / START if row == START else self.folder / "runs" / f"{row}-{seed}"

    def overrides(self, row: str, seed: int) -> list[str]:
        """The settings of a run, as ``python -m stages.train`` takes them."""
        place = f"output_dir={self.run_folder(row, seed)}"
        if row == START:
            return [*self.start, "seed=0", f"max_steps={self.start_steps}", place]
        begin = [f"host.init_from={self.run_folder(START, 0) / 'transformer'}", "host.motion_adapter=null"]
        own = {**self.others, **self.rows}[row]
        return [*self.common, *begin, *own, f"seed={seed}", f"max_steps={self.steps}", place]

    def described(self) -> dict[str, Any]:
        """What decides the figures, as plain values: not which rows and seeds are run, nor where."""
        left_out = ("rows", "others", "seeds", "folder", "orders")
        return {key: value for key, value in asdict(self).items() if key not in left_out}


def read_plan(config: DictConfig) -> Plan:
    """The table that a configuration asks for.

    Raises:
        ValueError: an unknown row or host, no seed, or numbers out of range.
    """
    table: dict[str, Any] = OmegaConf.to_container(config.table, resolve=True)  # type: ignore[assignment]
    host = str(table["host"])
    if host not in table["hosts"]:
        raise ValueError(f"table={table['name']} has no host {host!r}; expected one of {', '.join(table['hosts'])}.")
    added = table["hosts"][host]
    names = [str(name) for name in config.rows] if config.rows is not None else table["default_rows"]
    for name in names:
        expect_row(name, table["rows"])
    seeds = [int(seed) for seed in (config.seeds if config.seeds is not None else table["seeds"])]
    numbers = {"steps": table["steps"], "start.steps": table["start"]["steps"], "the number of seeds": len(seeds)}
    numbers |= {f"scenes.{kind}": table["scenes"][kind] for kind in ("pair", "twins")}
    for what, value in numbers.items():
        if int(value) < 1:
            raise ValueError(f"{what} of table={table['name']} is {value}; expected at least 1.")
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"seeds is {seeds}; expected whole numbers from 0, each once.")
    common = [f"host={host}", *table["common"], *added["common"], "tracker=none", "keep_checkpoints=1"]
    if config.num_threads is not None:
        common.append(f"num_threads={int(config.num_threads)}")
    return Plan(
        name=table["name"],
        title=table["title"],
        host=host,
        rows={name: table["rows"][name] for name in names},
        others={name: settings for name, settings in table["rows"].items() if name not in names},
        seeds=seeds,
        steps=int(table["steps"]),
        start_steps=int(table["start"]["steps"]),
        start=[*common, *added["start"], *table["start"]["settings"]],
        common=[*common, *table["learning"]],
        orders=[(worse, better) for worse, better in table["orders"]],
        scenes=Scenes(**{key: int(value) for key, value in table["scenes"].items()}),
        sampling=table["sampling"],
        folder=Path(str(config.output or f"outputs/ablations/{table['name']}-{host}")),
    )


def expect_row(name: str, known: Collection[str]) -> None:
    """Raise ValueError, with the nearest known name, unless there is such a row."""
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no row {name!r}; expected some of {', '.join(known)}{hint}")
