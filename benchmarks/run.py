"""``python -m benchmarks.run suite=synthetic``: measure a model, print a table, write JSON.

    python -m benchmarks.run suite=synthetic                        # everything, on the embedded default
    python -m benchmarks.run suite=synthetic scenes=16              # a quick look
    python -m benchmarks.run suite=synthetic measures=[stage_one]   # some measures only
    python -m benchmarks.run suite=synthetic model=some/folder

Rows are kept as they come in ``output``: the same command after a kill goes on where it stopped.
docs/benchmarks.md says what each measure is.
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from benchmarks.measure_run import benchmark_measures


@hydra.main(version_base=None, config_path="../configs", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Entry point: one line for what the user can put right."""
    try:
        benchmark_measures(config)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
