"""What a run leaves on the disk: rows that survive a kill, reports that are whole, tables with N."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import ablation_run, few_shot
from benchmarks.measure import (
    Figure,
    Measure,
    Outcome,
    Row,
    Settings,
    mean_figure,
    sampling_seed,
    share_figure,
)
from benchmarks.measure_page import write_measure_page
from benchmarks.measure_run import ROOT, rule_files, run_measures, write_sheet
from benchmarks.progress import TimeLeft, format_seconds
from benchmarks.report import format_table, write_report
from benchmarks.rows import RowFile, fingerprint, plain, read_rows
from benchmarks.shard import Shard
from benchmarks.sheets import strip
from benchmarks.suites import SUITES, choose


class Killed(BaseException):
    """As abrupt as a kill can be made within a test."""


def counting(calls: list[str], fail_at: str | None = None) -> Measure:
    """A measure that notes each item it is asked for."""

    def measure(subject: Any, settings: Settings, item: str) -> Outcome:
        if item == fail_at:
            raise Killed
        calls.append(item)
        return Outcome({"value": float(item)}, {"clip": np.zeros((3, 8, 8, 3), np.uint8)})

    def summarise(rows: Sequence[Row]) -> list[Figure]:
        return [mean_figure("values", [row["value"] for row in rows])]

    return Measure("counting", lambda settings: ["1", "2", "3", "4"], measure, summarise, samplings=1)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Killed):
        run_measures(None, Settings(), [counting(calls, fail_at="3")], tmp_path, "same")  # type: ignore[arg-type]
    with open(tmp_path / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write('{"measure": "counting", "item": "3", "row": {"val')  # cut off in the middle of a line
    figures = run_measures(None, Settings(), [counting(calls)], tmp_path, "same")  # type: ignore[arg-type]
    assert calls == ["1", "2", "3", "4"], "each item was measured once"
    assert figures == [Figure("values", 2.5, 4)]
    assert len((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_three_parts_give_what_one_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    for index in (2, 0):
        shard = Shard(index, 3)
        found = run_measures(None, Settings(), [counting(calls)], tmp_path, "same", shard=shard)  # type: ignore[arg-type]
        assert found is None
    told = capsys.readouterr().out
    assert "3 rows are missing" in told and "1 rows are missing" in told
    figures = run_measures(None, Settings(), [counting(calls)], tmp_path, "same", shard=Shard(1, 3))  # type: ignore[arg-type]
    assert figures == [Figure("values", 2.5, 4)] and sorted(calls) == ["1", "2", "3", "4"]
    alone = run_measures(None, Settings(), [counting(calls)], tmp_path, "same")  # type: ignore[arg-type]
    assert alone == figures and len(calls) == 4, "a run alone takes the rows of the parts"
    assert len(read_rows(tmp_path, "same")) == 4 and not read_rows(tmp_path, "other")


ROOMS = ("ttm.metrics", "ttm.data", "ttm.motion", "ttm.evaluation")
DECIDE_NOTHING = {
    *("ttm/data/clip_folder.py", "ttm/data/prepared_clips.py", "ttm/metrics/scoring.py"),  # what holds a clip's frames
    *("ttm/metrics/features.py", "ttm/metrics/weights.py"),  # features that are kept, weights that are found
}


def imported(files: list[Path], rooms: tuple[str, ...]) -> set[str]:
    """Files of these rooms that others import, by their place in the repository."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(rooms):
                modules = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
                found |= {module.replace(".", "/") + ".py" for module in modules}
    return {name for name in found if (ROOT / name).is_file()}


