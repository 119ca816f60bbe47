"""Forms of English verbs: from a word to its base form, and from a base form to the present tense."""

from __future__ import annotations

from typing import Literal

from ttm.planning.words import IRREGULAR_PASTS, VERBS

Kind = Literal["base", "third", "ing", "past"]

_VOWELS = "aeiou"
_IRREGULAR_THIRD = {"be": "is", "have": "has", "do": "does"}
_IRREGULAR_PLURAL = {"be": "are"}
_IRREGULAR_ING = {"lie": "lying", "tie": "tying", "die": "dying"}


def third_person(base: str) -> str:
    """ "run" -> "runs": what one object does."""
    if base in _IRREGULAR_THIRD:
        return _IRREGULAR_THIRD[base]
    if base.endswith("y") and base[-2:-1] not in _VOWELS:
        return base[:-1] + "ies"
    if base.endswith(("s", "x", "z", "ch", "sh", "o")):
        return base + "es"
    return base + "s"


def conjugate(base: str, plural: bool) -> str:
    """The present tense for one object, or for several."""
    return _IRREGULAR_PLURAL.get(base, base) if plural else third_person(base)


def _ings(base: str) -> set[str]:
    if base in _IRREGULAR_ING:
        return {_IRREGULAR_ING[base]}
    forms = {base + "ing"}
    if base.endswith("e") and not base.endswith(("ee", "oe", "ye")):
        forms = {base[:-1] + "ing"}
    elif _may_double(base):
        forms.add(base + base[-1] + "ing")
    return forms


def _pasts(base: str) -> set[str]:
    if base.endswith("e"):
        return {base + "d"}
    if base.endswith("y") and base[-2:-1] not in _VOWELS:
        return {base[:-1] + "ied"}
    return {base + "ed", base + base[-1] + "ed"} if _may_double(base) else {base + "ed"}


def _may_double(base: str) -> bool:
    # Which syllable is stressed decides, and a list does not say: both spellings are recognised.
    return len(base) > 2 and base[-1] not in _VOWELS + "wxy" and base[-2] in _VOWELS


def _all_forms() -> dict[str, dict[Kind, str]]:
    forms: dict[str, dict[Kind, str]] = {}
    for base in sorted(VERBS):
        forms.setdefault(base, {})["base"] = base
        forms.setdefault(third_person(base), {})["third"] = base
        for word in _ings(base):
            forms.setdefault(word, {})["ing"] = base
        for word in _pasts(base):
            forms.setdefault(word, {}).setdefault("past", base)
    for word, base in IRREGULAR_PASTS.items():
        if word != base:
            forms.setdefault(word, {})["past"] = base
    return forms


_FORMS = _all_forms()


def readings(word: str) -> dict[Kind, str]:
    """Every reading of a word as a form of a listed verb: kind -> base form; empty for other words."""
    return _FORMS.get(word, {})


def guess_base(word: str) -> str | None:
    """The base form of a verb that is not listed, from its ending; None where the ending is none of a verb."""
    if word.endswith(("ss", "us", "is")) or len(word) < 4:
        return None
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "xes", "zes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") else None
