"""A text as sentences of words."""

from __future__ import annotations

import re

from ttm.planning.words import DIRECTION_SYNONYMS, LONG_PREPOSITIONS

_CONTRACTIONS = (
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bcan(?:'t|not)\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(it|he|she|that|there|who|which|what)'s\b"), r"\1 is"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"\bi'd\b"), "i would"),
    (re.compile(r"\bno longer\b"), "never"),
    (re.compile(r"\bno[ -]one\b"), "nobody"),
    (re.compile(r"\bneither (?:the |an? )?(.+?) nor (?:the |an? )?"), r"no \1 and no "),
)
_REMARK = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_SENTENCE_END = re.compile(r"[!?;]+|\n\s*\n|\.(?!\d)")
_PAUSE = re.compile(r"[:…]|--+|[–—]|\s-\s")
_WORD = re.compile(r"[^\W_]+(?:['.-][^\W_]+)*|,")


EXAMPLE = "The red ball moves left and turns green, and the blue square stays."
MAX_WORDS = 400


def checked_sentence(prompt: str) -> str:
    """The prompt of a planner as it was handed in, if it is one.

    Raises:
        ValueError: not a text, an empty one, or over ``MAX_WORDS`` words.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"The prompt is {prompt!r}; expected a sentence such as {EXAMPLE!r}")
    if (count := sum(len(words) for words in sentences(prompt))) > MAX_WORDS:
        raise ValueError(f"The prompt has {count} words; expected at most {MAX_WORDS}.")
    return prompt


def sentences(text: str) -> list[list[str]]:
    """Split a text into sentences of lower-case words and commas.

    What stands in brackets is left out, contractions are written out, "upwards" becomes "up", and a preposition of
    several words ("in front of") is one item.
    """
    text = text.lower().replace("\u2019", "'").replace("\u2018", "'")
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    text = _PAUSE.sub(" , ", _REMARK.sub(" ", text))
    split = [_WORD.findall(part) for part in _SENTENCE_END.split(text)]
    return [_join_prepositions([DIRECTION_SYNONYMS.get(word, word) for word in words]) for words in split if words]


def _join_prepositions(words: list[str]) -> list[str]:
    joined: list[str] = []
    index = 0
    while index < len(words):
        for item in LONG_PREPOSITIONS:
            parts = item.split()
            if words[index : index + len(parts)] == parts:
                joined.append(item)
                index += len(parts)
                break
        else:
            joined.append(words[index])
            index += 1
    return joined
