"""What an object does: the verb, the words after it, and both as text."""

from __future__ import annotations

from dataclasses import dataclass

from ttm.planning import words as lexicon
from ttm.planning.noun_phrases import is_adverb
from ttm.planning.verb_forms import conjugate

_BESIDE = {"to the left of": "left", "to the right of": "right"}
_RESTING = frozenset("be stay stand sit lie rest remain wait sleep".split())


@dataclass(frozen=True)
class Predicate:
    """One action.

    Attributes:
        verb: base form.
        tail: the words after it ("through the grass"), directions already in their short form.
        adverbs: the words before it ("slowly").
        then: whether the sentence said that it comes after the action before it.
        moves: False for a verb that only says what something is or has.
    """

    verb: str
    tail: tuple[str, ...] = ()
    adverbs: tuple[str, ...] = ()
    then: bool = False
    moves: bool = True

    def negated(self) -> Predicate:
        """ "does not move" is "stays": no word in it that a model could obey wrongly."""
        if self.verb in ("move", "go"):
            return Predicate("stay", (), self.adverbs, self.then)
        return Predicate("do", ("not", self.verb, *self.tail), self.adverbs, self.then)

    def text(self, plural: bool, *, spatial: bool) -> str:
        """In the present tense, for one object or several; without ``spatial``, no word on where it happens."""
        tail = self.tail if spatial else _without_places(self.verb, self.tail)
        return " ".join((*self.adverbs, conjugate(self.verb, plural), *tail))


def shorten_directions(tail: list[str]) -> list[str]:
    """ "to the left side of the image" -> "left", "from left to right" -> "right", "towards the top" -> "up"."""
    result: list[str] = []
    index = 0
    while index < len(tail):
        length, direction = _from_side_to_side(tail, index)
        if not length:
            length, direction = _to_side(tail, index)
        result.append(direction if length else tail[index])
        index += length or 1
    return result


def _from_side_to_side(words: list[str], index: int) -> tuple[int, str]:
    if words[index] != "from":
        return 0, ""
    start = index + 1 + (words[index + 1 : index + 2] == ["the"])
    if words[start : start + 1] and words[start] in lexicon.SIDES:
        length, direction = _to_side(words, start + 1, article=False)
        if length:
            return start + 1 + length - index, direction
    return 0, ""


def _to_side(words: list[str], index: int, article: bool = True) -> tuple[int, str]:
    """Length and direction of "to the left (side) (of the image)" at a place; 0 where there is none."""
    if words[index : index + 1] and words[index] in ("to", "towards", "toward"):
        place = index + 1
        articles = ("the", "its", "his", "her", "their")
        if words[place : place + 1] and words[place] in articles:
            place += 1
        elif article:
            return 0, ""
        if words[place : place + 1] and words[place] in lexicon.SIDES:
            direction, place = lexicon.SIDES[words[place]], place + 1
            if words[place : place + 1] and words[place] in ("side", "edge", "hand", "part", "half"):
                place += 1
            if words[place : place + 1] == ["of"]:
                end = place + 1 + (words[place + 1 : place + 2] == ["the"])
                if not words[end : end + 1] or words[end] not in lexicon.PICTURE_NOUNS:
                    return 0, ""
                place = end + 1
            return place - index, direction
    return 0, ""


def describes_picture(words: tuple[str, ...]) -> bool:
    """Whether details of a noun say where in the picture it is ("on the left"), not what it looks like."""
    return (
        bool(words)
        and words[0] in lexicon.STATIC_PREPOSITIONS
        and words[0] != "in"
        or any(
            word in lexicon.PICTURE_NOUNS | {"left", "right", "middle", "center", "centre", "foreground", "distance"}
            for word in words
        )
    )


def _without_places(verb: str, tail: tuple[str, ...]) -> tuple[str, ...]:
    """Drop "in the park", "on the table", "next to the tree": a place, and not the way of a motion."""
    kept: list[str] = []
    dropping = False
    for index, word in enumerate(tail):
        if word in _BESIDE and verb not in _RESTING:
            kept.append(_BESIDE[word])
            dropping = True
        elif word in lexicon.STATIC_PREPOSITIONS:
            dropping = not _tells_motion(verb, tail, index)
        elif word in lexicon.PREPOSITIONS and word != "of" or word in lexicon.LINKS or is_adverb(word):
            dropping = False
        if not dropping:
            kept.append(word)
    while kept and kept[-1] in lexicon.LINKS:
        kept.pop()
    return tuple(kept)


def _tells_motion(verb: str, tail: tuple[str, ...], index: int) -> bool:
    is_particle = index + 1 == len(tail) or tail[index + 1] in lexicon.LINKS  # "turns on"
    if is_particle or (index > 0 and tail[index - 1] in lexicon.PREPOSITIONS):
        return True
    if tail[index] in ("on", "in") and verb in lexicon.GOAL_VERBS:
        return True
    following = tail[index + 1 : index + 4]
    return tail[index] == "in" and any(word in lexicon.MANNER_NOUNS for word in following)