def test_the_rules_of_the_fingerprint_are_complete() -> None:
    """Whatever a measure imports from these rooms decides what its rows say."""
    files = rule_files()
    assert imported(files, ("benchmarks", *ROOMS)) <= {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("rules", [few_shot.RULES, ablation_run.RULES])
def test_the_rules_of_a_table_are_complete(rules: tuple[str, ...]) -> None:
    known = {*rules, *(str(path.relative_to(ROOT)) for path in rule_files()), *DECIDE_NOTHING}
    assert imported([ROOT / name for name in rules], ROOMS) <= known


def test_rows_of_other_weights_are_set_aside(tmp_path: Path) -> None:
    calls: list[str] = []
    run_measures(None, Settings(), [counting(calls)], tmp_path, "old weights")  # type: ignore[arg-type]
    run_measures(None, Settings(), [counting(calls)], tmp_path, "new weights")  # type: ignore[arg-type]
    assert len(calls) == 8
    run_measures(None, Settings(), [counting(calls)], tmp_path, "old weights")  # type: ignore[arg-type]
    run_measures(None, Settings(), [counting(calls)], tmp_path, "new weights")  # type: ignore[arg-type]
    assert len(calls) == 8, "both were kept"


def test_a_text_may_hold_what_other_files_end_lines_with(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d"
    for _ in range(2):
        rows = RowFile(tmp_path / "rows.jsonl", "a")
        rows.add("measure", str(len(rows.rows)), {"prompt": text})
        rows.close()
    assert [row["prompt"] for row in read_rows(tmp_path, "a").values()] == [text, text]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = RowFile(tmp_path / "rows.jsonl", "a")
    with pytest.raises(ValueError, match="one at a time"):
        RowFile(tmp_path / "rows.jsonl", "a")
    first.close()
    RowFile(tmp_path / "rows.jsonl", "a").close()


def test_the_fingerprint_follows_settings_and_contents(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"one")
    before = fingerprint({"seed": 0}, [weights])
    assert fingerprint({"seed": 0}, [weights]) == before
    assert fingerprint({"seed": 1}, [weights]) != before
    weights.write_bytes(b"two")
    assert fingerprint({"seed": 0}, [weights]) != before


def test_rows_hold_plain_values_only() -> None:
    row = plain({"a": np.float32(0.5), "b": [np.int64(3), float("nan")], "c": np.True_, "d": float("inf")})
    assert json.loads(json.dumps(row, allow_nan=False)) == {"a": 0.5, "b": [3, None], "c": True, "d": 1e9}


def test_the_table_prints_n_goal_and_verdict() -> None:
    table = format_table(
        [
            share_figure("direction", [True, True, False], goal=0.9),
            Figure("wrong one", 0.05, 20, "%", 0.1, at_most=True),
            Figure("psnr", 25.0, 64, "dB", 24.0),
            Figure("real", None, 0, note="skipped: no file"),
        ]
    ).splitlines()
    assert "66.7%" in table[2] and " 3 " in table[2] and ">= 90.0%" in table[2] and "NOT reached" in table[2]
    assert "5.0%" in table[3] and "<= 10.0%" in table[3] and "NOT" not in table[3]
    assert "25.00 dB" in table[4] and "64" in table[4]
    assert "skipped: no file" in table[5]


def test_means_leave_out_what_is_no_number() -> None:
    assert mean_figure("x", [1.0, None, float("nan"), 3.0]) == Figure("x", 2.0, 2)
    assert mean_figure("x", []).value is None
    assert mean_figure("x", [float("inf")], unit="dB").value == 100, "a perfect PSNR does not swallow the mean"
    assert mean_figure("x", [150.0], unit="s").value == 150
    assert Figure("x", None, 0, goal=1.0).reached is None


def test_seeds_differ_by_measure_item_and_seed_and_never_by_run() -> None:
    seeds = {
        sampling_seed(Settings(seed=seed), measure, item)
        for seed in (0, 1)
        for measure in ("stage_one", "stage_two")
        for item in ("single-000", "single-001")
    }
    assert len(seeds) == 8
    assert sampling_seed(Settings(), "stage_one", "single-000") == sampling_seed(Settings(), "stage_one", "single-000")


def test_a_report_is_whole_json(tmp_path: Path) -> None:
    write_report(tmp_path / "deep" / "report.json", {"figures": [Figure("x", 0.5, 2, goal=0.4).to_dict()]})
    found = json.loads((tmp_path / "deep" / "report.json").read_text(encoding="utf-8"))
    assert found["figures"][0]["reached"] is True and found["figures"][0]["count"] == 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_the_page_of_the_measures(tmp_path: Path) -> None:
    figures = [Figure("direction", 0.9, 32, "%", 0.8, note="of <all>"), Figure("  left", 0.5, 4, "%")]
    figures += [Figure("psnr", 3, 1), Figure("wrong", 0.4, 9, "%", 0.1, at_most=True)]
    report = {"suite": "synthetic", "model": "ttm-tiny", "settings": {"scenes": 8, "seed": 0}, "versions": {}}
    write_report(tmp_path / "report.json", report | {"machine": {}, "figures": [f.to_dict() for f in figures]})
    (tmp_path / "strips").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "strips" / "stage_one-single 000.png")
    text = write_measure_page(tmp_path).read_text(encoding="utf-8")
    assert "1 of 2 goals reached" in text and "not reached" in text
    assert "&gt;= 80.0%" in text and "of &lt;all&gt;" in text
    assert 'src="strips/stage_one-single%20000.png" width="40" height="20"' in text and "<h2>stage_one</h2>" in text
    assert text.count('class="under"') == 1 and "http" not in text
    with pytest.raises(FileNotFoundError, match="no report.json"):
        write_measure_page(tmp_path / "strips")


def test_time_left_is_learnt_and_carried_to_what_has_not_begun() -> None:
    clock = TimeLeft({"a": 3, "b": 2}, {"a": 1, "b": 2})
    assert clock.seconds() is None
    clock.done("a", 4.0)
    assert clock.seconds() == pytest.approx(2 * 4 + 2 * 2 * 4)
    clock.done("b", 6.0)
    assert clock.seconds() == pytest.approx(2 * 4 + 6)
    assert format_seconds(None) == "?" and format_seconds(30) == "30 s" and format_seconds(120) == "2.0 min"


def test_pictures_of_the_run(tmp_path: Path) -> None:
    clips = {"true": np.full((9, 16, 24, 3), 200, np.uint8), "made": np.full((1, 16, 24, 3), 10, np.uint8)}
    picture = strip("a title", clips)
    assert np.asarray(picture)[16, 131].tolist() == [200, 200, 200]
    assert np.asarray(picture)[16 + 18, 131].tolist() == [10, 10, 10]
    (tmp_path / "strips").mkdir()
    for name in ("stage_one-x", "real-dog"):
        picture.save(tmp_path / "strips" / f"{name}.png")
    assert write_sheet(tmp_path, choose("synthetic", None))
    assert not write_sheet(tmp_path, choose("synthetic", ["disc"]))
    sheet = Image.open(tmp_path / "contact_sheet.png")
    assert sheet.width >= 2 * picture.width and sheet.height >= picture.height


def test_measures_are_chosen_by_name_in_the_order_of_the_suite() -> None:
    names = [measure.name for measure in choose("synthetic", None)]
    assert names == [measure.name for measure in SUITES["synthetic"]] and len(set(names)) == len(names)
    assert [m.name for m in choose("synthetic", ["stage_two", "autoencoder"])] == ["autoencoder", "stage_two"]
    with pytest.raises(ValueError, match="expected some of"):
        choose("synthetic", ["stage_tow"])
    with pytest.raises(ValueError, match="expected one of"):
        choose("imaginary", None)
