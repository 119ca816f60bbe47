"""``python -m benchmarks.ablate table=...``: train every configuration of a table, score it, and tabulate.

    python -m benchmarks.ablate table=attention                     # Table 3 on the embedded transformer
    python -m benchmarks.ablate table=attention host=ttm_tiny_unet  # and on the embedded U-Net
    python -m benchmarks.ablate table=attention --dry-run           # what it would cost; trains nothing
    python -m benchmarks.ablate table=few_shot                      # the few-shot paper's Table II
    python -m benchmarks.ablate table=attention rows=[none,both] seeds=[0,1,2,3,4]
    python -m benchmarks.ablate table=attention hydra/launcher=submitit_slurm   # a cluster's jobs, one a run

Each run is one job of hydra's multirun: locally one after the other, through hydra's submitit launcher each by itself.
All runs begin with the same start, which is made once, and a seed gives all rows the same data in the same order. What
is done is kept as it comes: the same command after a kill goes on where it stopped, and ends with the same rows.
docs/ablations.md says what each table asks, what it costs, and where results lie.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from benchmarks.ablation_few_shot import read_few_shot_plan
from benchmarks.ablation_plan import START, read_plan

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class AblationPlan(Protocol):
    """A table, as the launcher sees it: rows, seeds, the (row, seed) of every job, and where results lie."""

    @property
    def rows(self) -> Iterable[str]: ...

    @property
    def seeds(self) -> Iterable[int]: ...

    @property
    def jobs(self) -> list[tuple[str, int]]: ...

    @property
    def folder(self) -> Path: ...

    def run(self, row: str, seed: int) -> None:
        """One job: train, score, and write the table as far as it goes."""

    def cost(self) -> str:
        """What the table would cost."""


def as_overrides(words: Sequence[str]) -> list[str]:
    """What a user writes, as hydra reads it: ``host`` is a setting of the table (hydra would take it for its group)."""
    short = {"--dry-run": "dry_run=true"}
    return [f"table.{word}" if word.startswith("host=") else short.get(word, word) for word in words]


def open_plan(words: Sequence[str]) -> tuple[AblationPlan, bool]:
    """The table that a command line asks for, and whether only its cost is wanted.

    Raises:
        ValueError: no such table, an unknown setting, or one that does not fit.
    """
    asked = [word for word in as_overrides(words) if not word.startswith("hydra")]
    try:
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            config = compose(config_name="ablate", overrides=asked)
        return read_table(config), bool(config.dry_run)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(str(error).strip().splitlines()[0]) from error


def read_table(config: DictConfig) -> AblationPlan:
    """The table of a configuration.

    Raises:
        ValueError: one that does not fit.
    """
    return read_few_shot_plan(config) if config.table.kind == "few_shot" else read_plan(config)


@hydra.main(version_base=None, config_path="../configs", config_name="ablate")
def job(config: DictConfig) -> None:
    """One run, as hydra calls it."""
    read_table(config).run(str(config.row), int(config.seed))


def main(words: Sequence[str] | None = None) -> None:
    """Entry point."""
    words = as_overrides(sys.argv[1:] if words is None else words)
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    try:
        plan, dry_run = open_plan(words)
        if dry_run:
            print(plan.cost())
            return
        for row, seed in _sweeps(plan):
            sys.argv[1:] = ["-m", *words, f"seed={seed}", f"row={row}"]
            job()
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"benchmarks.ablate: {error}") from error
    except KeyboardInterrupt as stop:
        raise SystemExit(f"benchmarks.ablate: {stop or 'stopped; the same command goes on'}") from stop
    print((plan.folder / "table.md").read_text(encoding="utf-8"))


def _sweeps(plan: AblationPlan) -> list[tuple[str, str]]:
    """Rows and seeds of each multirun, joined as hydra reads them: the start by itself, since all others wait for it;
    then one seed of every row before the next."""
    runs = (",".join(plan.rows), ",".join(str(seed) for seed in plan.seeds))
    return [(START, "0"), runs] if (START, 0) in plan.jobs else [runs]


if __name__ == "__main__":
    main()
