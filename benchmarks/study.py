"""A human study: which pairs are shown to whom, on which side, and what was answered.

The protocol of Through-The-Mask: one method's video beside another's for the same picture and sentence; three
questions, one answer each; five raters a pair; the majority decides. Methods never have a name before the results.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lock import held
from ttm.atomic_write import written_beside

QUESTIONS = {
    "text": "Which video does what the sentence says?",
    "motion": "In which video do things move more consistently and naturally?",
    "quality": "Which video is better overall?",
}
"""Text alignment, motion consistency and overall quality; our wording, for the paper prints none."""
SIDES = ("A", "B")
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Pair:
    """Two videos of one sample.

    Attributes:
        sample: its id.
        prompt: the sentence.
        ours: name of the method that every other is held against.
        other: name of the other one.
    """

    sample: str
    prompt: str
    ours: str
    other: str

    @property
    def key(self) -> str:
        """Names the pair to a browser, and tells nothing."""
        return _digest("pair", self.sample, self.other)


@dataclass(frozen=True)
class Answer:
    """One rater's choices for one pair: for each question, whether ours was preferred."""

    rater: str
    pair: str
    ours_preferred: Mapping[str, bool]


class Study:
    """A study on the disk: what it is made of, and every answer so far.

    Args:
        folder: of study.json and answers.jsonl; made if absent.
        pairs: what to show.
        seed: of order and sides.
        raters: how many answers a pair needs.

    Raises:
        ValueError: no pair, or the folder holds another study.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair], seed: int = 0, raters: int = 5) -> None:
        if not pairs or raters < 1 or raters % 2 == 0:
            raise ValueError(f"{len(pairs)} pairs, {raters} raters; expected pairs, and an odd number of raters.")
        self.pairs = {pair.key: pair for pair in pairs}
        self.seed, self.raters, self._folder = seed, raters, folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._settle({"seed": seed, "raters": raters, "pairs": [asdict(pair) for pair in pairs]})
        self.answers = read_answers(folder)

    def _settle(self, described: dict[str, Any]) -> None:
        path = self._folder / "study.json"
        if not path.exists():
            with written_beside(path) as beside:
                beside.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        elif json.loads(path.read_text(encoding="utf-8")) != described:
            raise ValueError(
                f"{self._folder} holds another study (pairs, seed or raters differ); choose another folder."
            )

    def next_pair(self, rater: str) -> Pair | None:
        """What this rater sees next; None when there is nothing left for them.

        Each rater has an order of their own. A pair that has all its answers is passed over.
        """
        check_rater(rater)
        mine = {answer.pair for answer in self.answers if answer.rater == rater}
        counts: dict[str, int] = defaultdict(int)
        for answer in self.answers:
            counts[answer.pair] += 1
        order = np.random.default_rng(_words(self.seed, rater)).permutation(len(self.pairs))
        keys = list(self.pairs)
        waiting = [keys[index] for index in order if keys[index] not in mine and counts[keys[index]] < self.raters]
        return self.pairs[waiting[0]] if waiting else None

    def progress(self, rater: str) -> tuple[int, int]:
        """How many pairs this rater has answered, and how many that is of, as far as is known now."""
        mine = {answer.pair for answer in self.answers if answer.rater == rater}
        counts: dict[str, int] = defaultdict(int)
        for answer in self.answers:
            counts[answer.pair] += 1
        left = [key for key in self.pairs if key not in mine and counts[key] < self.raters]
        return len(mine), len(mine) + len(left)

    def ours_is(self, rater: str, pair: Pair) -> str:
        """The side on which this rater sees our video of a pair."""
        return SIDES[int(np.random.default_rng(_words(self.seed, "side", rater, pair.key)).integers(2))]

    def answer(self, rater: str, key: str, sides: Mapping[str, str]) -> None:
        """Keep an answer; it is on the disk when this returns. A second one of the same rater to a pair counts nothing.

        Raises:
            ValueError: no such pair or rater, or not one side for each question.
        """
        check_rater(rater)
        if key not in self.pairs:
            raise ValueError(f"There is no pair {key!r} in this study.")
        if set(sides) != set(QUESTIONS) or not set(sides.values()) <= set(SIDES):
            raise ValueError(f"The answers are {dict(sides)}; expected A or B for each of {list(QUESTIONS)}.")
        ours = self.ours_is(rater, self.pairs[key])
        answer = Answer(rater, key, {question: side == ours for question, side in sides.items()})
        with self._lock:
            if any(known.rater == rater and known.pair == key for known in self.answers):
                return
            with open(self._folder / "answers.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.answers.append(answer)


@contextmanager
def served_alone(folder: Path) -> Iterator[None]:
    """One server at a time takes a study's answers: two would show a pair, and count a rater, without each other.

    Args:
        folder: of the study; made if absent.

    Raises:
        ValueError: another takes them now.
    """
    with held(folder / ".lock") as mine:
        if not mine:
            raise ValueError(
                f"Another server takes the answers of {folder} now; expected one at a time (choose another --study)."
            )
        yield


def load_study(folder: Path) -> Study:
    """A study that was begun before.

    Raises:
        FileNotFoundError: there is none.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no study; expected study.json, which `serve` writes.")
    described = json.loads(path.read_text(encoding="utf-8"))
    return Study(folder, [Pair(**pair) for pair in described["pairs"]], described["seed"], described["raters"])


def read_answers(folder: Path) -> list[Answer]:
    """The first answer of each rater to each pair, by all whole lines of answers.jsonl.

    What a kill cut off is removed, so that the next line begins a line.
    """
    path = folder / "answers.jsonl"
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if "".join(lines) != text:
        with written_beside(path) as beside:
            beside.write_text("".join(lines), encoding="utf-8")
    first: dict[tuple[str, str], Answer] = {}
    for answer in (Answer(**json.loads(line)) for line in lines):
        first.setdefault((answer.rater, answer.pair), answer)
    return list(first.values())


def check_rater(rater: str) -> None:
    """ValueError unless this can be a rater's name."""
    if not rater.strip() or len(rater) > _LONGEST_NAME or not rater.isprintable():
        raise ValueError(f"The name has {len(rater)} characters; expected 1 to {_LONGEST_NAME} that can be printed.")


def _digest(*words: str) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def _words(seed: int, *texts: str) -> list[int]:
    return [seed, int(_digest(*texts), 16)]
