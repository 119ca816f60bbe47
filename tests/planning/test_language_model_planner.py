"""LanguageModelPlanner against a real server: good answers, bad ones, none; the cache; the rules as a fallback."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="needs the extra llm")

from tests.planning.chat_protocol import DROP, HALF, HANG, ScriptedServer, serving
from ttm.objects import MAX_OBJECTS
from ttm.planning.language_model_planner import NoPlanError, PlannerFallbackWarning
from ttm.prompt_planner import LanguageModelPlanner, PromptPlanner, RulePlanner

SENTENCE = "Der rote Ball rollt nach links."
GOOD = json.dumps({"objects": [{"phrase": "red ball", "action": "rolls left", "motion": "rolls left"}]})
REFUSED = (400, json.dumps({"error": {"message": "response_format is not supported"}}))
OVERLOADED = (500, json.dumps({"error": {"message": "out of memory"}}))


def asking(server: ScriptedServer, **settings: Any) -> LanguageModelPlanner:
    return LanguageModelPlanner("scripted", server=server.url, **{"cache": False, "timeout": 20.0, **settings})


def test_a_good_answer() -> None:
    with serving(GOOD) as server:
        planner = asking(server)
        plan = planner.plan(SENTENCE)
    assert isinstance(planner, PromptPlanner) and planner.answered_by == "language model"
    assert (plan.prompt, plan.phrases, plan.motion_prompt) == (SENTENCE, ["red ball"], "the red ball rolls left")
    (request,) = server.requests
    assert request["model"] == "scripted" and request["temperature"] == 0
    assert request["response_format"]["json_schema"]["schema"]["properties"].keys() == {"objects"}
    question = request["messages"][0]["content"]
    assert question.rstrip().endswith(f"Words: {SENTENCE}") and f"at most\n  {MAX_OBJECTS}." in question


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OUR_KEY", "secret")
    with serving(GOOD) as server:
        asking(server).plan(SENTENCE)
        asking(server, api_key_variable="OUR_KEY").plan(SENTENCE)
    assert server.keys == ["Bearer none", "Bearer secret"]


def test_a_server_that_knows_no_schema_is_asked_without_one(caplog: pytest.LogCaptureFixture) -> None:
    with serving(REFUSED, f"Here you are: {GOOD}") as server, caplog.at_level(logging.WARNING, "ttm"):
        planner = asking(server)
        assert planner.plan(SENTENCE).phrases == ["red ball"]
        planner.plan("Something else moves.")
    assert ["response_format" in request for request in server.requests] == [True, False, False]
    assert "response_format is not supported" in caplog.text


def test_a_wrong_answer_is_sent_back_with_what_was_wrong() -> None:
    with serving('{"objects": []}', GOOD) as server:
        assert asking(server).plan(SENTENCE).phrases == ["red ball"]
    first, second = (request["messages"] for request in server.requests)
    assert second[:2] == [*first, {"role": "assistant", "content": '{"objects": []}'}]
    assert "objects does not keep to the schema" in second[2]["content"]


@pytest.mark.parametrize(
    "garbage", ["I would rather talk about cats.", (200, "<html>proxy</html>"), (200, "[]"), (200, '{"choices": []}')]
)
def test_garbage_is_one_error_after_the_retries(garbage: Any) -> None:
    with serving(garbage) as server, pytest.raises(NoPlanError, match="gave no plan in 2 answers: the answer"):
        asking(server, retries=1).plan(SENTENCE)
    assert len(server.requests) == 2


@pytest.mark.parametrize("failure", [OVERLOADED, DROP, HALF], ids=["500", "dropped", "half"])
def test_a_failure_is_tried_again(failure: Any) -> None:
    with serving(failure, GOOD) as server:
        assert asking(server, retries=1).plan(SENTENCE).phrases == ["red ball"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OVERLOADED, "failed .500: .*out of memory.*; 1 tries"),
        (DROP, "can't be reached or hung up"),
        (HALF, "can't be reached or hung up"),
        (REFUSED, "refuses the request"),
        ((401, "{}"), r"refuses the key .*\$OPENAI_API_KEY"),
        ((404, "{}"), "has no 'scripted'"),
    ],
    ids=["500", "dropped", "half", "400", "401", "404"],
)
def test_a_failure_that_stays_is_one_error(failure: Any, message: str) -> None:
    with serving(failure) as server, pytest.raises(NoPlanError, match=f"^{server.url} {message}"):
        asking(server, retries=0).plan(SENTENCE)


def test_a_server_that_hangs_is_given_up() -> None:
    with serving(HANG) as server, pytest.raises(NoPlanError, match=r"did not answer within 0\.2 s \(2 tries\)"):
        asking(server, timeout=0.2, retries=1).plan(SENTENCE)


def test_nobody_there() -> None:
    with serving(GOOD) as server:
        pass
    with pytest.raises(NoPlanError, match="can't be reached"):
        asking(server, retries=0).plan(SENTENCE)


def test_the_rules_only_when_asked_for_and_said_so() -> None:
    sentence = "The cat and the dog run left."
    with serving("no") as server:
        planner = asking(server, retries=0, fallback="rules")
        with pytest.warns(PlannerFallbackWarning, match="gave no plan in 1 answers.*The rules made this plan"):
            assert planner.plan(sentence) == RulePlanner().plan(sentence)
    assert planner.answered_by == "rules"


def test_a_plan_is_kept(tmp_path: Path) -> None:
    with serving(GOOD) as server:
        first = asking(server, cache=tmp_path / "plans")
        made = first.plan(SENTENCE)
    again = asking(server, cache=tmp_path / "plans", retries=0)  # the server is gone
    assert again.plan(SENTENCE) == made and again.answered_by == "cache" and first.answered_by == "language model"
    (kept,) = (tmp_path / "plans").iterdir()
    assert json.loads(kept.read_text())["key"]["prompt"] == SENTENCE
    kept.write_text(kept.read_text()[:-20])
    with pytest.raises(NoPlanError, match="can't be reached"):  # a damaged file counts as none
        again.plan(SENTENCE)


def test_what_a_plan_depends_on_is_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Costs $$1. Take apart: $prompt")
    with serving(GOOD) as server:
        for settings in ({}, {"template": tmp_path / "own.txt"}, {"options": {"max_tokens": 99}}, {}):
            asking(server, cache=tmp_path / "plans", **settings).plan(SENTENCE)
    assert len(server.requests) == 3
    assert server.requests[1]["messages"][0]["content"] == f"Costs $1. Take apart: {SENTENCE}"
    assert server.requests[2]["max_tokens"] == 99 and "temperature" not in server.requests[2]


def test_rules_are_not_kept_as_a_language_models_plan(tmp_path: Path) -> None:
    with serving("no", GOOD) as server:
        planner = asking(server, cache=tmp_path, retries=0, fallback="rules")
        with pytest.warns(PlannerFallbackWarning):
            planner.plan("The cat runs.")
        assert planner.plan("The cat runs.").phrases == ["red ball"]


def test_a_cache_that_cannot_be_written_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with serving(GOOD) as server, caplog.at_level(logging.WARNING, "ttm"):
        assert asking(server, cache=tmp_path / "file" / "plans").plan(SENTENCE).phrases == ["red ball"]
    assert "not kept for next time" in caplog.text


@pytest.mark.parametrize("prompt", ["", "  ", None, "word " * 401])
def test_bad_sentences_are_not_sent(prompt: Any) -> None:
    with serving(GOOD) as server, pytest.raises(ValueError, match="The prompt"):
        asking(server).plan(prompt)
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": " "}, "model is"),
        ({"server": "localhost:8000"}, "server is"),
        ({"timeout": 0}, "timeout is"),
        ({"retries": -1}, "retries is"),
        ({"fallback": "luck"}, "fallback is"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageModelPlanner(**{"model": "m", "server": "http://localhost:1/v1", **settings})


@pytest.mark.parametrize(("text", "message"), [("no place", r"no \$prompt"), ("$prompt $who", "stands for nothing")])
def test_bad_templates(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        LanguageModelPlanner("m", server="http://localhost:1/v1", template=tmp_path / "own.txt")
    with pytest.raises(FileNotFoundError, match="expected a text"):
        LanguageModelPlanner("m", server="http://localhost:1/v1", template=tmp_path / "none.txt")
