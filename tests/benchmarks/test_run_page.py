"""The report of a run: its tables, order and links, on scores that are known."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.plots import Estimate, histogram, interval_plot, ticks
from benchmarks.published import TABLES
from benchmarks.run_page import main, write_pages
from benchmarks.run_view import RunResults, category_table, main_table, number, worst_first
from ttm.data.video_writer import write_video
from ttm.evaluation.inputs import VIDEO_SUFFIXES, find_files
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

IDS = ["Hündin 犬", "b #2", "c", "broken"]
EVIL = "The <script>alert(1)</script> ball | rolls."


def metric(name: str, better: str, values: dict[str, float], **more: Any) -> dict[str, Any]:
    figures = {
        "": {"value": float(np.mean(list(values.values()))), "count": len(values), "interval": [0.1, 0.9]},
        "single": {"value": 0.25, "count": 2, "interval": None},
    }
    categories = {"animals": {"value": 0.5, "count": 2, "interval": [0.4, 0.6]}}
    return {"name": name, "better": better, "convention": {"frames": "all pairs"}, "weights": {}, "warnings": []} | {
        "figures": figures,
        "categories": categories,
        **more,
    }


def write_run(folder: Path, model: str = "ttm-tiny", published: str | None = "sa_v_128") -> Path:
    good = {"CF-all-pairs": [0.9, 0.2, 0.5], "AD": [1.0, 2.0, 3.0], "loss": [0.1, 0.3, 0.2]}
    by_id = {name: dict(zip(IDS, values, strict=False)) for name, values in good.items()}
    metrics = [
        metric("CF-all-pairs", "higher", by_id["CF-all-pairs"]),
        metric("AD", "neither", by_id["AD"]),
        metric("loss", "lower", by_id["loss"], warnings=["N is small"]),
        {
            **metric("FVD", "lower", {"x": 321.5}),
            "categories": {},
        },
    ]
    samples = [
        {"id": name, "values": {key: by_id[key][name] for key in good if name in by_id[key]}, "problems": {}}
        for name in IDS
    ]
    samples[1]["problems"] = {"ViCLIP-V": "reference: too short"}
    folder.mkdir(parents=True)
    info: dict[str, Any] = {
        "suite": "SA-V-128",
        "published": published,
        "model": model,
        "note": "",
        "samples": IDS,
        "seed": 0,
    }
    info |= {"identity": {"pipeline": "abc"}, "versions": {"torch": "2"}}
    (folder / "run.json").write_text(json.dumps(info))
    scores = {"metrics": metrics, "samples": samples, "not_measured": {"viclip-t": "no <weights> here"}}
    (folder / "scores.json").write_text(json.dumps(scores))
    for name in IDS:
        write_sample(folder / "samples" / name, name)
    return folder


def write_sample(place: Path, name: str) -> None:
    place.mkdir(parents=True)
    record: dict[str, Any] = {
        "id": name,
        "prompt": EVIL,
        "error": "",
        "category": "animals",
        "split": "single",
        "warnings": [],
    }
    record |= {"frames": 3, "height": 16, "width": 16, "fps": 8, "seconds": 1.25, "model": "m", "belongs_to": "x"}
    if name == "broken":
        record |= {"error": "out of <memory>", "kind": "RuntimeError", "at": "x.py:1"}
    else:
        write_video(place / "video.mp4", np.full((3, 16, 16, 3), 90, np.uint8), 8)
        write_video(place / "reference.mp4", np.full((3, 16, 16, 3), 10, np.uint8), 8)
        MaskTrajectory(np.ones((3, 16, 16), np.uint8)).save(place / "trajectory.npz")
        PromptPlan(EVIL, EVIL, (ObjectPrompt("ball", "the ball rolls"),)).save(place / "plan.json")
    (place / "record.json").write_text(json.dumps(record))


class Page(HTMLParser):
    """Every tag with its attributes; and that the tags are balanced."""

    EMPTY = {"meta", "input", "br", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, tag: str, name: str) -> list[str]:
        return [value for found, attrs in self.tags if found == tag and (value := attrs.get(name))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("page") / "ours")
    other = write_run(folder.parent / "other", "Some Baseline")
    write_pages(folder, [other])
    return folder


def test_the_page_needs_nothing_from_outside(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    addresses = [*page.values("video", "src"), *page.values("video", "poster"), *page.values("img", "src")]
    assert len(page.values("video", "src")) == 3 * 4, "true, made, trajectory, the other run's"
    for address in addresses:
        assert (run / unquote(address)).resolve().is_relative_to(run) and (run / unquote(address)).is_file()
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert [tag for tag, _ in page.tags].count("script") == 1, "the page's own; a prompt is text"
    style = text[text.index("<style>") : text.index("</style>")]
    assert 'content: ""' in style and "&" not in style
    assert "width=device-width" in text and "out of &lt;memory&gt;" in text and "no &lt;weights&gt; here" in text


def test_evaluate_finds_the_models_videos_alone(run: Path) -> None:
    samples = sorted(f"samples/{name}/video" for name in IDS if name != "broken")
    assert sorted(find_files(run, VIDEO_SUFFIXES, "videos")) == samples
    assert sorted(find_files(run, (".npz",), "trajectories")) == samples


def test_runs_of_models_of_one_name_keep_their_videos_and_rows_apart(tmp_path: Path) -> None:
    ours, *others = (write_run(tmp_path / name, "final") for name in ("a", "b", "c"))
    for grey, other in zip((50, 150), others, strict=True):
        write_video(other / "samples" / "c" / "video.mp4", np.full((3, 16, 16, 3), grey, np.uint8), 8)
    write_pages(ours, others)
    copies = list((ours / "samples" / "c").glob("compare-*.mp4"))
    assert {path.read_bytes() for path in copies} == {(o / "samples" / "c" / "video.mp4").read_bytes() for o in others}
    rows = main_table([RunResults.load(folder) for folder in (ours, *others)]).sections[-1].rows
    assert len({row.name for row in rows}) == 3


def test_the_papers_table_stands_beside_ours(run: Path) -> None:
    runs = [RunResults.load(run), RunResults.load(run.parent / "other")]
    table = main_table(runs)
    assert table.columns[:3] == ["FVD ↓", "CF ↑", "ViCLIP-T ↑"] and table.columns[-1] == "loss ↓"
    assert [section.title for section in table.sections] == ["single-object", "multi-object", "all samples"]
    single = {row.name: row for row in table.sections[0].rows}
    assert single["ConsistI2V"].published and single["ConsistI2V"].cells[0].text == "1206.61"
    assert [cell.text for cell in single["DynamiCrafter"].cells[3:6]] == ["0.817", "8.94", "75.0"]
    assert not single["ttm-tiny"].published and single["ttm-tiny"].cells[1].text == "0.250"
    assert single["ttm-tiny"].cells[0].small == "N 2" and single["ttm-tiny"].cells[2].text == "–"
    everything = table.sections[2].rows
    assert [row.name for row in everything] == ["ttm-tiny", "Some Baseline"]
    assert everything[0].cells[0].text == "321.5" and everything[0].cells[0].small == "[0.100, 0.900], N 1"


def test_the_best_of_the_runs_is_marked(tmp_path: Path) -> None:
    first, second = (RunResults.load(write_run(tmp_path / name, name, None)) for name in ("a", "b"))
    second.scores["metrics"][0]["figures"][""]["value"] = 0.99
    second.scores["metrics"][2]["figures"][""]["value"] = 0.99
    rows = main_table([first, second]).sections[-1].rows
    assert [cell.best for cell in rows[0].cells] == [False, False, True, False]
    assert [cell.best for cell in rows[1].cells] == [True, False, False, False], "AD has no direction; FVD is a draw"
    alone = main_table([first]).sections[-1].rows[0]
    assert not any(cell.best for cell in alone.cells)


@pytest.mark.parametrize(
    ("place", "change", "why"),
    [
        (0, {"convention": {"frames": "adjacent"}}, "convention"),
        (0, {"weights": {"source": "theirs", "sha256": "b"}}, "weights"),
        (0, {"convention": {"frames": "adjacent"}, "weights": {"sha256": "b"}}, "convention and weights"),
        (3, {"figures": {"": {"value": 9.0, "count": 2, "interval": None}}}, "N"),
    ],
)
def test_figures_that_do_not_compare_have_no_best(tmp_path: Path, place: int, change: dict[str, Any], why: str) -> None:
    first, second, third = (RunResults.load(write_run(tmp_path / name, name, None)) for name in ("a", "b_b", "c"))
    for run, value in ((first, 0.1), (second, 0.2), (third, 0.3)):
        for entry in run.scores["metrics"]:
            entry["weights"] = {"source": run.folder.name, "sha256": "a"}  # the same, from another place
            entry["figures"] = {"": {"value": value, "count": 3, "interval": None}}
    assert main_table([first, second, third]).notes == []
    second.scores["metrics"][place] |= change
    table = main_table([first, second, third])
    rows = table.sections[-1].rows
    assert not any(row.cells[place].best for row in rows) and any(row.cells[2].best for row in rows)
    name = first.scores["metrics"][place]["name"]
    note = f"{name}: b_b differs from a in {why}; none is marked as the best."
    assert table.notes == [note]
    second.scores["metrics"][place]["figures"] = {"": {"value": None, "count": 0, "interval": None}}
    table = main_table([first, second, third])
    assert table.notes == [] and any(row.cells[place].best for row in table.sections[-1].rows)


def test_a_mean_of_fewer_videos_compares(tmp_path: Path) -> None:
    first, second = (RunResults.load(write_run(tmp_path / name, name, None)) for name in ("a", "b"))
    second.scores["metrics"][0]["figures"][""] = {"value": 0.99, "count": 2, "interval": None}
    table = main_table([first, second])
    assert table.notes == [] and table.sections[-1].rows[1].cells[0].best


def test_what_another_run_says_differently_is_told_under_its_name(tmp_path: Path) -> None:
    ours, theirs = (write_run(tmp_path / name, name) for name in ("a", "b_b"))
    scores = json.loads((theirs / "scores.json").read_text())
    scores["metrics"][0] |= {"convention": {"frames": "adjacent"}, "warnings": ["2 prompts were cut"]}
    (theirs / "scores.json").write_text(json.dumps(scores))
    write_pages(ours, [theirs])
    page, markdown = ((ours / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert page.count("N is small.") == 1 and '<p class="quiet">CF-all-pairs of b_b: 2 prompts were cut.</p>' in page
    assert "CF-all-pairs: b_b differs from a in convention; none" in page
    assert re.findall(r"<dt>([^<]* of [^<]*)</dt><dd>([^<]*)</dd>", page) == [
        ("CF-all-pairs of b_b", "frames: adjacent")
    ]
    assert r"- CF-all-pairs of b\_b: frames: adjacent" in markdown and r"b\_b differs from a" in markdown


def test_the_worst_come_first_and_failures_are_listed(run: Path) -> None:
    results = RunResults.load(run)
    assert worst_first(results) == ["b #2", "c", "Hündin 犬"]
    text = (run / "report.html").read_text(encoding="utf-8")
    places = [text.index(f"{name} · single") for name in ("b #2", "c", "Hündin 犬")]
    assert places == sorted(places)
    assert "Failed: 1 of 4 samples" in text and "reference: too short" in text and "loss: N is small." in text
    assert category_table(results).sections[0].rows[0].cells[0].text == "0.500"


def test_the_markdown_says_the_same(run: Path) -> None:
    text = (run / "report.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for first, second in zip(lines, lines[1:], strict=False):
        if "---" in second:
            assert len(re.findall(r"(?<!\\)\|", first)) == second.count("|")
    every = text.splitlines()
    for before, line in zip(every, every[1:], strict=False):
        starts = line.startswith(("#", "**")) or (line.startswith("|") and not before.startswith("|"))
        assert not starts or before == "", f"{line!r} needs a blank line before it"
    assert "| ConsistI2V (published) | 1206.61 | 0.951 |" in text
    assert r"The \<script\>alert(1)\</script\> ball \| rolls." in text
    assert "(samples/H%C3%BCndin%20%E7%8A%AC/video.mp4)" in text and "Failed: 1 of 4" in text
    assert not re.search(r"\n{4,}", text)


def test_versions_that_differ_within_a_run_are_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", published=None)

    def report(*made_with: dict[str, str]) -> str:
        for name, versions in zip(IDS, made_with, strict=False):
            path = folder / "samples" / name / "record.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": versions}))
        write_pages(folder)
        return (folder / "report.md").read_text(encoding="utf-8")

    assert "several versions" not in (text := report()) and "versions: torch: 2\n" in text, "those of run.json"
    assert "several versions, torch: 3 or unknown." in report({"torch": "3"}), "the others' were not kept"
    same = {"torch": "3", "numpy": "1"}
    text = report(same, same | {"torch": "4"}, same, {"torch": "5"})
    assert "several versions, torch: 3 or 4." in text and "versions: torch: 3 or 4; numpy: 1" in text
    text = report(same, same, same)
    assert "several versions" not in text and "versions: torch: 3; numpy: 1" in text, "the last has failed: no video"


def test_published_tables_are_whole() -> None:
    for table in TABLES.values():
        assert all(len(row) == len(table.splits) * len(table.columns) for row in table.rows.values())
    assert TABLES["sa_v_128"].value("Through-The-Mask (DiT)", "multi", "FVD") == 1134.71
    assert TABLES["image_animation_bench"].value("DynamiCrafter", "", "Quality") == 53.9
    assert TABLES["few_shot"].value("LAMP", "", "Alignment") == pytest.approx(0.323)


def test_plots_are_drawings_that_can_be_read() -> None:
    lines = [Estimate("a <b>", 0.5, (0.4, 0.6), 9), Estimate("a very long name of a category", 0.7, (0.7, 0.7), 1)]
    for text in (interval_plot('say "x"', lines), histogram("h", [1.0, 2.0, 2.1]), histogram("one", [3.0, 3.0])):
        drawing = ElementTree.fromstring(text)
        xs = [
            float(node.attrib[key]) for node in drawing.iter() for key in ("x", "x1", "x2", "cx") if key in node.attrib
        ]
        assert min(xs) >= 0 and max(xs) <= 370
    assert len(ElementTree.fromstring(histogram("h", [1.0, 2.0, 2.1])).findall("rect")) == 3
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1.0]) and ticks(0.12, 0.19) == pytest.approx([0.12, 0.14, 0.16, 0.18])
    assert [number(value) for value in (None, 1234.56, 12.345, 0.1234)] == ["–", "1234.6", "12.35", "0.123"]


def test_a_run_of_which_nothing_came_is_a_page_all_the_same(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", published=None)
    empty: dict[str, Any] = {"metrics": [], "not_measured": {"everything": "no sample has a video"}}
    empty["samples"] = [{"id": name, "values": {}, "problems": {}} for name in IDS]
    (folder / "scores.json").write_text(json.dumps(empty))
    for name in IDS:
        path = folder / "samples" / name / "record.json"
        record = json.loads(path.read_text()) | {"error": "nothing", "kind": "ValueError", "at": "x.py:1"}
        path.write_text(json.dumps(record))
    write_pages(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "No metric could be measured" in text and "Failed: 4 of 4" in text and "no sample has a video" in text
    assert Page(text).values("video", "src") == [] and "Failed: 4 of 4" in (folder / "report.md").read_text("utf-8")


def test_runs_that_can_not_be_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a")
    other = write_run(tmp_path / "b")
    (other / "run.json").write_text((other / "run.json").read_text().replace("SA-V-128", "another"))
    with pytest.raises(ValueError, match="of the suite 'another'"):
        write_pages(run, [other])
    (other / "scores.json").unlink()
    assert main([str(other)]) == 2 and "has been scored" in capsys.readouterr().err
    assert main([str(run)]) == 0
