"""The report of the measures as a page: figures with N and goal, and the strips, which lie beside it.

python -m benchmarks.measure_page RUN    # write it again
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.measure import Figure
from benchmarks.page_media import link
from benchmarks.report import format_goal, format_value
from benchmarks.run_page import TEMPLATES, environment
from ttm.atomic_write import written_beside


def write_measure_page(folder: Path) -> Path:
    """Write report.html beside a run's report.json, whole or not at all.

    Raises:
        FileNotFoundError: no report.json there.
    """
    source = folder / "report.json"
    if not source.is_file():
        raise FileNotFoundError(f"{folder} holds no report.json; expected a run of measures that came to its end.")
    report = json.loads(source.read_text(encoding="utf-8"))
    text = environment().get_template("measures.html").render(_values(folder, report))
    with written_beside(folder / "report.html") as beside:
        beside.write_text(text, encoding="utf-8")
    return folder / "report.html"


def _values(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    figures = [_figure(entry) for entry in report["figures"]]
    settings = report["settings"]
    reached = [figure["verdict"] for figure in figures if figure["verdict"]]
    goals = f"{reached.count('reached')} of {len(reached)} goals reached" if reached else "no goals"
    return {
        "title": f"{report['suite']}: {report['model']}",
        "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "summary": f"{settings['scenes']} scenes, seed {settings['seed']}; {goals}.",
        "figures": figures,
        "strips": _strips(folder),
        "made": [(key, _said(report[key])) for key in ("settings", "versions", "machine")],
    }


def _figure(entry: dict[str, Any]) -> dict[str, Any]:
    figure = Figure(**{key: value for key, value in entry.items() if key != "reached"})
    verdict = {True: "reached", False: "not reached", None: ""}[figure.reached]
    return {
        "name": figure.name.strip(),
        "under": figure.name.startswith(" "),
        "value": format_value(figure),
        "count": figure.count,
        "goal": format_goal(figure),
        "verdict": verdict,
        "note": figure.note,
    }


def _strips(folder: Path) -> list[dict[str, Any]]:
    """The pictures, by measure; "stage_one-multi-003.png" is of the measure stage_one."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((folder / "strips").glob("*.png")):
        with Image.open(path) as picture:
            width, height = picture.size
        measure, _, item = path.stem.partition("-")
        entry = {"address": link(path, folder), "width": width, "height": height, "name": f"{measure}: {item}"}
        groups.setdefault(measure, []).append(entry)
    return [{"measure": measure, "pictures": pictures} for measure, pictures in groups.items()]


def _said(values: dict[str, Any]) -> str:
    plain = {key: value for key, value in values.items() if not isinstance(value, (list, dict)) and value is not None}
    return "; ".join(f"{key}: {value}" for key, value in plain.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        print("usage: python -m benchmarks.measure_page RUN", file=sys.stderr)
        return 2
    try:
        print(f"wrote {write_measure_page(Path(words[0]))}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
