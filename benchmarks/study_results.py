"""What a human study found: for each method and question, how often ours was preferred, with an interval.

A pair counts when it has all its answers; its majority is one trial. The share of pairs won has a Wilson interval
(95%): unlike the usual one it stays within 0 and 1, and is not empty where every pair was won.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass

from scipy.stats import binomtest

from benchmarks.study import QUESTIONS, Study

COLUMNS = ("ours", "against", "question", "preferred_percent", "low_percent", "high_percent", "pairs", "incomplete")


@dataclass(frozen=True)
class Preference:
    """Ours against another method, for one question.

    Attributes:
        ours, against: the methods.
        question: a key of ``QUESTIONS``.
        won: pairs whose majority preferred ours.
        pairs: pairs with all their answers.
        incomplete: pairs that lack some.
        unanimous: of ``pairs``, those in which all raters agreed.
    """

    ours: str
    against: str
    question: str
    won: int
    pairs: int
    incomplete: int
    unanimous: int

    @property
    def share(self) -> float | None:
        """Of the pairs, those won; None without a pair."""
        return self.won / self.pairs if self.pairs else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The Wilson interval of the share, 95%."""
        if not self.pairs:
            return None
        found = binomtest(self.won, self.pairs).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


def preferences(study: Study) -> list[Preference]:
    """All methods and questions, in the order of the study; of more answers than a pair needs, the first count."""
    votes: dict[str, list[dict[str, bool]]] = defaultdict(list)
    for answer in study.answers:
        if len(votes[answer.pair]) < study.raters:
            votes[answer.pair].append(dict(answer.ours_preferred))
    found = []
    for ours, other in dict.fromkeys((pair.ours, pair.other) for pair in study.pairs.values()):
        keys = [key for key, pair in study.pairs.items() if pair.other == other]
        complete = [votes[key] for key in keys if len(votes[key]) == study.raters]
        for question in QUESTIONS:
            sums = [sum(vote[question] for vote in pair) for pair in complete]
            won = sum(2 * count > study.raters for count in sums)
            agreed = sum(count in (0, study.raters) for count in sums)
            missing = len(keys) - len(complete)
            found.append(Preference(ours, other, question, won, len(complete), missing, agreed))
    return found


def as_csv(found: list[Preference]) -> str:
    """The results, one line a method and question; empty cells where no pair is complete."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*COLUMNS, "unanimous"))
    for item in found:
        numbers = ["", "", ""] if item.share is None or item.interval is None else [item.share, *item.interval]
        shown = [f"{100 * value:.1f}" if value != "" else "" for value in numbers]  # type: ignore[operator]
        writer.writerow([item.ours, item.against, item.question, *shown, item.pairs, item.incomplete, item.unanimous])
    return stream.getvalue()
