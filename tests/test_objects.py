"""Plans and ids: what is accepted, what is refused, and files that come back equal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ttm.objects import MAX_OBJECTS, ObjectPrompt, PromptPlan, ids_from_masks, validate_ids


def plan(count: int = 2) -> PromptPlan:
    objects = [ObjectPrompt(f"ball {n}", f"the ball {n} moves") for n in range(count)]
    return PromptPlan("Balls move \u2014 all.", ", ".join(item.local_prompt for item in objects), objects)  # type: ignore[arg-type]


def test_a_plan_lists_its_objects_in_order() -> None:
    assert isinstance(plan().objects, tuple)
    assert plan().phrases == ["ball 0", "ball 1"]
    assert plan().local_prompts == ["the ball 0 moves", "the ball 1 moves"]
    assert plan() == plan() and hash(plan()) == hash(plan()) and plan() != plan(3)


@pytest.mark.parametrize("count", [0, MAX_OBJECTS + 1])
def test_a_plan_has_1_to_12_objects(count: int) -> None:
    with pytest.raises(ValueError, match=f"holds {count} objects; expected 1 to 12"):
        plan(count)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (("", "m", [ObjectPrompt("a", "b")]), "prompt"),
        (("p", "  ", [ObjectPrompt("a", "b")]), "motion_prompt"),
        (("p", "m", [ObjectPrompt("a", "b"), ObjectPrompt("", "b")]), r"objects\[1\].phrase"),
        (("p", "m", [ObjectPrompt("a", None)]), r"objects\[0\].local_prompt"),  # type: ignore[arg-type]
    ],
)
def test_empty_texts_are_refused(values: tuple, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} of the plan"):
        PromptPlan(*values)


def test_saved_and_loaded_a_plan_is_equal(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan().save(path)
    assert PromptPlan.load(path) == plan() == PromptPlan.from_dict(plan().to_dict())
    assert "\u2014" in path.read_text(encoding="utf-8")  # readable, not escaped
    assert [item.name for item in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not hold JSON"),
        ("{", "does not hold JSON"),
        ("[]", "A plan is a list"),
        ('{"prompt": "p"}', "has the keys"),
        ('{"prompt": "p", "motion_prompt": "m", "objects": {}}', "not a list"),
        ('{"prompt": "p", "motion_prompt": "m", "objects": [3]}', "object of a plan is a int"),
        ('{"prompt": "p", "motion_prompt": "m", "objects": [{"phrase": "a", "local": "b"}]}', "local_prompt"),
        ('{"prompt": "p", "motion_prompt": "m", "objects": []}', "0 objects"),
    ],
)
def test_files_that_are_no_plan(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        PromptPlan.load(path)


def test_a_binary_file_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a plan"):
        PromptPlan.load(tmp_path / "plan.json")
    assert json.loads(json.dumps(plan().to_dict())) == plan().to_dict()


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, np.int8])
def test_ids_of_any_integer_type_become_uint8(dtype: type) -> None:
    source = np.ones((3, 4), dtype)
    ids = validate_ids(source, ndim=2)
    assert ids.dtype == np.uint8 and (ids == 1).all()
    ids[:] = 0
    assert (source == 1).all()


@pytest.mark.parametrize(
    ("ids", "ndim", "message"),
    [
        (np.zeros((3, 4)), 2, "float64"),
        (np.zeros((3, 4), np.uint8), 3, r"\[T, H, W\]"),
        (np.zeros((2, 3, 4), np.uint8), 2, r"\[H, W\]"),
        (np.zeros((0, 4), np.uint8), 2, "empty axis"),
        (np.full((3, 4), 13), 2, "13..13"),
        (np.array([[0, -1]]), 2, "-1..0"),
        (np.array([[256 + 1]]), 2, "257"),  # would be 1 in uint8
        ([["a"]], 2, "dtype"),
    ],
)
def test_what_is_no_ids(ids: np.ndarray, ndim: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_ids(ids, ndim=ndim)


def test_masks_merge_with_the_later_one_in_front() -> None:
    masks = np.zeros((3, 4, 5), bool)
    masks[0, :, :3] = masks[1, 1:3, 2:] = masks[2, 0, 0] = True
    ids = ids_from_masks(list(masks))
    assert ids.tolist() == [[3, 1, 1, 0, 0], [1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "0 masks"),
        ([np.ones((2, 2), bool)] * 13, "13 masks"),
        ([np.ones((2, 2), np.uint8)], r"masks\[0\] is uint8"),
        ([np.eye(2, dtype=bool), np.ones((2, 3), bool)], r"masks\[1\] is bool \[2, 3\]"),
        ([np.eye(2, dtype=bool), np.zeros((2, 2), bool)], r"masks\[1\] has no visible pixel"),
        ([np.eye(2, dtype=bool), np.ones((2, 2), bool)], r"masks\[0\] has no visible pixel"),
        ([np.ones((1, 2, 2), bool)], r"masks\[0\]"),
    ],
)
def test_masks_that_do_not_merge(masks: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ids_from_masks(masks)


def test_a_plan_that_cannot_be_written_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    plan = PromptPlan("The ball moves.", "the ball moves", (ObjectPrompt("ball", "the ball moves"),))
    with pytest.raises(OSError, match="folder does not exist.*absent"):
        plan.save(tmp_path / "absent" / "plan.json")
    assert list(tmp_path.iterdir()) == []
