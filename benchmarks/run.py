"""``python -m benchmarks.run suite=...``: measure a model on a suite, print, and write a report.

    python -m benchmarks.run suite=synthetic                        # the measures, on the embedded default
    python -m benchmarks.run suite=synthetic measures=[stage_one]   # some measures only
    python -m benchmarks.run suite=SA-V-128 model=some/folder       # one video a sample, scored
    python -m benchmarks.run suite=FOLDER model=svd                 # any folder with a manifest; a public baseline
    python -m benchmarks.run suite=FOLDER videos=VIDEOS             # videos that another model made
    python -m benchmarks.run suite=SA-V-128 shard=0/3               # a part; the part that ends last writes the report

What is done is kept as it comes in ``output``: the same command after a kill goes on where it stopped.
docs/benchmarks.md says what each measure is, and how a suite's manifest looks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from benchmarks.measure_run import benchmark_measures

SUITES = Path(__file__).resolve().parent.parent / "configs" / "suite"
_PLAIN = re.compile(r"[\w./:@%+\-]+")


def as_overrides(words: Sequence[str]) -> list[str]:
    """What a user writes, as hydra reads it: a suite by its own name or by its folder, and texts with spaces.

    Args:
        words: of the command line.

    Returns:
        "suite=SA-V-128" as "suite=sa_v_128", "suite=some/folder" as "suite=folder" and "suite.folder=some/folder";
        values of words that name a path or a text, quoted where hydra's grammar asks for it.
    """
    found: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in ("suite", "model", "videos", "output", "name"):
            found.append(word)
        elif key != "suite":
            found.append(f"{key}={_quoted(value)}")
        elif (known := re.sub(r"[^a-z0-9]+", "_", value.lower())) and (SUITES / f"{known}.yaml").is_file():
            found.append(f"suite={known}")
        else:
            found += ["suite=folder", f"suite.folder={_quoted(value)}"]
    return found


def _quoted(value: str) -> str:
    if not value or _PLAIN.fullmatch(value) or value[0] in "'\"":
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def benchmark(config: DictConfig) -> int:
    """Run what a configuration asks for; 0 when it ran to its end (whatever the figures say)."""
    if "folder" not in config.suite:
        return benchmark_measures(config)
    from benchmarks.suite_run import benchmark_samples  # after hydra: it imports sam2

    return benchmark_samples(config)


@hydra.main(version_base=None, config_path="../configs", config_name="benchmark")
def run(config: DictConfig) -> None:
    """One line for what the user can put right."""
    try:
        benchmark(config)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def main() -> None:
    """Entry point."""
    sys.argv[1:] = as_overrides(sys.argv[1:])
    run()


if __name__ == "__main__":
    main()
