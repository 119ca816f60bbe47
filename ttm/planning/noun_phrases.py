"""Noun phrases, and where the verb after them begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ttm.planning import words as lexicon
from ttm.planning.verb_forms import guess_base, readings, third_person

Number = Literal["singular", "plural", "any"]
Mode = Literal["finite", "bare", "none"]
"""What may follow a noun phrase: "the dog runs", "(make) the dog run", "(move) the dog": no verb."""


_PLURALS = {"person": "people", "child": "children", "mouse": "mice", "goose": "geese"}


@dataclass(frozen=True)
class NounPhrase:
    """What a clause is about.

    Attributes:
        words: without article; for a pronoun the pronoun alone.
        number: "any" where the verb decides ("the sheep run").
        determiner: the article, possessive or "another" that stood before it, or "".
        details: what follows the noun and tells which one is meant ("in the red shirt").
        pronoun: whether it stands for something that was named before.
    """

    words: tuple[str, ...]
    number: Number
    determiner: str = ""
    details: tuple[str, ...] = ()
    pronoun: bool = False


class NounPhraseReader:
    """Reads noun phrases out of the words of one sentence."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def at(self, index: int) -> str:
        """The word at a place; "" after the end."""
        return self.words[index] if 0 <= index < len(self.words) else ""

    def skip_adverbs(self, index: int) -> int:
        """The place of the first word that is no adverb and no negation."""
        while is_adverb(self.at(index)) or self.at(index) in lexicon.NEGATIONS:
            index += 1
        return index

    def action_at(self, index: int, number: Number, mode: Mode = "finite") -> bool:
        """Whether a verb that agrees with the subject, perhaps after adverbs, begins here."""
        return mode != "none" and self._verb_fits(self.skip_adverbs(index), number, mode)

    def _verb_fits(self, index: int, number: Number, mode: Mode) -> bool:
        word, after = self.at(index), self.at(self.skip_adverbs(index + 1))
        if word in lexicon.MODALS:  # "the can rolls" has none
            return "base" in readings(after) or after in ("be", "have")
        if mode == "bare" and word == "to":
            return "base" in readings(after) or after == "be"
        if word in lexicon.SINGULAR_AUXILIARIES:
            return number != "plural"
        if word in lexicon.PLURAL_AUXILIARIES:
            return number != "singular"
        kinds = readings(word)
        if word in lexicon.DO_FORMS or word in lexicon.HAVE_FORMS:
            return True
        if "base" in kinds and (number != "singular" or mode == "bare"):
            return True
        return ("third" in kinds and number != "plural") or "ing" in kinds or "past" in kinds

    def unlisted_verb_at(self, index: int) -> bool:
        """Whether a word must be a verb, though no list holds it: "the dog zorps left"."""
        return guess_base(self.at(index)) is not None and not self._action_later(index)

    def noun_phrase(self, index: int, mode: Mode = "finite", joined: bool = False) -> tuple[NounPhrase, int] | None:
        """Read one noun phrase without its details.

        Args:
            index: where it begins.
            mode: what may follow it.
            joined: it comes after "and", so that a plural verb may follow ("the cat and the dog run").

        Returns:
            the phrase and the place after it, or None.
        """
        if self.at(index) in lexicon.PRONOUNS:
            return self._pronoun(index, mode)
        start, determiner, numerals = self._determiner(index)
        found: list[str] = ["other"] if determiner == "another" else []
        found += numerals
        after_of = False
        place = start
        while word := self.at(place):
            bare_start = not found and not determiner
            if self._joins_adjectives(found, place):
                found += ["and"] if word == "and" else []
            elif word == "of" and _has_noun(found):
                after_of = True
                found.append(word)
                place += self.at(place + 1) in lexicon.DETERMINERS | lexicon.POSSESSIVES
            elif _never_in_noun_phrase(word):
                break
            elif _has_noun(found):
                if self._noun_ends(place, _number(found, determiner, joined), mode):
                    break
                found.append(word)
            elif self._may_begin(place, found, bare_start):
                found.append(word)
            else:
                break
            place += 1
        if not found or found == ["other"] and determiner != "another" and not self.action_at(place, "any", mode):
            return None
        if not determiner and not _has_noun(found):
            return None
        if after_of and found[-1] == "of":
            return None
        return NounPhrase(tuple(found), _number(found, determiner, False), determiner), place

    def _pronoun(self, index: int, mode: Mode) -> tuple[NounPhrase, int] | None:
        word = self.at(index)
        number: Number = "plural" if lexicon.PRONOUNS[word] == "plural" else "singular"
        if word.startswith("every"):
            number = "singular"  # "everything moves", although it stands for several
        if word == "both" and mode != "none" and not self.action_at(index + 1, "plural", mode):
            return self.noun_phrase(index + 1, mode)
        return NounPhrase((word,), number, pronoun=True), index + 1

    def _determiner(self, index: int) -> tuple[int, str, list[str]]:
        determiner, numerals = "", []
        while self.at(index) in ("all", "both", "each", "half"):
            index += 1
            if self.at(index) == "of":
                index += 1
        if self.at(index) in lexicon.DETERMINERS | lexicon.POSSESSIVES:
            determiner, index = self.at(index), index + 1
        if self.at(index) == "one" and not determiner:
            determiner, index = "one", index + 1
        if self.at(index) in lexicon.NUMERALS or self.at(index).isdigit():
            numerals, index = [self.at(index)], index + 1
        return index, determiner, numerals

    def _joins_adjectives(self, found: list[str], place: int) -> bool:
        """ "a black and white cat", "a big, red ball"."""
        if self.at(place) not in ("and", ",") or not found or _has_noun(found):
            return False
        return is_adjective(self.at(place + 1)) and is_adjective(found[-1])

    def _may_begin(self, place: int, found: list[str], bare_start: bool) -> bool:
        """Whether a word can be an adjective or the noun of a phrase that has no noun yet."""
        word, kinds = self.at(place), readings(self.at(place))
        if is_adjective(word):
            return not (bare_start and word in lexicon.DIRECTION_WORDS)
        if word in lexicon.DIRECTION_WORDS:
            return False
        if is_adverb(word):  # "a brightly coloured ball"
            after = self.at(place + 1)
            return is_adjective(after) or bool({"ing", "past"} & set(readings(after)))
        if bare_start:  # "waves crash" and "snow falls", but neither "moves left" nor "move left"
            following = readings(self.at(place + 1))
            return not kinds or ("third" in kinds and "base" in following) or ("base" in kinds and "third" in following)
        if "third" in kinds and found:  # "the red circles move" against "the orange rolls"
            return self._action_later(place + 1)
        return True

    def _noun_ends(self, place: int, number: Number, mode: Mode) -> bool:
        """Whether a phrase that has its noun ends before this word."""
        word = self.at(place)
        if word in lexicon.COLOUR_WORDS or word in lexicon.DIRECTION_WORDS or is_adverb(word):
            return True
        if mode != "none" and self._verb_fits(place, number, mode):
            kinds = readings(word)
            after = readings(self.at(place + 1))
            compound = ("third" in kinds or "base" in kinds) and "base" in after  # "the car wheels spin"
            return not compound or "past" in kinds or "ing" in kinds
        return mode == "finite" and number != "plural" and self.unlisted_verb_at(place)

    def _action_later(self, place: int) -> bool:
        """Whether any verb follows before the clause can end."""
        while (word := self.at(place)) and word not in lexicon.LINKS:
            if readings(word) or word in lexicon.BE_FORMS | lexicon.HAVE_FORMS | lexicon.DO_FORMS:
                return True
            place += 1
        return False


