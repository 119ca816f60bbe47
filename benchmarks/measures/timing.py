"""Measure "timing": the command line, in a process of its own.

``ttm generate`` on one picture of the test world, run once to warm the disk's cache and once to measure:
seconds by the wall clock for the whole command, and the seconds that its run.json gives for the parts
(weights loaded). ``python -c "import ttm"``: the quickest of five, in seconds. Numbers of the machine and of
what else it was doing: the report says how many processors and what load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.measure import Figure, Measure, Outcome, Row, Settings
from benchmarks.scenes import load_scene
from benchmarks.subject import Subject

LIMIT = 600  # seconds a command may take


def items(settings: Settings) -> list[str]:
    """The two commands."""
    return ["generate", "import"]


def measure(subject: Subject, settings: Settings, item: str) -> Outcome:
    """One of the commands."""
    machine = {"processors": os.cpu_count(), "load": os.getloadavg()[0]}
    if item == "import":
        command = [sys.executable, "-c", "import ttm"]
        return Outcome({"import_seconds": min(_seconds(command) for _ in range(5)), **machine})
    scene = load_scene(settings, "single-000")
    with tempfile.TemporaryDirectory() as folder:
        picture, output = Path(folder) / "image.png", Path(folder) / "out"
        Image.fromarray(scene.frames[0]).save(picture)
        command = [
            sys.executable,
            "-m",
            "ttm.cli",
            "generate",
            str(picture),
            scene.plan.prompt,
            "-o",
            str(output),
        ]
        command += ["--overwrite", "--model", subject.source]
        try:
            wall = [_seconds(command) for _ in range(2)][-1]
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            return Outcome({"error": said[-1] if said else f"it ended with {error.returncode}", **machine})
        except subprocess.TimeoutExpired:
            return Outcome({"error": f"it took more than {LIMIT} s", **machine})
        parts = json.loads((output / "run.json").read_text(encoding="utf-8")).get("seconds", {})
    return Outcome({"wall_seconds": wall, "parts": parts, **machine})


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - started


def summarise(rows: Sequence[Row]) -> list[Figure]:
    """The whole command, its parts, and the import."""
    figures = []
    for row in rows:
        machine = f"{row['processors']} processors, load {row['load']:.1f}"
        if "import_seconds" in row:
            figures.append(Figure('python -c "import ttm"', row["import_seconds"], 5, "s", 0.3, True, machine))
            continue
        if "error" in row:
            figures.append(Figure("ttm generate, weights loaded", None, 0, "s", 30.0, True, f"failed: {row['error']}"))
            continue
        parts = {name: value for name, value in row["parts"].items() if name in _SAMPLED}
        figures.append(Figure("ttm generate, weights loaded", sum(parts.values()), 1, "s", 30.0, True, machine))
        figures.append(Figure("  the whole command, start and loading included", row["wall_seconds"], 1, "s"))
        figures += [Figure(f"  {name}", value, 1, "s") for name, value in parts.items()]
    return figures


_SAMPLED = ("plan", "segment", "image_to_motion", "motion_to_video")

MEASURE = Measure("timing", items, measure, summarise)
