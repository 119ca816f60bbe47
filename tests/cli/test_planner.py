"""``--planner llm``: a server's plan in ``ttm plan`` and ``ttm generate``, and the one line when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="needs the extra llm")

from tests.planning.chat_protocol import serving
from ttm.cli import main
from ttm.prompt_planner import RulePlanner

OBJECTS = [
    {"phrase": "red ball", "action": "moves left", "motion": "moves left"},
    {"phrase": "blue square", "action": "stays", "motion": "stays"},
]
GOOD = json.dumps({"objects": OBJECTS})
SENTENCE = "Der rote Ball rollt nach links, das blaue Quadrat bleibt."


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_plan_asks_a_server_and_keeps_its_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with serving(GOOD) as server:
        words = ["plan", SENTENCE, "--json", "--planner", "llm", "--llm-model", "m", "--llm-server", server.url]
        assert main(words) == 0 and main(words) == 0
    assert len(server.requests) == 1 and len(list(tmp_path.glob("cache/through-the-mask/plans/*.json"))) == 1
    shown = capsys.readouterr()
    assert shown.out.count('"red ball"') == 2 and shown.err == ""


def test_generate_plans_by_a_server_and_says_so(
    ttm: Callable[..., int], picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(GOOD) as server:
        options = ("--planner", "llm", "--llm-model", "m", "--llm-server", server.url, "--steps", "1")
        assert ttm("generate", picture, SENTENCE, "-o", tmp_path / "out", *options) == 0, capsys.readouterr().err
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert plan["prompt"] == SENTENCE and plan["motion_prompt"] == "the red ball moves left, the blue square stays"
    told = json.loads((tmp_path / "out/run.json").read_text())["inputs"]["planner"]
    assert told == {"language_model": "m", "server": server.url, "answered_by": "language model"}


def test_the_rules_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "The cat runs left."
    with serving((401, "{}")) as server:
        words = ["plan", sentence, "--planner", "llm", "--llm-model", "m", "--llm-server", server.url]
        assert main(words) == 1
        failed = capsys.readouterr()
        assert failed.err.startswith(f"ttm plan: error: {server.url} refuses the key") and failed.err.count("\n") == 1
        assert main([*words, "--llm-fallback", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == RulePlanner().plan(sentence).to_dict()
    assert shown.err.startswith("ttm plan: warning: ") and "The rules made this plan." in shown.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--llm-model", "m"], 2, "expected --planner llm beside it"),
        (["--planner", "llm"], 2, "--llm-model is missing"),
        (["--planner", "llm", "--llm-model", "m", "--llm-server", "localhost"], 1, "expected a URL"),
        (["--planner", "llm", "--llm-model", "m", "--llm-template", "none.txt"], 1, "none.txt is no file"),
        (["--planner", "llm", "--llm-model", "nowhere"], 1, "no language model 'nowhere'"),
    ],
)
def test_options_that_do_not_work(
    options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "The cat runs.", *options]) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_a_plan_and_a_language_model_are_one_too_many(
    forbidden_ttm: Callable[..., int], picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--plan", "p.json", "--planner", "llm", "--llm-model", "m")
    assert forbidden_ttm("generate", picture, "-o", tmp_path / "out", *options) == 2
    assert "expected one of them" in capsys.readouterr().err