def is_adverb(word: str) -> bool:
    """Whether a word is one of the list, or ends like an adverb."""
    return word in lexicon.ADVERBS or (word.endswith("ly") and word not in lexicon.NOT_ADVERBS and len(word) > 3)


def is_adjective(word: str) -> bool:
    """Whether a word is a listed adjective, a number, or the first half of a compound ("two-legged")."""
    return word in lexicon.ADJECTIVES or word in lexicon.NUMERALS or word.isdigit() or word.endswith("-coloured")


def is_plural(noun: str) -> bool:
    """Whether a noun that is not in the list of irregular ones ends like a plural."""
    if noun in lexicon.IRREGULAR_PLURALS:
        return True
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in lexicon.SINGULAR_IN_S


def plural_of(noun: str) -> str:
    """ "kid" -> "kids", "woman" -> "women"."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    return noun[:-3] + "men" if noun.endswith("man") else third_person(noun)  # nouns take -s as verbs do


def _has_noun(found: list[str]) -> bool:
    if not found:
        return False
    last = found[-1]
    if last in ("and", "of") or is_adjective(last) or is_adverb(last):
        return "of" in found and last != "of" and not is_adjective(last)
    # Participles before the noun: "the parked car", "a running dog".
    return not ({"ing", "past"} & set(readings(last)) and "base" not in readings(last))


def _never_in_noun_phrase(word: str) -> bool:
    closed = lexicon.LINKS | lexicon.PREPOSITIONS | lexicon.RELATIVES | lexicon.DETERMINERS | lexicon.NEGATIONS
    auxiliaries = lexicon.BE_FORMS | lexicon.HAVE_FORMS | lexicon.DO_FORMS
    return word in closed | auxiliaries | set(lexicon.PRONOUNS) | {"him", "them", "there"} | lexicon.POSSESSIVES


def _number(found: list[str], determiner: str, joined: bool) -> Number:
    if joined:
        return "any"
    if found[:1] and (found[0] in lexicon.NUMERALS or (found[0].isdigit() and found[0] != "1")):
        return "plural"
    if determiner in lexicon.PLURAL_DETERMINERS:
        return "plural"
    head = found[found.index("of") - 1] if "of" in found else found[-1] if found else ""
    if head in lexicon.GROUP_NOUNS or head in lexicon.UNCHANGED_NOUNS:
        return "singular" if determiner in lexicon.SINGULAR_DETERMINERS and "of" not in found else "any"
    if determiner in lexicon.SINGULAR_DETERMINERS:
        return "singular"
    return "plural" if is_plural(head) else "singular"
