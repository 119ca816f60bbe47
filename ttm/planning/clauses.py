"""Clauses of a sentence: who does what. Rules, read left to right, with a look ahead at every "and"."""

from __future__ import annotations

from dataclasses import dataclass, field

from ttm.planning import words as lexicon
from ttm.planning.noun_phrases import Mode, NounPhrase, Number, is_adverb
from ttm.planning.predicates import Predicate, shorten_directions
from ttm.planning.subjects import SubjectReader
from ttm.planning.verb_forms import guess_base, readings


@dataclass
class Clause:
    """Subjects that do the same things; without predicates, things that were only named."""

    subjects: list[NounPhrase]
    predicates: list[Predicate] = field(default_factory=list)
    mode: Mode = "finite"

    @property
    def number(self) -> Number:
        """What a further verb has to agree with."""
        if len(self.subjects) > 1:
            return "any"  # "the cat and the dog runs" is read too
        return self.subjects[0].number


class ClauseReader(SubjectReader):
    """Reads the clauses of one sentence.

    Args:
        words: of one sentence, as :func:`ttm.planning.tokens.sentences` gives them.
        last_verb: the verb of the sentence before, for "the ball moves left; the square right".
    """

    def __init__(self, words: list[str], last_verb: str = "") -> None:
        super().__init__(words)
        self.last_verb = last_verb
        self.mode: Mode = "finite"  # "bare" once the sentence asked to make something do something

    def read(self) -> list[Clause]:
        """All clauses; words that fit no rule are passed over."""
        clauses: list[Clause] = []
        index = 0
        while index < len(self.words):
            index, then = self.skip_links(index)
            current = clauses[-1] if clauses else None
            if current and current.predicates and self._goes_on(index, current):
                predicate, index = self._predicate(index, current.number, _bare(current.mode), then)
                current.predicates.append(predicate)
                continue
            found = self._clause(index)
            if found is None:
                index += 1
                continue
            clause, index = found
            if then and clause.predicates:
                first = clause.predicates[0]
                clause.predicates[0] = Predicate(first.verb, first.tail, first.adverbs, True, first.moves)
            if clauses and _repeats(clause):
                clause.predicates = list(clauses[-1].predicates)
            clauses.append(clause)
        return clauses

    def _goes_on(self, index: int, current: Clause) -> bool:
        """Whether a further action of the current subjects begins here."""
        if current.mode != "finite" and self.imperative_at(index):
            return False
        return self.action_at(index, current.number, _bare(current.mode))

    def _clause(self, index: int) -> tuple[Clause, int] | None:
        index = self.skip_opening(index)
        if not self.at(index):
            return None
        if self.at(index) in lexicon.SPEAKERS:
            while self.at(index) and self.at(index) not in lexicon.MAKING_VERBS | {"see"}:
                index += 1
        verb = readings(self.at(index)).get("base", "")
        if verb in lexicon.MAKING_VERBS and self.object_at(index + 1):
            return self._making(index + 1)
        if verb in lexicon.SHOWING_VERBS and self.noun_phrase(index + 1):
            return self._clause(index + 1)
        if verb in lexicon.CAMERA_VERBS and not self.object_at(index + 1):
            return None
        if self.imperative_at(index):
            return self._imperative(index)
        found = self.subjects(index, self.mode)
        if found is None:
            return None
        subjects, place = found
        clause = Clause(subjects, mode=self.mode)
        after, then = self.skip_links(place)  # "it then moves right"
        if self.action_at(after, clause.number, self.mode) or self.unlisted_verb_at(place):
            predicate, place = self._predicate(after, clause.number, self.mode, then)
            clause.predicates.append(predicate)
            return clause, place
        return self._without_verb(index) or (clause, place)

    def _imperative(self, index: int) -> tuple[Clause, int]:
        verb = readings(self.at(index))["base"]
        verb = lexicon.WHAT_THE_OBJECT_DOES.get(verb, verb)
        subjects, place = self.objects(index + 1, "none")
        self.last_verb = verb
        tail, place = self._tail(place, Clause(subjects, mode="none"), False)
        clause = Clause(subjects, mode="none")
        clause.predicates.append(_finish(verb, tail, (), False))
        return clause, place

    def _making(self, index: int) -> tuple[Clause, int] | None:
        """ "make the ball move left", "I want the dog to jump", "make it bigger"."""
        self.mode = "bare"
        subjects, place = self.objects(index, "bare")
        clause = Clause(subjects, mode="bare")
        if self.action_at(place, clause.number, "bare"):
            predicate, place = self._predicate(place, clause.number, "bare", False)
        else:
            tail, place = self._tail(place, clause, False)
            if not tail:
                return Clause(subjects), place
            verb = lexicon.SIZES.get(tail[0], "turn" if tail[0] in lexicon.COLOUR_WORDS else "stay")
            predicate = Predicate(verb, () if tail[0] in lexicon.SIZES else tuple(tail))
            if verb == "stay" and tail[0] not in lexicon.STILL_WORDS:
                predicate = Predicate("move", tuple(tail))
        clause.predicates.append(predicate)
        return clause, place

    def _without_verb(self, index: int) -> tuple[Clause, int] | None:
        """ "…, and the blue square right": the verb of the clause before, or "move"."""
        found = self.subjects(index, "none")
        if found is None:
            return None
        subjects, place = found
        tail, end = self._tail(place, Clause(subjects, mode="none"), False)
        short = shorten_directions(tail)
        if not short or not all(word in lexicon.DIRECTION_WORDS | {"and"} or is_adverb(word) for word in short):
            is_colour = len(short) == 1 and short[0] in lexicon.COLOUR_WORDS
            if not (is_colour and self.last_verb in ("turn", "become", "change")):
                return None
        return Clause(subjects, [_finish(self.last_verb or "move", tail, (), False)]), end

    def _predicate(self, index: int, number: Number, mode: Mode, then: bool) -> tuple[Predicate, int]:
        """Read one action, its auxiliaries left out ("is moving", "will move", "starts to move": "move")."""
        adverbs: list[str] = []
        negated = False
        while True:
            word, after = self.at(index), self.skip_adverbs(index + 1)
            kinds, next_kinds = readings(word), readings(self.at(after))
            if is_adverb(word):
                adverbs.append(word)
            elif word in lexicon.NEGATIONS:
                negated = True
            elif word in lexicon.MODALS or (word == "to" and mode == "bare"):
                mode = "bare"
            elif word in lexicon.DO_FORMS and "base" in next_kinds:
                mode = "bare"
            elif word in lexicon.BE_FORMS:
                if "ing" not in next_kinds and self.at(after) not in lexicon.BE_FORMS:
                    return self._being(index, number, adverbs, negated, then)
            elif word in lexicon.HAVE_FORMS and ("past" in next_kinds or self.at(after) == "been"):
                pass
            elif set(kinds.values()) & lexicon.STARTING_VERBS and ("ing" in next_kinds or self.at(after) == "to"):
                index += self.at(after) == "to"
                mode = "bare"
            else:
                break
            index += 1
        order = ("base", "third", "ing", "past") if mode == "bare" else ("third", "base", "ing", "past")
        base = next((kinds[kind] for kind in order if kind in kinds), None)  # type: ignore[index]
        verb = base or _main_auxiliary(word) or guess_base(word) or word
        reduced = "ing" in kinds and "base" not in kinds
        clause = Clause([NounPhrase(("",), number)], mode="bare" if mode == "bare" else "finite")
        self.last_verb = verb  # before the tail, which may end at "…, and the square blue"
        tail, place = self._tail(index + 1, clause, reduced)
        return _finish(verb, tail, tuple(adverbs), then, negated), place

    def _being(
        self, index: int, number: Number, adverbs: list[str], negated: bool, then: bool
    ) -> tuple[Predicate, int]:
        """ "is kicked by the boy" tells a motion, "is red" and "is on the table" none, "is still" that it stays."""
        tail, place = self._tail(index + 1, Clause([NounPhrase(("",), number)]), False)
        start = next((i for i, word in enumerate(tail) if not is_adverb(word) or word in lexicon.STILL_WORDS), 0)
        if tail and any(word in lexicon.STILL_WORDS for word in tail[start : start + 1]):
            return Predicate("stay", tuple(tail[start + 1 :]), tuple(adverbs), then), place
        passive = bool(tail) and "past" in readings(tail[start])
        predicate = _finish("be", tail, tuple(adverbs), then, negated)
        return Predicate(predicate.verb, predicate.tail, predicate.adverbs, then, passive), place

    def _tail(self, index: int, clause: Clause, reduced: bool) -> tuple[list[str], int]:
        """The words after a verb, up to the next action or clause."""
        tail: list[str] = []
        while word := self.at(index):
            if word in lexicon.LINKS:
                after, _ = self.skip_links(index)
                if not self.at(after) or self._goes_on(after, clause) or self._clause_at(after):
                    break
                tail += [link for link in self.words[index:after] if link != ","] or ["and"]
                index = after
                continue
            if reduced and self._finite_at(index, clause.number):
                break  # "a dog running through the grass | chases a ball"
            tail.append(word)
            index += 1
        return tail, index

    def _finite_at(self, index: int, number: Number) -> bool:
        before = self.at(index - 1)
        if before in lexicon.DETERMINERS | lexicon.POSSESSIVES | lexicon.PREPOSITIONS | lexicon.ADJECTIVES:
            return False
        return "third" in readings(self.at(index)) and number != "plural"

    def _clause_at(self, index: int) -> bool:
        """Whether a clause with a verb (or with a direction in its place) begins here."""
        start = self.skip_opening(index)
        if self.at(index) == "there" or self.imperative_at(start):
            return True
        verb = readings(self.at(start)).get("base", "")
        if verb in lexicon.MAKING_VERBS and self.object_at(start + 1):
            return True
        found = self.subjects(start, self.mode)
        if found is None:
            return False
        subjects, place = found
        number = Clause(subjects).number
        return self.action_at(place, number, self.mode) or self.unlisted_verb_at(place) or self._gap_at(start)

    def _gap_at(self, index: int) -> bool:
        found = self.subjects(index, "none")
        if found is None:
            return False
        place = found[1]
        end = place
        while self.at(end) and self.at(end) not in lexicon.LINKS:
            end += 1
        short = shorten_directions(self.words[place:end])
        if len(short) == 1 and short[0] in lexicon.COLOUR_WORDS:
            return self.last_verb in ("turn", "become", "change")
        return bool(short) and all(word in lexicon.DIRECTION_WORDS or is_adverb(word) for word in short)


def _main_auxiliary(word: str) -> str | None:
    """The base form of "has" and "does" as main verbs."""
    if word in lexicon.HAVE_FORMS:
        return "have"
    return "do" if word in lexicon.DO_FORMS else None


def _repeats(clause: Clause) -> bool:
    """ "… and the cat does too"."""
    too = {"too", "as", "well", "the", "same", "likewise", "so"}
    return any(item.verb == "do" and item.tail and set(item.tail) <= too for item in clause.predicates[:1])


def _bare(mode: Mode) -> Mode:
    return "finite" if mode == "finite" else "bare"


def _finish(verb: str, tail: list[str], adverbs: tuple[str, ...], then: bool, negated: bool = False) -> Predicate:
    found = Predicate(verb, tuple(shorten_directions(tail)), adverbs, then, verb not in ("have", "be"))
    return found.negated() if negated else found
