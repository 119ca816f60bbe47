"""The protocols that choose a benchmark's videos, on tables whose answer is known."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from benchmarks.selection import (
    Candidate,
    best_balanced,
    joint_scores,
    select_image_animation_bench,
    select_sa_v,
    shares,
)


def table(count: int = 400, categories: int = 10, seed: int = 0) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    return [
        Candidate(f"v{n:04d}", f"c{rng.integers(categories)}", rng.normal(5), rng.gamma(2), int(rng.integers(1, 4)))
        for n in range(count)
    ]


def test_scores_are_standardised_before_they_are_added() -> None:
    items = [Candidate("a", "x", 1.0, 1000.0, 1), Candidate("b", "x", 3.0, 3000.0, 1)]
    assert joint_scores(items) == pytest.approx({"a": -2.0, "b": 2.0})
    still = [Candidate("a", "x", 1.0, 5.0, 1), Candidate("b", "x", 3.0, 5.0, 1)]
    assert joint_scores(still) == pytest.approx({"a": -1.0, "b": 1.0}), "a score that never varies says nothing"


def test_shares_are_equal_and_fill_up() -> None:
    assert shares({"a": 100, "b": 100}, 50) == {"a": 25, "b": 25}
    assert shares({"a": 100, "b": 3, "c": 100}, 50) == {"a": 24, "b": 3, "c": 23}
    assert shares({"a": 1, "b": 1}, 2) == {"a": 1, "b": 1}
    with pytest.raises(ValueError, match="2 videos are there"):
        shares({"a": 1, "b": 1}, 3)


def test_shares_hold_their_promise_on_random_sizes() -> None:
    rng = random.Random(1)
    for _ in range(200):
        sizes = {str(n): rng.randint(1, 30) for n in range(rng.randint(1, 12))}
        count = rng.randint(0, sum(sizes.values()))
        found = shares(sizes, count)
        assert sum(found.values()) == count and all(found[name] <= size for name, size in sizes.items())
        unfilled = [found[name] for name, size in sizes.items() if found[name] < size]
        assert not unfilled or max(found.values()) - min(unfilled) <= 1


def test_the_best_of_each_category() -> None:
    items = table()
    chosen = best_balanced(items, 100)
    scores = joint_scores(items)
    assert set(Counter(item.category for item in chosen).values()) == {10}
    for category in {item.category for item in items}:
        kept = [scores[item.id] for item in chosen if item.category == category]
        rest = [scores[item.id] for item in items if item.category == category and item not in chosen]
        assert min(kept) >= max(rest)
    assert [scores[item.id] for item in chosen] == sorted((scores[item.id] for item in chosen), reverse=True)


def test_sa_v_128_is_64_and_64_and_the_same_from_a_shuffled_table() -> None:
    items = table(1500)
    chosen = select_sa_v(items)
    assert [len(chosen["single"]), len(chosen["multi"])] == [64, 64]
    assert {item.objects for item in chosen["single"]} == {1} and min(i.objects for i in chosen["multi"]) > 1
    assert {item.id for group in chosen.values() for item in group} <= {item.id for item in best_balanced(items, 500)}
    random.Random(0).shuffle(items)
    assert select_sa_v(items) == chosen
    assert select_sa_v(items, seed=1) != chosen


def test_what_a_table_can_not_give() -> None:
    with pytest.raises(ValueError, match="400 videos are there; expected at least 500"):
        select_sa_v(table(400))
    with pytest.raises(ValueError, match="of the kind 'multi'"):
        select_sa_v([Candidate(f"{n}", "x", 0, n, 1) for n in range(600)])
    with pytest.raises(ValueError, match="twice"):
        best_balanced([Candidate("a", "x", 0, 0, 1)] * 2, 1)
    with pytest.raises(ValueError, match="no video"):
        best_balanced([], 1)
    for wrong in ({"category": ""}, {"motion": float("nan")}, {"objects": 0}):
        with pytest.raises(ValueError, match="'a'|expected"):
            Candidate(**{"id": "a", "category": "x", "aesthetic": 1.0, "motion": 1.0, "objects": 1} | wrong)  # type: ignore[arg-type]


def test_image_animation_bench() -> None:
    chosen = select_image_animation_bench(table(6000, 16))
    assert len(chosen) == 2500 and set(Counter(item.category for item in chosen).values()) == {156, 157}
    with pytest.raises(ValueError, match="names 10 categories"):
        select_image_animation_bench(table(6000, 10))
