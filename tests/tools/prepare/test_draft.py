"""What travels between two processes is what was sent."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tools.prepare.draft import Draft, Rejected, Stopped, from_row, to_row
from tools.prepare.windows import Window
from ttm.objects import ObjectPrompt, PromptPlan

PLAN = PromptPlan("É.", "the dog runs", (ObjectPrompt("dog", "the dog runs"),))
FRAMES = np.random.default_rng(0).integers(0, 255, (5, 8, 6, 3), np.uint8)
IDS = np.zeros((5, 8, 6), np.uint8)
WHOLE = Draft(
    "a/b.mp4", Window("b-1", 3, 5, 8, 6, 0.25, "shard-00000.tar"), 7.5, FRAMES, IDS, np.arange(5) > 2, "É.", ("dog",),
    PLAN, True, {name: np.zeros((2, 2, 1, 1), np.float16) for name in ("video", "motion")}, "abc",
)  # fmt: skip


def assert_equal(one: Any, other: Any) -> None:
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            pairs = [(left[name], right[name]) for name in left]
        else:
            pairs = [(left, right)]
        for mine, sent in pairs:
            if isinstance(mine, np.ndarray):
                assert mine.dtype == sent.dtype, field.name
                np.testing.assert_array_equal(mine, sent, err_msg=field.name)
            else:
                assert mine == sent, field.name


@pytest.mark.parametrize(
    "less",
    [{}, {"known": None}, {"ids": None, "known": None}, {"plan": None, "caption": None},
     {"latents": None, "encoder": None},
     {"phrases": (), "in_order": False}],
)  # fmt: skip
def test_a_clip(less: dict[str, Any]) -> None:
    """With each of its parts, and without: tracked ids have no ``known``."""
    draft = replace(WHOLE, **less)
    assert_equal(draft, from_row(to_row(draft)))


def test_what_is_no_clip() -> None:
    for item in (Rejected("a", "b", "read", "c", "d", True), Stopped("full")):
        assert from_row(to_row(item)) == item
