"""``ttm evaluate`` from the command line, with the embedded stand-ins and a scripted I3D."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.conftest import NAMES, references, videos, write_clip  # noqa: F401  # fixtures
from tests.metrics.test_fvd import i3d_file  # noqa: F401  # a fixture
from ttm.cli import main
from ttm.evaluation import streaming


def _evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def test_a_folder_is_scored_with_prompts(
    videos: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompts = tmp_path / "prompts.csv"
    rows = ["video,prompt", *(f'{name}.mp4,"a red ball, and {name}"' for name in NAMES)]
    prompts.write_text("\n".join(rows), encoding="utf-8")
    given = (videos, "--prompts", prompts, "--features", "tiny", "--cache", tmp_path / "cache")
    assert _evaluate(*given, "--json", tmp_path / "scores.json") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("metric") and all(name in shown for name in ("CF-all-pairs-tiny", "Alignment-tiny"))
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [figure["num_videos"] for figure in scores["figures"]] == [3, 3, 3]  # no references, so no FVD-tiny
    assert {row["name"] for row in scores["videos"]} == set(NAMES)
    assert _evaluate(*given, "--json", tmp_path / "scores.json") == 1
    assert "--overwrite" in capsys.readouterr().err
    prompts.write_text("\n".join(rows[:2]), encoding="utf-8")
    assert _evaluate(*given, "--metrics", "alignment") == 1
    assert "2 of 3 videos have no row in the prompts" in capsys.readouterr().err


def test_fvd_is_scored_against_references(
    videos: Path,  # noqa: F811
    references: Path,  # noqa: F811
    i3d_file: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (videos, "--reference", references, "--metrics", "fvd", "--i3d", i3d_file, "--cache", tmp_path / "cache")
    assert _evaluate(*given) == 0
    first = capsys.readouterr().out
    assert "below 400" in first and "not the published one" in first
    assert _evaluate(*given, "--batch-size", 1) == 0
    assert capsys.readouterr().out == first, "from the kept features"
    (references / "more.mp4").write_bytes(b"nothing")
    assert _evaluate(*given) == 1, "a reference is missing from the figure"
    assert "more: reference:" in capsys.readouterr().out


def test_scores_that_came_meanwhile_stay(
    videos: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, scored = tmp_path / "scores.json", streaming.score_videos

    def slowly(*given: Any, **named: Any) -> streaming.Scores:
        path.write_text("another's")
        return scored(*given, **named)

    monkeypatch.setattr(streaming, "score_videos", slowly)
    assert _evaluate(videos, "--metrics", "cf", "--features", "tiny", "--no-cache", "--json", path) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("metric") and "holds scores.json already; give another --json" in printed.err
    assert path.read_text() == "another's"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 1, "videos: nowhere is not there"),
        (["{videos}", "--metrics", "fvd"], 2, "fvd needs --reference"),
        (["{videos}", "--metrics", "fid"], 2, "no metric 'fid'"),
        (["{videos}", "--fps", "0"], 2, "expected frames a second above 0"),
        (["{videos}", "--prompts", "none.csv"], 1, "none.csv is not there"),
        (["{videos}", "--json", "none/x.json"], 1, "is no folder"),
        (["{videos}", "--json", "{videos}", "--overwrite"], 1, "is a folder; expected a file"),
        (["{videos}", "--metrics", "cf", "--clip", "{videos}"], 1, "CLIP: "),
        (["{videos}", "--features", "tiny", "--clip", "x"], 2, "expected none for clip"),
        (["{videos}", "--features", "tiny", "--device", "cuda:99"], 1, "--device cuda:99 is not here"),
    ],
)
def test_what_is_wrong_is_one_line(
    videos: Path,  # noqa: F811
    words: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _evaluate(*(word.format(videos=videos) for word in words), "--no-cache") == code
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
