"""Which videos make a benchmark: the protocols of Through-The-Mask, on a table of scores that others computed.

SA-V-128: of the videos of SA-V, the 500 with the best sum of aesthetic and motion score, balanced over categories; of
those, 64 with one object and 64 with several, at random. Image-Animation-Bench: 2,500 videos, balanced over 16
categories.

Not stated in the paper, chosen here: the two scores have different units, so each is standardised over the table
before they are added; "balanced" means an equal share of every category, and what a small category can't fill goes
to the others in equal shares; ties go to the smaller id, so that the order of the table does not matter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """One video, as the selection sees it.

    Attributes:
        id: of the video.
        category: one of the benchmark's.
        aesthetic: score of how good it looks, any unit, higher is better.
        motion: score of how much moves (the mean optical flow of RAFT), any unit.
        objects: number of objects that move.
    """

    id: str
    category: str
    aesthetic: float
    motion: float
    objects: int

    def __post_init__(self) -> None:
        if not self.id or not self.category:
            raise ValueError(f"Video {self.id!r} has the category {self.category!r}; expected both to be texts.")
        if not (math.isfinite(self.aesthetic) and math.isfinite(self.motion)):
            raise ValueError(f"Video {self.id!r} has the scores {self.aesthetic}, {self.motion}; expected numbers.")
        if self.objects < 1:
            raise ValueError(f"Video {self.id!r} has {self.objects} objects; expected at least 1.")


def joint_scores(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Aesthetic plus motion, each standardised over the table (a score that never varies counts 0), by id."""
    columns = np.array([[item.aesthetic, item.motion] for item in candidates], np.float64)
    spread = columns.std(axis=0)
    standard = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return {item.id: float(score) for item, score in zip(candidates, standard.sum(axis=1), strict=True)}


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of each category make ``count``, as equal as their sizes admit.

    Args:
        sizes: videos of each category.
        count: how many are wanted.

    Returns:
        by category; no two differ by more than 1 unless the smaller one is used up. What can't be divided goes to the
        larger categories, then by name.

    Raises:
        ValueError: fewer videos than wanted.
    """
    if count > sum(sizes.values()):
        raise ValueError(f"{sum(sizes.values())} videos are there; expected at least {count}.")
    taken = dict.fromkeys(sizes, 0)
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    while (left := count - sum(taken.values())) > 0:
        open_ones = [name for name in order if taken[name] < sizes[name]]
        each = left // len(open_ones)
        for name in open_ones if each else open_ones[:left]:
            taken[name] += min(max(each, 1), sizes[name] - taken[name])
    return taken


def best_balanced(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """The ``count`` videos with the best joint score, balanced over categories; best first.

    Raises:
        ValueError: fewer videos than wanted, or two of one id.
    """
    if len({item.id for item in candidates}) < len(candidates):
        raise ValueError("The table holds an id twice; expected one row a video.")
    if not candidates:
        raise ValueError(f"The table holds no video; expected at least {count}.")
    scores = joint_scores(candidates)
    ranked = sorted(candidates, key=lambda item: (-scores[item.id], item.id))
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for item in ranked:
        groups[item.category].append(item)
    quota = shares({name: len(group) for name, group in groups.items()}, count)
    kept = {item.id for name, group in groups.items() for item in group[: quota[name]]}
    return [item for item in ranked if item.id in kept]


def select_sa_v(
    candidates: Sequence[Candidate], top: int = 500, each: int = 64, seed: int = 0
) -> dict[str, list[Candidate]]:
    """SA-V-128: ``each`` videos with one object and as many with several, at random among the ``top`` best.

    Returns:
        {"single": …, "multi": …}, each by rising id; the same for the same seed, whatever the order of the table.

    Raises:
        ValueError: fewer videos than ``top``, or fewer than ``each`` of either kind among them.
    """
    best = sorted(best_balanced(candidates, top), key=lambda item: item.id)
    kinds = {"single": [x for x in best if x.objects == 1], "multi": [x for x in best if x.objects > 1]}
    chosen = {}
    for number, (name, group) in enumerate(kinds.items()):
        if len(group) < each:
            raise ValueError(f"The best {top} videos hold {len(group)} of the kind {name!r}; expected at least {each}.")
        picks = np.random.default_rng([seed, number]).choice(len(group), each, replace=False)
        chosen[name] = [group[index] for index in sorted(picks)]
    return chosen


def select_image_animation_bench(
    candidates: Sequence[Candidate], count: int = 2500, categories: int = 16
) -> list[Candidate]:
    """Image-Animation-Bench: ``count`` videos, balanced over its categories; best first.

    The paper gives the number of videos and of categories; the rule of choice is ours, that of SA-V-128.

    Raises:
        ValueError: another number of categories, or fewer videos than wanted.
    """
    found = sorted({item.category for item in candidates})
    if len(found) != categories:
        raise ValueError(f"The table names {len(found)} categories ({found}); expected {categories}.")
    return best_balanced(candidates, count)
