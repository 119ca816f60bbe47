"""The report of a run: a page that needs nothing from outside, and the same as Markdown.

    python -m benchmarks.run_page RUN [OTHER …]    # write it again, beside other runs on the same suite

The page lies in the run's folder; videos and stills lie beside it and are named by relative paths, because a page that
held 128 videos itself would be too large for a phone. The folder can be moved or served as a whole.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from benchmarks.page_media import brought, clips, link, poster
from benchmarks.plots import Estimate, histogram, interval_plot
from benchmarks.published import TABLES
from benchmarks.run_view import (
    Cell,
    RunResults,
    Section,
    Table,
    TableRow,
    category_table,
    main_table,
    number,
    run_names,
    told_of_all,
    worst_first,
)
from ttm.atomic_write import written_beside
from ttm.motion.mask_trajectory import PALETTE
from ttm.objects import PromptPlan

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 48
"""Samples with their videos on the page; the others stand in a table below."""
_PLOTTED = 3
"""Metrics whose plots are in sight; those of the others unfold."""
_LEAST_PLOTTED = 4


def write_pages(folder: Path, others: Sequence[Path] = ()) -> list[Path]:
    """Write report.html and report.md into a run's folder, each whole or not at all.

    Args:
        folder: of a run that has been scored.
        others: folders of other runs on the same suite, to compare with.

    Returns:
        the two paths.

    Raises:
        FileNotFoundError: a run without scores. ValueError: another suite.
    """
    run = RunResults.load(folder)
    values = page_values([run, *(RunResults.of_suite(path, run.info["suite"]) for path in others)])
    written = []
    for name in ("report.html", "report.md"):
        text = environment().get_template(name.replace("report", "run")).render(values)
        with written_beside(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def environment() -> Environment:
    """The templates; what a name or a prompt holds is never taken for markup."""
    loader = FileSystemLoader(TEMPLATES)
    made = Environment(
        loader=loader,
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["cell"] = _markdown_cell
    return made


def page_values(runs: Sequence[RunResults]) -> dict[str, Any]:
    """All that the templates print."""
    run = runs[0]
    published = TABLES.get(str(run.info["published"]))
    order = worst_first(run)
    metrics = [metric for metric in run.scores["metrics"] if metric.get("categories") or _has_values(run, metric)]
    rows = {row["id"]: row for row in run.scores["samples"]}
    failed = len(run.failures)
    table = main_table(runs)
    versions = {name: " or ".join(found) for name, found in run.versions.items()}
    mixed = {name: versions[name] for name, found in run.versions.items() if len(found) > 1}
    warnings = [f"The samples were done by several versions, {_said(mixed)}."] if mixed else []
    warnings += [f"{name}: {text}." for name, text in told_of_all(runs, lambda metric: metric.get("warnings", []))]
    return {
        "title": f"{run.info['suite']}: {run.info['model']}",
        "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "summary": f"{len(run.records)} samples, {failed} failed; seed {run.info['seed']}.",
        "note": run.info["note"],
        "table": table,
        "published": published.title if published else "",
        "published_note": published.note if published else "",
        "warnings": [*table.notes, *warnings],
        "not_measured": run.scores["not_measured"],
        "failures": run.failures,
        "count": len(run.records),
        "plots": _plots(run, metrics[:_PLOTTED]),
        "more_plots": _plots(run, metrics[_PLOTTED:]),
        "categories": category_table(run),
        "order": "By the mean of their ranks in every metric that has a direction and a value for each sample.",
        "cards": [_card(runs, name, rows[name], metrics) for name in order[:SHOWN]],
        "rest": _rest(run, order[SHOWN:], rows, metrics),
        "samples": [_line(run, name, rows[name], metrics) for name in order],
        "sample_columns": [metric["name"] for metric in metrics],
        "conventions": told_of_all(runs, lambda metric: [_said({**metric["convention"], **metric.get("weights", {})})]),
        "made": [("model", _said(run.info["identity"])), ("versions", _said(versions))],
    }


def _has_values(run: RunResults, metric: dict[str, Any]) -> bool:
    return any(metric["name"] in row["values"] for row in run.scores["samples"])


def _plots(run: RunResults, metrics: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    plots = []
    for metric in metrics:
        groups = {{"": "all samples"}.get(name, name): figure for name, figure in metric["figures"].items()}
        groups |= metric["categories"]
        estimates = [
            Estimate(name, figure["value"], tuple(figure["interval"] or [figure["value"]] * 2), figure["count"])
            for name, figure in groups.items()
            if figure["value"] is not None
        ]
        if len(estimates) > 1:
            title = f"{metric['name']}: mean and 95% interval"
            plots.append({"title": title, "svg": interval_plot(title, estimates)})
        values = [row["values"][metric["name"]] for row in run.scores["samples"] if metric["name"] in row["values"]]
        if len(set(values)) >= _LEAST_PLOTTED:
            title = f"{metric['name']}: samples"
            plots.append({"title": title, "svg": histogram(title, values)})
    return plots


def _card(
    runs: Sequence[RunResults], name: str, row: dict[str, Any], metrics: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A sample with its videos, and the videos of the other runs."""
    run = runs[0]
    record, place = run.records[name], run.folder / "samples" / name
    shown = [(label, path) for label, path in clips(place).items()]
    for other, title in zip(runs[1:], run_names(runs)[1:], strict=True):
        theirs = other.folder / "samples" / name / "video.mp4"
        if theirs.is_file():
            shown.append((title, brought(theirs, place)))
    plan = PromptPlan.load(place / "plan.json") if (place / "plan.json").is_file() else None
    spoken = plan.local_prompts if plan else []
    words = [name, record["split"], record["category"], f"{record['frames']} frames", f"{record['seconds']:.1f} s"]
    return {
        "prompt": record["prompt"],
        "line": " · ".join(word for word in words if word),
        "objects": [{"text": t, "colour": _hex(n)} for n, t in enumerate(spoken, start=1)],
        "clips": [{"label": t, "source": link(p, run.folder), "poster": link(poster(p), run.folder)} for t, p in shown],
        "width": record["width"],
        "height": record["height"],
        "scores": [(m["name"], number(row["values"][m["name"]])) for m in metrics if m["name"] in row["values"]],
        "problems": [*record["warnings"], *(f"{what}: {reason}" for what, reason in row["problems"].items())],
    }


def _rest(
    run: RunResults, names: Sequence[str], rows: dict[str, dict[str, Any]], metrics: Sequence[dict[str, Any]]
) -> Table:
    table = Table([metric["name"] for metric in metrics])
    listed = [
        TableRow(
            f"{name}: {run.records[name]['prompt']}", False, [Cell(value) for value in _values(rows[name], metrics)]
        )
        for name in names
    ]
    if listed:
        table.sections.append(Section("", listed))
    return table


def _line(run: RunResults, name: str, row: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    address = link(run.folder / "samples" / name / "video.mp4", run.folder)
    return {"id": name, "prompt": run.records[name]["prompt"], "link": address, "scores": _values(row, metrics)}


def _values(row: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> list[str]:
    return [number(row["values"].get(metric["name"])) for metric in metrics]


def _said(values: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in values.items())


def _hex(number_of_object: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in PALETTE[number_of_object]))


def _markdown_cell(text: str) -> str:
    """A text within a table of Markdown: one line, and no character that means something there."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(text.split()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_page", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    chosen = parser.parse_args(arguments)
    try:
        written = write_pages(chosen.run, chosen.others)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("wrote " + " and ".join(str(path) for path in written))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
