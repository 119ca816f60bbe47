"""One run of an ablation: the common start where it is missing, the training, the scores; each goes on after a kill."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from diffusers.utils import logging

from benchmarks.ablation_plan import START, Plan
from benchmarks.ablation_scores import score_scene
from benchmarks.ablation_subject import TrainedStage
from benchmarks.ablation_table import SETTINGS, decisive, write_tables
from benchmarks.measure import Settings as SceneSettings
from benchmarks.measure_run import ROOT, rule_files
from benchmarks.report import write_report
from benchmarks.rows import RowFile, fingerprint, plain
from benchmarks.sheets import save_picture, strip
from stages.settings import Settings
from stages.settings_loading import load_settings
from stages.train import run
from ttm.pipelines.embedded import EMBEDDED, embedded_folder

RULES = (
    *("benchmarks/ablation_scores.py", "benchmarks/ablation_subject.py"),
    *("ttm/evaluation/tiny_features.py", "ttm/metrics/clip.py", "ttm/metrics/foreground.py"),
    "ttm/motion/optical_flow.py",
)
"""The code that decides what a row says, beside that of every benchmark."""
FINISHED = "finished.json"
STRIPS = 4
"""How many scenes of a run get a picture."""


def run_job(plan: Plan, row: str, seed: int) -> None:
    """Train and score one row with one seed, and write the table as far as it goes.

    Raises:
        ValueError: settings that don't fit, or a folder that holds a run of other settings.
        KeyboardInterrupt: the training was told to stop.
    """
    if row != START:
        train(plan, START, 0)
    settings = train(plan, row, seed)
    score(plan, row, seed, settings)
    write_tables(plan, scoring_fingerprint(plan))


def train(plan: Plan, row: str, seed: int) -> Settings:
    """Train, or find that it is trained; a process that comes while another one trains waits."""
    settings, folder = load_settings(plan.overrides(row, seed)), plan.run_folder(row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        _expect_settings(folder / SETTINGS, settings)
        if not (folder / FINISHED).exists():
            started = time.monotonic()
            print(f"== {row}, seed {seed}: {settings.max_steps} steps", flush=True)
            logging.set_verbosity_error()  # the start leaves the masked blocks of its weights out, on purpose
            finished = run(settings)
            if not finished.complete:
                raise KeyboardInterrupt(f"stopped at step {finished.step}; the same command goes on")
            write_report(folder / FINISHED, plain({"seconds": time.monotonic() - started, "loss": finished.loss}))
    return settings


def score(plan: Plan, row: str, seed: int, settings: Settings) -> None:
    """Score every scene that has no row yet."""
    folder, scenes = plan.run_folder(row, seed), scene_settings(plan, settings)
    names = plan.scenes.names()
    pictured = {names[n] for n in np.linspace(0, len(names) - 1, STRIPS).round().astype(int)}
    rows = RowFile(folder / "rows.jsonl", scoring_fingerprint(plan))
    try:
        todo = [name for name in names if ("scene", name) not in rows.rows]
        stage = TrainedStage(settings, plan.sampling) if todo else None
        for name in todo:
            assert stage is not None
            started = time.perf_counter()
            values, clips = score_scene(stage, scenes, name)
            rows.add("scene", name, values | {"row": row, "seed": seed})
            if name in pictured:
                save_picture(strip(f"{row} {seed} {name}: {values['prompt']}", clips), folder / f"{name}.png")
            print(f"{row} {seed} {name} {time.perf_counter() - started:.1f} s", flush=True)
    finally:
        rows.close()


def scene_settings(plan: Plan, settings: Settings) -> SceneSettings:
    """Of the held-out scenes: the size and length that the run was trained on."""
    return SceneSettings(2, 1, plan.scenes.seed, settings.data.size, settings.data.num_frames)


def scoring_fingerprint(plan: Plan) -> str:
    """Of what the rows of all runs of a table have in common: scenes, sampling and the code that judges."""
    return fingerprint({"seed": plan.scenes.seed, "sampling": dict(plan.sampling), "code": _code()}, [])


@lru_cache(maxsize=1)
def _code() -> str:
    """Of the code and the networks that decide what a row says, as they are when the process begins."""
    judges = sorted((EMBEDDED / "ttm-tiny" / "segmenter").rglob("*.safetensors"))
    return fingerprint({}, [*rule_files(), *(ROOT / name for name in RULES), *judges])


def _weights(settings: Settings) -> str:
    """Of the weights that a run stands on, as far as they lie here: the frozen parts, and what it begins with."""
    host, files = settings.host, []
    for name, parts in ((host.pipeline, ("vae", "text_encoder")), (host.init_from, ()), (host.motion_adapter, ())):
        folder = embedded_folder(name or "") or Path(name or "no folder")
        files += [file for part in parts or (".",) for file in (folder / part).rglob("*.safetensors")]
    return fingerprint({}, files)


def _expect_settings(path: Path, settings: Settings) -> None:
    """Write a run's settings and the weights that it stands on, or compare them with those that it was begun with.

    Raises:
        ValueError: they differ in more than where the run lies and on how many threads it runs.
    """
    own = decisive(settings) | {"weights": _weights(settings)}
    if not path.exists():
        write_report(path, own)
    known = {"weights": own["weights"]} | json.loads(path.read_text(encoding="utf-8"))  # older runs don't say theirs
    if known != own:
        differing = sorted(key for key in known.keys() | own.keys() if known.get(key) != own.get(key))
        raise ValueError(
            f"{path.parent} holds a run with other settings or weights ({', '.join(differing)}); expected the same"
            " ones, or another output=..."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among the processes that ask for this file; the system lets go of it when one dies."""
    with open(path, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
