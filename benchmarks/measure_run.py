"""The measures of a suite on one model: rows kept as they come, a table, a report.

Each measure goes over items of its own (:mod:`benchmarks.measure`); the rows of several processes lie side by side.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from benchmarks.measure import Figure, Measure, Row, Settings
from benchmarks.measure_page import write_measure_page
from benchmarks.progress import TimeLeft, format_seconds
from benchmarks.report import format_table, write_report
from benchmarks.rows import RowFile, fingerprint, plain, read_rows, row_path
from benchmarks.shard import Shard, local_device
from benchmarks.sheets import contact_sheet, save_picture, strip
from benchmarks.subject import Subject
from benchmarks.suites import choose
from benchmarks.versions import package_versions

ROOT = Path(__file__).resolve().parent.parent
RULES = (
    *("benchmarks/measures", "benchmarks/counterfactual.py", "benchmarks/detection.py", "benchmarks/measure.py"),
    *("benchmarks/pipeline_subject.py", "benchmarks/scenes.py", "benchmarks/subject.py"),
    *("ttm/metrics/appearance.py", "ttm/metrics/displacement.py", "ttm/metrics/mask_iou.py", "ttm/metrics/psnr.py"),
    *("ttm/metrics/rendered_objects.py", "ttm/data/motion_patterns.py", "ttm/data/sa_v.py", "ttm/data/sprites.py"),
    *("ttm/data/synthetic.py", "ttm/motion/mask_trajectory.py", "ttm/motion/resize_ids.py"),
)
"""The code that decides what a row says: rows of other rules don't count. A test holds that nothing is missing."""


def run_measures(
    subject: Subject,
    settings: Settings,
    measures: Sequence[Measure],
    folder: Path,
    belongs_to: str,
    strips: int = 6,
    shard: Shard | None = None,
) -> list[Figure] | None:
    """Measure, keep rows and pictures in ``folder``, and say how it goes.

    Args:
        subject: what to measure.
        settings: scenes, seed and so on.
        measures: which measures, in order.
        folder: for rows.jsonl and strips/; made if absent.
        belongs_to: fingerprint of weights, settings and rules; rows of another are set aside.
        strips: how many items of each measure, evenly spread, get a picture.
        shard: the part of each measure's items to measure; None: all.

    Returns:
        All figures, measure by measure; None while rows of other parts are missing.
    """
    part = shard or Shard()
    items = {measure.name: measure.items(settings) for measure in measures}
    rows = RowFile(row_path(folder, part), belongs_to)
    try:
        # What could not be measured then, for want of data or time, is tried again.
        known = {key for key, row in read_rows(folder, belongs_to).items() if not _to_try_again(key[0], row)}
        todo = {
            name: [n for n in part.of(range(len(listed))) if (name, listed[n]) not in known]
            for name, listed in items.items()
        }
        waiting = {name: len(numbers) for name, numbers in todo.items()}
        clock = TimeLeft(waiting, {measure.name: measure.samplings for measure in measures})
        for measure in measures:
            count = len(items[measure.name])
            pictured = set(np.linspace(0, count - 1, strips).round().astype(int).tolist())
            for number in todo[measure.name]:
                item = items[measure.name][number]
                started = time.perf_counter()
                outcome = measure.measure(subject, settings, item)
                seconds = time.perf_counter() - started
                if outcome.clips and number in pictured:
                    title = f"{measure.name} {item}: {outcome.row.get('prompt', '')}"
                    save_picture(strip(title, outcome.clips), folder / "strips" / f"{measure.name}-{item}.png")
                rows.add(measure.name, item, outcome.row)
                clock.done(measure.name, seconds)
                left = format_seconds(clock.seconds())
                print(f"{measure.name} {number + 1}/{count} {seconds:.1f} s, {left} left", flush=True)
    finally:
        rows.close()
    return summarised(measures, items, read_rows(folder, belongs_to))


def _to_try_again(measure: str, row: Row) -> bool:
    return "skipped" in row or (measure == "timing" and "error" in row)


def summarised(
    measures: Sequence[Measure], items: Mapping[str, Sequence[str]], rows: Mapping[tuple[str, str], Row]
) -> list[Figure] | None:
    """All figures, measure by measure; None while a row is missing."""
    missing = sum((name, item) not in rows for name, listed in items.items() for item in listed)
    if missing:
        print(f"{missing} rows are missing yet: the part that ends last writes the report", flush=True)
        return None
    figures: list[Figure] = []
    for measure in measures:
        figures += measure.summarise([rows[measure.name, item] for item in items[measure.name]])
    return figures


