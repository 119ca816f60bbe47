"""The pages of help, ``ttm plan`` and ``ttm segment``."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ttm.cli import main
from ttm.cli.arguments import build_parser
from ttm.cli.inputs import read_masks
from ttm.cli.progress import Progress
from ttm.objects import PromptPlan
from ttm.prompt_planner import RulePlanner

COMMANDS = ("generate", "plan", "segment", "trajectory", "evaluate", "doctor")
PAGES = [(command,) for command in COMMANDS] + [("trajectory", action) for action in ("draw", "extract", "preview")]
SENTENCE = "The cat and the dog run left."


def test_the_page_of_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    page = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == page
    assert all(f"ttm {command}" in page for command in COMMANDS)
    assert max(len(line) for line in page.splitlines()) <= 100


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_every_command_has_a_page(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: ttm {' '.join(words)}")


def test_segment_says_which_part_of_an_image_it_searches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "--help"]) == 0
    assert "the largest centred part with its aspect ratio" in " ".join(capsys.readouterr().out.split())


def test_the_longer_page_names_no_option_that_there_is_not() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![-\w])--[a-z][a-z-]*", page))
    known = set()
    for words in PAGES:
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as help_page:
            build_parser().parse_args([*words, "--help"])
        known |= set(re.findall(r"--[a-z][a-z-]*", help_page.getvalue()))
    assert {"--plan", "--preview"} <= named
    assert named - known == set()


def test_plan_prints_and_writes_what_the_planner_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = RulePlanner().plan(SENTENCE)
    path = tmp_path / "plan.json"
    assert main(["plan", SENTENCE, "--json", "-o", str(path)]) == 0
    assert PromptPlan.from_dict(json.loads(capsys.readouterr().out)) == expected
    assert PromptPlan.load(path) == expected
    assert main(["plan", SENTENCE, "-o", str(path)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["plan", SENTENCE]) == 0
    page = capsys.readouterr().out
    assert all(text in page for text in (*expected.phrases, *expected.local_prompts, expected.motion_prompt))


def test_plan_keeps_a_file_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, made = tmp_path / "plan.json", RulePlanner.plan

    def slowly(planner: RulePlanner, prompt: str) -> PromptPlan:
        path.write_text("another's")
        return made(planner, prompt)

    monkeypatch.setattr(RulePlanner, "plan", slowly)
    assert main(["plan", SENTENCE, "-o", str(path)]) == 1
    assert "holds plan.json already" in capsys.readouterr().err and path.read_text() == "another's"


def test_plan_says_when_nothing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "It is nice."]) == 1
    printed = capsys.readouterr().err
    assert "It is nice." in printed and printed.count("\n") == 1


def test_plan_into_a_closed_pipe_is_quiet() -> None:
    code = "import sys; from ttm.cli import main; sys.exit(main(['plan', 'The cat runs.']))"
    root = Path(__file__).parents[2]
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert "Traceback" not in running.stderr.read()
    running.stderr.close()
    running.wait()


def test_segment_writes_ids_that_generate_takes(
    ttm: Callable[..., int],
    picture: str,
    masks: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert ttm("segment", picture, "red ball", "blue square", "-o", out) == 0
    assert {path.name for path in out.iterdir()} == {"ids.png", "overlay.png", "segment.json"}
    np.testing.assert_array_equal(read_masks([str(out / "ids.png")], masks.shape[::-1]), masks)
    objects = json.loads((out / "segment.json").read_text())["objects"]
    assert [item["phrase"] for item in objects] == ["red ball", "blue square"]
    assert objects[0]["share_of_image"] == pytest.approx((masks == 1).mean(), abs=1e-4)
    assert "red ball" in capsys.readouterr().out


def test_segment_refuses_more_phrases_than_there_are_ids(
    forbidden_ttm: Callable[..., int], picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forbidden_ttm("segment", picture, *["ball"] * 13, "-o", tmp_path / "out") == 2
    assert "13 phrases; expected at most 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "ttm: stopped; nothing was written."),
        (ValueError("two\nlines; expected one"), 1, "ttm plan: error: two lines; expected one"),
        (PermissionError(13, "Permission denied", "a.json"), 1, "ttm plan: error: Permission denied: a.json"),
        (RuntimeError("odd"), 1, "ttm plan: error: RuntimeError: odd (unexpected; --debug shows where)"),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(RulePlanner, "plan", fail)
    assert main(["plan", SENTENCE]) == code
    assert capsys.readouterr().err.strip() == line
    if code == 1:
        assert main(["plan", SENTENCE, "--debug"]) == 1
        assert capsys.readouterr().err.startswith("Traceback")


def test_progress_tells_the_time_left_and_adds_up_the_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: (100, 30))
    for quiet in (False, True):
        with Progress(quiet=quiet) as progress:
            for _ in range(2):
                with progress.stage("load", "loading"):
                    time.sleep(0.01)
            progress.expect(2)
            progress.step("image to motion")
        assert progress.seconds["load"] >= 0.02
        shown = capsys.readouterr().err
        assert shown == "" if quiet else "steps," in shown and "left" in shown
