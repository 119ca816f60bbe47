"""What a language model says, read into a plan: the form of the prompts, and answers that are no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("pydantic", reason="needs the extra llm")

from ttm.objects import MAX_OBJECTS
from ttm.planning.plan_answer import answer_schema, longest_answer, read_answer

BALL = {"phrase": "red ball", "action": "moves left on the table", "motion": "moves left"}
DOGS = {"phrase": "two dogs", "action": "jump", "motion": "jump"}


def said(*objects: dict[str, Any], **more: Any) -> str:
    return json.dumps({"objects": list(objects), **more})


def test_prompts_have_the_form_that_the_models_were_trained_on() -> None:
    plan = read_answer(said(BALL, DOGS)).plan("Any words.")
    assert plan.prompt == "Any words."
    assert plan.phrases == ["red ball", "two dogs"]
    assert plan.local_prompts == ["the red ball moves left on the table", "the two dogs jump"]
    assert plan.motion_prompt == "the red ball moves left, the two dogs jump"


@pytest.mark.parametrize(
    ("phrase", "action", "local_prompt"),
    [
        ("The Red Ball", "Moves left.", "the red ball moves left"),
        ("an apple", "the apple falls down", "the apple falls down"),
        ("  café  table ", "doesn’t\nmove!", "the cafe table doesn't move"),
        ("the", "a b", "the the b"),
        ("x", ", spins ,", "the x spins"),
    ],
)
def test_texts_are_brought_into_shape(phrase: str, action: str, local_prompt: str) -> None:
    plan = read_answer(said({"phrase": phrase, "action": action, "motion": action})).plan("…")
    assert plan.local_prompts == [local_prompt] and plan.motion_prompt == local_prompt


def test_an_object_that_is_named_twice_is_one_that_does_both() -> None:
    again = {"phrase": "the red ball", "action": "turns green", "motion": "moves left"}
    plan = read_answer(said(BALL, DOGS, again)).plan("…")
    assert plan.phrases == ["red ball", "two dogs"]
    assert plan.local_prompts[0] == "the red ball moves left on the table and turns green"
    assert plan.motion_prompt == "the red ball moves left, the two dogs jump"


@pytest.mark.parametrize(
    "text",
    [
        f"Sure! Here it is:\n```json\n{said(BALL)}\n```\nAnything else?",
        f'<think>Is it {{"objects": []}} or {{x}}?</think>{said(BALL)}',
        json.dumps(json.loads(said(BALL)), indent=4),
    ],
)
def test_json_is_found_in_what_models_say_around_it(text: str) -> None:
    assert read_answer(text).plan("…").phrases == ["red ball"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON object"),
        ("I can't help with that.", "I can't help with that"),
        (said(BALL)[:-5], "no JSON object"),
        ('{"a":' * 50_000, "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"objects": "ball"}', "objects does not keep to the schema"),
        (said(), "objects does not keep"),
        (said(*[{**BALL, "phrase": f"ball {n}"} for n in range(MAX_OBJECTS + 1)]), "objects does not keep"),
        (said({"phrase": "ball", "action": "rolls"}), r"objects\.0\.motion .*required"),
        (said({**BALL, "colour": "red"}), r"objects\.0\.colour"),
        (said({**BALL, "phrase": 7}), r"objects\.0\.phrase"),
        (said({**BALL, "phrase": "!?"}), r"objects\.0\.phrase"),
        (said({**BALL, "action": "x" * 201}), r"objects\.0\.action"),
        (said(BALL, note="hi"), "note"),
    ],
)
def test_what_is_no_answer(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_answer(text)


def test_the_schema_is_of_the_kind_that_servers_call_strict() -> None:
    schema = answer_schema()
    item = next(iter(schema["$defs"].values()))
    for each in (schema, item):
        assert each["additionalProperties"] is False and set(each["required"]) == set(each["properties"])


def test_no_answer_is_longer_than_the_longest() -> None:
    widest = {name: "x" * kind for name, kind in (("phrase", 60), ("action", 200), ("motion", 200))}
    text = json.dumps({"objects": [widest] * MAX_OBJECTS}, separators=(",", ":"))
    assert len(text) == longest_answer()
    read_answer(text)
    with pytest.raises(ValueError, match="does not keep"):
        read_answer(text.replace("x" * 60, "x" * 61, 1))
