"""Clauses of a sentence: who does what. Rules, read left to right, with a look ahead at every "and"."""

from __future__ import annotations

from dataclasses import dataclass, field

from ttm.planning import words as lexicon
from ttm.planning.noun_phrases import Mode, NounPhrase, NounPhraseReader, Number, is_adverb
from ttm.planning.predicates import Predicate, shorten_directions
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


class ClauseReader(NounPhraseReader):
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
            index, then = self._skip_links(index)
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

    def _skip_links(self, index: int) -> tuple[int, bool]:
        then = False
        while self.at(index) in lexicon.LINKS:
            then |= self.at(index) == "then"
            index += 1
        return index, then

    def _goes_on(self, index: int, current: Clause) -> bool:
        """Whether a further action of the current subjects begins here."""
        if current.mode != "finite" and self._imperative_at(index):
            return False
        return self.action_at(index, current.number, _bare(current.mode))

    # Clauses ------------------------------------------------------------------------------------------------

    def _clause(self, index: int) -> tuple[Clause, int] | None:
        index = self._skip_opening(index)
        if not self.at(index):
            return None
        if self.at(index) in lexicon.SPEAKERS:
            while self.at(index) and self.at(index) not in lexicon.MAKING_VERBS | {"see"}:
                index += 1
        verb = readings(self.at(index)).get("base", "")
        if verb in lexicon.MAKING_VERBS and self._object_at(index + 1):
            return self._making(index + 1)
        if verb in lexicon.SHOWING_VERBS and self.noun_phrase(index + 1):
            return self._clause(index + 1)
        if verb in lexicon.CAMERA_VERBS and not self._object_at(index + 1):
            return None
        if self._imperative_at(index):
            return self._imperative(index)
        found = self._subjects(index, self.mode)
        if found is None:
            return None
        subjects, place = found
        clause = Clause(subjects, mode=self.mode)
        after, then = self._skip_links(place)  # "it then moves right"
        if self.action_at(after, clause.number, self.mode) or self.unlisted_verb_at(place):
            predicate, place = self._predicate(after, clause.number, self.mode, then)
            clause.predicates.append(predicate)
            return clause, place
        return self._without_verb(index) or (clause, place)

    def _skip_opening(self, index: int) -> int:
        """Pass over "please", "in the background,", "there is", "a video of"."""
        while True:
            word = self.at(index)
            if word in ("please", "then", "first", "finally", "there") or is_adverb(word):
                index += 1
                if word == "there" and self.at(index) in lexicon.BE_FORMS:
                    index += 1
                continue
            if word in lexicon.PREPOSITIONS:
                end = self._end_of_place(index)
                if end is None:
                    return index
                index = end
                continue
            end = self._end_of_picture(index)
            if end is None:
                return index
            index = end

    def _end_of_place(self, index: int) -> int | None:
        """After "on the left side of the image," that opens a clause, with or without its comma."""
        for place in range(index + 1, len(self.words)):
            if self.at(place) == ",":
                return place + 1 if self.at(place + 1) else None
            if self.at(place) in lexicon.LINKS:
                break
        inner = index + 1 + (self.at(index + 1) in lexicon.DETERMINERS)
        while self.at(inner) and self.at(inner) not in lexicon.DETERMINERS | set(lexicon.PRONOUNS):
            inner += 1
        return inner if self.at(inner) else None

    def _end_of_picture(self, index: int) -> int | None:
        place = index + (self.at(index) in lexicon.DETERMINERS)
        while self.at(place) and self.at(place) not in lexicon.PICTURE_NOUNS and place < index + 4:
            place += 1
        if self.at(place) in lexicon.PICTURE_NOUNS and self.at(place + 1) in ("of", "showing", "where", "with"):
            return place + 2
        return None

    def _object_at(self, index: int) -> bool:
        word = self.at(index)
        return word in lexicon.OBJECT_PRONOUNS or self.noun_phrase(index, "none") is not None

    def _imperative_at(self, index: int) -> bool:
        """ "move the truck …", "turn it …": a base form with an object, where a clause may begin."""
        if "base" not in readings(self.at(index)):
            return False
        word = self.at(index + 1)
        before_noun = word in lexicon.DETERMINERS | lexicon.POSSESSIVES | set(lexicon.OBJECT_PRONOUNS)
        return (before_noun or word in lexicon.ADJECTIVES - {"left", "right"}) and self._object_at(index + 1)

    def _imperative(self, index: int) -> tuple[Clause, int]:
        verb = readings(self.at(index))["base"]
        verb = lexicon.WHAT_THE_OBJECT_DOES.get(verb, verb)
        subjects, place = self._objects(index + 1, "none")
        tail, place = self._tail(place, Clause(subjects, mode="none"), False)
        self.last_verb = verb
        clause = Clause(subjects, mode="none")
        clause.predicates.append(_finish(verb, tail, (), False))
        return clause, place

    def _making(self, index: int) -> tuple[Clause, int] | None:
        """ "make the ball move left", "I want the dog to jump", "make it bigger"."""
        self.mode = "bare"
        subjects, place = self._objects(index, "bare")
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

    def _objects(self, index: int, mode: Mode) -> tuple[list[NounPhrase], int]:
        word = self.at(index)
        # "her" is a pronoun only where no noun follows.
        if word in lexicon.OBJECT_PRONOUNS and (word != "her" or not self.noun_phrase(index, "none")):
            return [NounPhrase((lexicon.OBJECT_PRONOUNS[word],), "any", pronoun=True)], index + 1
        found = self._subjects(index, mode)
        assert found is not None  # _object_at looked
        return found

    def _without_verb(self, index: int) -> tuple[Clause, int] | None:
        """ "…, and the blue square right": the verb of the clause before, or "move"."""
        found = self._subjects(index, "none")
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

    def _subjects(self, index: int, mode: Mode) -> tuple[list[NounPhrase], int] | None:
        """Noun phrases joined by commas and "and", each with its details."""
        found: list[NounPhrase] = []
        place = index
        while True:
            read = self.noun_phrase(place, mode, joined=bool(found))
            if read is None:
                break
            phrase, place = read
            number: Number = "any" if found else phrase.number
            details, place = self._details(place, number, mode)
            place = self._after_remark(place, number, mode)
            found.append(NounPhrase(phrase.words, phrase.number, phrase.determiner, details, phrase.pronoun))
            after, _ = self._skip_links(place)
            if self.action_at(place, number, mode) or after == place:
                break
            if self.action_at(after, number, mode):
                break
            if any(self.at(link) not in (",", "and", "or") for link in range(place, after)):
                break
            if self.noun_phrase(after, mode, joined=True) is None:
                break
            place = after
        return (found, place) if found else None

    def _after_remark(self, index: int, number: Number, mode: Mode) -> int:
        """After ", which is red," or ", followed by smoke,"; before the action of ", spinning fast,"."""
        kinds = readings(self.at(index + 1))
        if self.at(index) != "," or not (self.at(index + 1) in lexicon.RELATIVES or {"past", "ing"} & set(kinds)):
            return index
        if "ing" in kinds:
            return index + 1 if mode != "none" else index
        for place in range(index + 2, len(self.words)):
            if self.at(place) == "," and self.action_at(place + 1, number, mode):
                return place + 1
        return index + 2 if self.at(index + 1) in lexicon.RELATIVES else index

    def _details(self, index: int, number: Number, mode: Mode) -> tuple[tuple[str, ...], int]:
        """ "in the red shirt", "wearing a hat", "that is parked": up to the verb of the clause, if it has one."""
        word, kinds = self.at(index), readings(self.at(index))
        start = index
        if word in lexicon.RELATIVES:
            start = self.skip_adverbs(index + 1)
            if self.at(start) in lexicon.BE_FORMS:
                index = start = start + 1
            after = start + 1
        elif word in lexicon.PREPOSITIONS and (word not in lexicon.PATH_PREPOSITIONS or mode == "finite"):
            after = start + 1
        elif kinds.get("ing") in lexicon.WEARING_VERBS or ("past" in kinds and mode != "none"):
            after = start + 1
        else:
            return (), index
        verb = self._later_verb(after, number, mode)
        if verb is not None:
            return tuple(self.words[index:verb]), verb
        if word in lexicon.RELATIVES:
            return (), start
        if kinds or word in lexicon.PATH_PREPOSITIONS:
            return (), index
        end = after
        while self.at(end) and self.at(end) not in lexicon.LINKS:
            if mode == "none" and (self.at(end) in lexicon.PATH_PREPOSITIONS or self._direction_at(end)):
                break
            end += 1
        return tuple(self.words[index:end]), end

    def _direction_at(self, index: int) -> bool:
        return self.at(index) in lexicon.DIRECTION_WORDS and self.at(index - 1) not in lexicon.DETERMINERS

    def _later_verb(self, index: int, number: Number, mode: Mode) -> int | None:
        """The verb of the clause after details: a present tense, else a form in "-ing"."""
        if mode == "none":
            return None
        taken: int | None = None
        for place in range(index, len(self.words)):
            word, before = self.at(place), self.at(place - 1)
            if word in lexicon.LINKS and not (before in lexicon.ADJECTIVES):
                break
            article = before in lexicon.DETERMINERS | lexicon.POSSESSIVES | lexicon.PREPOSITIONS
            adjective = before in lexicon.ADJECTIVES - set(lexicon.SIDES) - {"middle", "front"}
            adjective = adjective and self.at(place - 2) in lexicon.DETERMINERS
            if article or adjective or not self.action_at(place, number, mode):
                continue
            only_participle = set(readings(self.at(self.skip_adverbs(place)))) <= {"ing", "past"}
            if not only_participle or self.at(place) in lexicon.BE_FORMS:
                return place
            if taken is None and "ing" in readings(self.at(self.skip_adverbs(place))):
                taken = place
        return taken

    # Actions ------------------------------------------------------------------------------------------------

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
        tail, place = self._tail(index + 1, clause, reduced)
        self.last_verb = verb
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
                after, _ = self._skip_links(index)
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
        start = self._skip_opening(index)
        if self.at(index) == "there" or self._imperative_at(start):
            return True
        verb = readings(self.at(start)).get("base", "")
        if verb in lexicon.MAKING_VERBS and self._object_at(start + 1):
            return True
        found = self._subjects(start, self.mode)
        if found is None:
            return False
        subjects, place = found
        number = Clause(subjects).number
        return self.action_at(place, number, self.mode) or self.unlisted_verb_at(place) or self._gap_at(start)

    def _gap_at(self, index: int) -> bool:
        found = self._subjects(index, "none")
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
    short = shorten_directions(tail)
    if negated and verb in ("move", "go"):
        return Predicate("stay", (), adverbs, then)  # "does not move": no word in it that a model could obey wrongly
    if negated:
        return Predicate("do", ("not", verb, *short), adverbs, then)
    return Predicate(verb, tuple(short), adverbs, then, verb not in ("have", "be"))
