"""Who a clause is about: what opens it, its noun phrases with their details, and where its verb begins."""

from __future__ import annotations

from ttm.planning import words as lexicon
from ttm.planning.noun_phrases import Mode, NounPhrase, NounPhraseReader, Number, is_adjective, is_adverb
from ttm.planning.verb_forms import readings


class SubjectReader(NounPhraseReader):
    """Reads the subjects of clauses, or the objects of requests, out of the words of one sentence."""

    def skip_links(self, index: int) -> tuple[int, bool]:
        then = False
        while self.at(index) in lexicon.LINKS:
            then |= self.at(index) == "then"
            index += 1
        return index, then

    def skip_opening(self, index: int) -> int:
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

    def object_at(self, index: int) -> bool:
        word = self.at(index)
        return word in lexicon.OBJECT_PRONOUNS or self.noun_phrase(index, "none") is not None

    def imperative_at(self, index: int) -> bool:
        """ "move the truck …", "turn it …": a base form with an object, where a clause may begin."""
        if "base" not in readings(self.at(index)):
            return False
        word = self.at(index + 1)
        before_noun = word in lexicon.DETERMINERS | lexicon.POSSESSIVES | set(lexicon.OBJECT_PRONOUNS)
        return (before_noun or word in lexicon.ADJECTIVES - {"left", "right"}) and self.object_at(index + 1)

    def objects(self, index: int, mode: Mode) -> tuple[list[NounPhrase], int]:
        word = self.at(index)
        # "her" is a pronoun only where no noun follows.
        if word in lexicon.OBJECT_PRONOUNS and (word != "her" or not self.noun_phrase(index, "none")):
            return [NounPhrase((lexicon.OBJECT_PRONOUNS[word],), "any", pronoun=True)], index + 1
        found = self.subjects(index, mode)
        assert found is not None  # _object_at looked
        return found

    def subjects(self, index: int, mode: Mode) -> tuple[list[NounPhrase], int] | None:
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
            words = phrase.words
            if details and all(is_adjective(word) for word in details):  # "the ball that is red"
                words, details = (*details, *words), ()
            found.append(NounPhrase(words, phrase.number, phrase.determiner, details, phrase.pronoun))
            after, _ = self.skip_links(place)
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
            if word in lexicon.LINKS and before not in lexicon.ADJECTIVES:
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
