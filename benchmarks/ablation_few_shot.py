"""Table II of the few-shot paper as a table of the launcher: a job is one motion and one seed of
:mod:`benchmarks.few_shot`, whose rows, resumption and table they are."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.ablation_plan import expect_row
from benchmarks.progress import format_seconds
from ttm.data.motion_patterns import PATTERNS

STEPS = 4


@dataclass(frozen=True)
class FewShotPlan:
    """A table of few-shot models.

    Attributes:
        rows: names of motions, hyphens for spaces.
        seeds: of the runs.
        words: the arguments of ``python -m benchmarks.few_shot``.
        folder: of the results.
    """

    rows: list[str]
    seeds: list[int]
    words: list[str]
    folder: Path

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """Motion and seed of every run, one seed of every motion before the next."""
        return [(row, seed) for seed in self.seeds for row in self.rows]

    def arguments(self) -> argparse.Namespace:
        """As :mod:`benchmarks.few_shot` takes them."""
        from benchmarks.few_shot import read_command_line

        return read_command_line([*self.words, "--output", str(self.folder)])

    def run(self, row: str, seed: int) -> None:
        """One motion and seed: train, make, score."""
        from benchmarks.few_shot import run_part

        run_part(self.arguments(), row.replace("-", " "), seed)

    def cost(self) -> str:
        """What is measured of a few steps and one video, multiplied; nothing is kept."""
        from benchmarks.few_shot import VARIANTS, learn, make, scenes_of, training_settings

        asked, pattern = self.arguments(), self.rows[0].replace("-", " ")
        with tempfile.TemporaryDirectory(prefix="ablation-cost-") as place:
            few = argparse.Namespace(**{**vars(asked), "steps": STEPS, "output": Path(place)})
            pipe = learn(pattern, self.seeds[0], True, few)
            (log,) = Path(place).glob("trained-*/*/log.jsonl")
            pace = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["clips_per_second"]
            scene = scenes_of("test", pattern, 0, 1, few)[0]
            begin = time.perf_counter()
            make(pipe, "full", scene, 0, few)
            video = time.perf_counter() - begin
        size = training_settings(0, True, asked).batch_size
        job = 2 * asked.steps * size / pace + len(VARIANTS) * asked.scenes * video
        told = f"2 trainings of {asked.steps} steps, {len(VARIANTS) * asked.scenes} videos of {video:.1f} s"
        whole = format_seconds(job * len(self.jobs))
        return f"few_shot: {len(self.jobs)} runs, each about {format_seconds(job)} ({told}); in all {whole}"


def read_few_shot_plan(config: DictConfig) -> FewShotPlan:
    """The table that a configuration asks for.

    Raises:
        ValueError: an unknown motion or host, or no seed.
    """
    table: dict[str, Any] = OmegaConf.to_container(config.table, resolve=True)  # type: ignore[assignment]
    if table["host"] != "ttm_tiny_unet":
        raise ValueError(f"table=few_shot has no host {table['host']!r}; expected table.arguments.base=... instead.")
    rows = [str(row) for row in (config.rows if config.rows is not None else table["default_rows"])]
    for row in rows:
        expect_row(row, [pattern.replace(" ", "-") for pattern in PATTERNS])
    seeds = [int(seed) for seed in (config.seeds if config.seeds is not None else table["seeds"])]
    if not seeds:
        raise ValueError("seeds is empty; expected at least one.")
    asked = {name: value for name, value in table["arguments"].items() if value is not None}  # null: its own
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    return FewShotPlan(rows, seeds, words, Path(str(config.output or "outputs/ablations/few_shot")))
