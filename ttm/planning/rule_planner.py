"""From a sentence to a plan by rules: :class:`RulePlanner`, a grammar of its own, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ttm.objects import MAX_OBJECTS, ObjectPrompt, PromptPlan
from ttm.planning import words as lexicon
from ttm.planning.clauses import Clause, ClauseReader
from ttm.planning.noun_phrases import NounPhrase, is_plural, plural_of
from ttm.planning.predicates import Predicate, describes_picture
from ttm.planning.tokens import EXAMPLE, checked_sentence, sentences

_PERSON_NOUNS = {"he": "man", "she": "woman"}


@dataclass(eq=False)
class _Object:
    """An object of the sentence while it is read."""

    words: tuple[str, ...]
    details: tuple[str, ...]
    plural: bool
    actions: list[Predicate] = field(default_factory=list)

    @property
    def phrase(self) -> str:
        return " ".join((*self.words, *self.details))

    def text(self, *, spatial: bool) -> str:
        details = () if not spatial and describes_picture(self.details) else self.details
        name = " ".join(("the", *self.words, *details))
        told: list[str] = []
        for action in [item for item in self.actions if item.moves] or self.actions:
            text = action.text(self.plural, spatial=spatial)
            if text not in told:
                told.append(f"then {text}" if action.then and told else text)
        return f"{name} {' and '.join(told)}"


class RulePlanner:
    """Takes a sentence apart by rules: English, several objects, no model.

    It understands several subjects of one verb ("the cat and the dog run left" is two objects), several verbs of one
    subject, pronouns (the latest object that fits; a first "he" is a man), clauses joined by "and", "while", ",",
    ";", "then", "as", requests ("make the ball move left", "move the truck to the right"), forms in "-ing", missing
    verbs ("and the blue square right"), and openings ("in the background, …", "a video of …").

    How it names things: articles, "my" and "one" fall away; "two dogs" stays one object with the phrase "two dogs";
    what follows a noun stays with it ("man in the red shirt"); an object named twice is one object ("a red ball …
    the ball …"), "another dog" and "the other one" are further ones. "does not move" becomes "stays". Things
    that are only acted on ("chases the cat") are no objects of their own; nor is the camera.
    """

    def plan(self, prompt: str) -> PromptPlan:
        """Take a sentence apart; see ``ttm.prompt_planner.PromptPlanner``.

        Raises:
            ValueError: not a text, over 400 words, no object that does something, or more than ``MAX_OBJECTS``.
        """
        split = sentences(checked_sentence(prompt))
        scene = _Scene()
        objects = [item for item in scene.read(split) if any(action.moves for action in item.actions)]
        if not objects:
            why = "".join(f" ({word!r} stands for nothing that was named)" for word in scene.unresolved[:1])
            raise ValueError(
                f"Found no object that does something in {prompt!r}{why}; expected who does what, such as {EXAMPLE!r}"
            )
        if len(objects) > MAX_OBJECTS:
            names = ", ".join(item.phrase for item in objects)
            raise ValueError(f"{prompt!r} names {len(objects)} objects ({names}); expected at most {MAX_OBJECTS}.")
        motion_prompt = ", ".join(item.text(spatial=False) for item in objects)
        found = tuple(ObjectPrompt(item.phrase, item.text(spatial=True)) for item in objects)
        return PromptPlan(prompt, motion_prompt, found)


class _Scene:
    """The objects that a text has named so far."""

    def __init__(self) -> None:
        self.objects: list[_Object] = []
        self.latest: list[_Object] = []
        self.unresolved: list[str] = []

    def read(self, split: Sequence[list[str]]) -> list[_Object]:
        last_verb = ""
        for words in split:
            reader = ClauseReader(words, last_verb)
            for clause in reader.read():
                self._add(clause)
            last_verb = reader.last_verb
        return self.objects

    def _add(self, clause: Clause) -> None:
        subjects: list[_Object] = []
        denied = [action.negated() for action in clause.predicates]  # "no ball moves"
        for phrase in clause.subjects:
            if any(word in lexicon.PICTURE_NOUNS | lexicon.NOBODY for word in phrase.words):
                continue
            for item in self._resolve(phrase, clause):
                if item in subjects:
                    continue
                subjects.append(item)
                if item not in self.objects:
                    self.objects.append(item)
                item.actions += denied if phrase.determiner == "no" else clause.predicates
        self.latest = subjects or self.latest

    def _resolve(self, phrase: NounPhrase, clause: Clause) -> list[_Object]:
        if phrase.pronoun:
            found = self._referents(phrase)
            self.unresolved += () if found else phrase.words
            return found
        words = self._with_noun(phrase.words)
        same = [item for item in self.objects if _names_same(item, words, phrase)]
        if same:
            return [same[-1]]
        plural = phrase.number == "plural"
        return [_Object(words, phrase.details, plural)]

    def _with_noun(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """ "the other", "the blue one": the noun of the latest object."""
        if not self.objects or words[-1] not in ("one", "other", "ones", "others"):
            return words
        noun = self.objects[-1].words[-1]
        if words[-1].endswith("s") and not is_plural(noun):
            noun = plural_of(noun)
        return (*words[:-1], noun) if words[-1].startswith("one") else (*words[:-1], "other", noun)

    def _referents(self, phrase: NounPhrase) -> list[_Object]:
        word = phrase.words[0]
        if word.startswith("every"):
            return list(self.objects)
        if word in ("they", "both"):
            if len(self.latest) > 1:
                return self.latest
            several = [item for item in self.objects if item.plural]
            if word == "they" and several:
                return several[-1:]
            return self.objects[-2:]
        single = [item for item in self.objects if not item.plural]
        if word in _PERSON_NOUNS and not single:
            return [_Object((_PERSON_NOUNS[word],), (), False)]
        # The one that fits best; among those the latest.
        recent = sorted(single, key=lambda item: (_fit(word, item), any(item is other for other in self.latest)))
        return recent[-1:]


def _fit(pronoun: str, item: _Object) -> int:
    """How well "it", "he" or "she" fits an object: 0 hardly, 1 well, 2 exactly."""
    kinds = {"he": lexicon.MALE, "she": lexicon.FEMALE}
    is_person = any(word in lexicon.PERSONS for word in item.words)
    if pronoun not in kinds:
        return int(not is_person)
    if any(word in kinds[pronoun] for word in item.words):
        return 2
    return int(is_person and not any(word in lexicon.MALE | lexicon.FEMALE for word in item.words))


def _names_same(item: _Object, words: tuple[str, ...], phrase: NounPhrase) -> bool:
    """Whether a phrase names an object that is known: in the same words, or "the ball" for "red ball"."""
    if phrase.determiner == "another":
        return False
    if item.words == words and (item.details == phrase.details or not phrase.details):
        return True
    definite = phrase.determiner in ("the", "this", "that", "these", "those", "its", "his", "her", "their")
    shorter = len(words) < len(item.words) and item.words[-len(words) :] == words
    return definite and shorter and not phrase.details and item.words[0] != "other"