def read_settings(config: DictConfig, size: int, num_frames: int) -> Settings:
    """The suite's settings.

    Raises:
        ValueError: a number out of range.
    """
    suite = config.suite
    scenes = int(suite.scenes if config.scenes is None else config.scenes)
    local = int(suite.local_scenes if config.scenes is None else max(1, min(suite.local_scenes, scenes // 2)))
    if scenes < 2 or scenes % 2:
        raise ValueError(f"scenes is {scenes}; expected an even number from 2 (half with one object, half with 2-3).")
    cases: Any = OmegaConf.to_container(suite.real_cases, resolve=True)
    return Settings(scenes, local, int(config.seed), size, num_frames, _real_data(), tuple(cases))


def _real_data() -> Path | None:
    named = os.environ.get("TTM_REAL_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def rule_files() -> list[Path]:
    """The code that decides what a row says."""
    files: list[Path] = []
    for name in RULES:
        path = ROOT / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return files


def write_sheet(folder: Path, measures: Sequence[Measure]) -> bool:
    """The first and the last strip of each measure on one sheet; False when there is none."""
    strips: list[Path] = []
    for measure in measures:
        found = sorted((folder / "strips").glob(f"{measure.name}-*.png"))
        strips += dict.fromkeys([found[-1], found[0]]) if found else []
    if strips:
        save_picture(contact_sheet(strips), folder / "contact_sheet.png")
    return bool(strips)


def _refuse_settings_of_samples(config: DictConfig) -> None:
    """What only suites of samples read would be left out without a word."""
    given = [name for name in ("videos", "name", "limit", "retry", "overwrite", "compare") if config[name]]
    nested = {f"clip.{name}": value for name, value in config.clip.items()}
    nested |= {f"score.{name}": config.score[name] for name in ("metrics", "features")}
    nested |= {f"score.weights.{name}": value for name, value in config.score.weights.items()}
    nested["give"] = config.give
    given += [name for name, value in nested.items() if value is not None]
    if given:
        raise ValueError(
            f"{given[0]} has no part in suite={config.suite.name}, which measures a model on scenes of its own;"
            " expected a suite of samples beside it, suite=FOLDER."
        )


def benchmark_measures(config: DictConfig) -> int:
    """Run what a configuration asks for; 0 when it ran to its end (whatever the figures say)."""
    _refuse_settings_of_samples(config)
    names = None if config.measures is None else [str(name) for name in config.measures]
    measures = choose(config.suite.name, names)
    from benchmarks.pipeline_subject import load_subject, weight_files  # after hydra: it imports sam2

    sampling = OmegaConf.to_container(config.sampling, resolve=True)
    assert isinstance(sampling, dict)
    started = time.perf_counter()
    device = local_device(str(config.device))
    subject = load_subject(str(config.model), device, str(config.dtype), {str(k): v for k, v in sampling.items()})
    loaded = time.perf_counter() - started
    if len(set(subject.size)) > 1:
        height, width = subject.size
        raise ValueError(
            f"{subject.name} makes frames of {height} x {width}; expected square ones, as the scenes of this suite are."
        )
    settings = read_settings(config, subject.size[0], subject.num_frames)
    described: dict[str, Any] = plain(
        asdict(settings) | {"real_data": None, "sampling": sampling, "model": subject.name, "dtype": str(config.dtype)}
    )
    # What a measure says does not depend on which others run: ``measures`` is no part of the fingerprint.
    belongs_to = fingerprint(described, [*weight_files(subject.pipe), *rule_files()])
    folder = Path(str(config.output or f"outputs/benchmarks/{config.suite.name}-{subject.name}-{settings.scenes}"))
    print(f"{config.suite.name} on {subject.name} (loaded in {loaded:.1f} s); rows and pictures in {folder}")
    shard = Shard.read(config.shard)
    strips = 6 if config.strips is None else int(config.strips)
    figures = run_measures(subject, settings, measures, folder, belongs_to, strips, shard)
    if figures is None:
        return 0
    print("\n" + format_table(figures))
    report = {
        "suite": config.suite.name,
        "model": subject.name,
        "belongs_to": belongs_to,
        "settings": described,
        "versions": package_versions(),
        "machine": {"processors": os.cpu_count(), "platform": platform.platform()},
        "figures": [figure.to_dict() for figure in figures],
    }
    write_report(folder / "report.json", plain(report))
    written = [folder / "report.json", write_measure_page(folder)]
    written += [folder / "contact_sheet.png"] if write_sheet(folder, measures) else []
    print("\nwrote " + " and ".join(str(path) for path in written))
    return 0
