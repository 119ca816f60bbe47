"""What a language model answers, as one schema: it constrains the model, and what comes back is read by it.

The model names each object and says what it does; the prompts are put together here, so that they have the form
that the models were trained on whatever the language model's style is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ttm.objects import MAX_OBJECTS, ObjectPrompt, PromptPlan

LONGEST_TEXT = 100_000
"""Characters of an answer that are looked at: a plan has a few hundred."""
_PHRASE, _ACTION = 60, 200  # longest texts, in characters
_FOREIGN = re.compile(r"[^a-z0-9 ,'&/-]+")
_ARTICLE = re.compile(r"^(?:the|an?) (?=.)")


def _in_our_letters(value: Any) -> Any:
    """A text as the schema wants it: lower case, no accents, no period, single spaces."""
    if not isinstance(value, str):
        return value
    text = unicodedata.normalize("NFKD", value.lower().replace("\u2019", "'"))
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(_FOREIGN.sub(" ", text).split()).strip(" ,&/-'")


def _words(most: int) -> Any:
    """A text of 1..most characters, of those that a plan is written in."""
    return StringConstraints(pattern=rf"^[a-z0-9][a-z0-9 ,'&/-]{{0,{most - 1}}}$")


class _AnsweredObject(BaseModel):
    model_config = ConfigDict(extra="forbid")

    phrase: Annotated[str, _words(_PHRASE), BeforeValidator(_in_our_letters)]
    action: Annotated[str, _words(_ACTION), BeforeValidator(_in_our_letters)]
    motion: Annotated[str, _words(_ACTION), BeforeValidator(_in_our_letters)]

    @property
    def name(self) -> str:
        """The phrase without an article."""
        return _ARTICLE.sub("", _clean(self.phrase))

    def does(self, *, spatial: bool) -> str:
        """What it does, without its name before it."""
        text = _clean(self.action if spatial else self.motion)
        return _ARTICLE.sub("", text).removeprefix(f"{self.name} ") or text


class PlanAnswer(BaseModel):
    """The objects that move, in the order of the sentence."""

    model_config = ConfigDict(extra="forbid")

    objects: Annotated[list[_AnsweredObject], Field(min_length=1, max_length=MAX_OBJECTS)]

    def plan(self, prompt: str) -> PromptPlan:
        """The plan of a sentence. An object that was named twice is one, which does both."""
        actions: dict[str, list[str]] = {}
        motions: dict[str, list[str]] = {}
        for item in self.objects:
            for told, text in ((actions, item.does(spatial=True)), (motions, item.does(spatial=False))):
                if text not in told.setdefault(item.name, []):
                    told[item.name].append(text)
        prompts = {name: f"the {name} {' and '.join(texts)}" for name, texts in actions.items()}
        motion_prompt = ", ".join(f"the {name} {' and '.join(texts)}" for name, texts in motions.items())
        return PromptPlan(prompt, motion_prompt, tuple(ObjectPrompt(*item) for item in prompts.items()))


def _clean(text: str) -> str:
    """What remains of a text that keeps to the schema, once stray spaces and commas are gone: never nothing."""
    return str(_in_our_letters(text))


@cache
def answer_schema() -> dict[str, Any]:
    """The JSON schema that an answer keeps to."""
    return PlanAnswer.model_json_schema()


def longest_answer() -> int:
    """Characters of the longest answer without white space. No token is shorter than one, so this many suffice."""
    item = {name: most * "x" for name, most in (("phrase", _PHRASE), ("action", _ACTION), ("motion", _ACTION))}
    return len(json.dumps({"objects": MAX_OBJECTS * [item]}, separators=(",", ":")))


def read_answer(text: str) -> PlanAnswer:
    """Read an answer: the JSON object with "objects" in a text, the last one if there are several.

    Models that nothing constrains talk around their JSON, fence it, or think aloud first.

    Raises:
        ValueError: no such object, or it does not keep to the schema; says where.
    """
    found = [value for value in _json_objects(text[:LONGEST_TEXT]) if "objects" in value]
    if not found:
        shown = " ".join(text.split())[:120]
        raise ValueError(f"the answer {shown!r} holds no JSON object with the key 'objects'")
    try:
        return PlanAnswer.model_validate(found[-1])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where or 'the answer'} does not keep to the schema: {first['msg']}") from error


def _json_objects(text: str) -> list[dict[str, Any]]:
    decoder, found, place = json.JSONDecoder(), [], text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            found.append(value)
        except json.JSONDecodeError:
            end = place + 1
        except RecursionError:  # nothing that a model means; each further brace would cost as much
            break
        place = text.find("{", end)
    return found
