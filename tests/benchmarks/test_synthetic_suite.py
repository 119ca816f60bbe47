"""The suite on subjects whose score is known: one that returns the truth, and wrong ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.counterfactual import with_appearances
from benchmarks.measure import Figure, Settings
from benchmarks.measures import (
    autoencoder,
    end_to_end,
    local_prompts,
    segmentation,
    stage_one,
    stage_two,
    tracking,
)
from benchmarks.scenes import MIN_PIXELS, load_scene, pair_names, pair_scene, scene_names
from benchmarks.subject import Generated
from ttm.data.synthetic import SyntheticScene
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

SETTINGS = Settings(scenes=8, local_scenes=6, size=64, num_frames=9)


class Oracle:
    """Returns the truth: it recognises each scene by its first frame."""

    name, size, num_frames = "oracle", (64, 64), 9

    def __init__(self) -> None:
        names = [*scene_names(SETTINGS), *pair_names(SETTINGS)]
        scenes = [load_scene(SETTINGS, name) for name in names]
        self.scenes = {scene.frames[0].tobytes(): scene for scene in scenes}

    def of(self, image: np.ndarray) -> SyntheticScene:
        return self.scenes[image.tobytes()]

    def round_trip(self, frames: np.ndarray) -> np.ndarray:
        return frames

    def segment(self, image: np.ndarray, phrases: list[str]) -> np.ndarray:
        assert phrases == self.of(image).plan.phrases
        return self.of(image).ids[0]

    def track(self, frames: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
        return self.of(frames[0]).ids

    def predict_motion(self, image: np.ndarray, ids: np.ndarray, plan: PromptPlan, seed: int) -> MaskTrajectory:
        return MaskTrajectory(self.of(image).ids)

    def render(self, image: np.ndarray, moves: MaskTrajectory, plan: PromptPlan, seed: int) -> np.ndarray:
        """Each object does what its own local prompt says."""
        scene = self.of(image)
        if plan == scene.plan:
            return scene.frames
        kinds = [item.appearance for item in scene.objects if item.appearance]
        return with_appearances(
            scene, [next((k for k in kinds if k in item.local_prompt), None) for item in plan.objects]
        )

    def generate(self, image: np.ndarray, prompt: str, seed: int, **more: Any) -> Generated:
        scene = self.of(image)
        assert prompt == scene.plan.prompt
        return Generated(scene.frames, MaskTrajectory(scene.ids), scene.plan)


class StillImage(Oracle):
    """Nothing ever moves."""

    name = "still image"

    def track(self, frames: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
        return np.repeat(first_ids[None], len(frames), axis=0)

    def predict_motion(self, image: np.ndarray, ids: np.ndarray, plan: PromptPlan, seed: int) -> MaskTrajectory:
        return MaskTrajectory(np.repeat(ids[None], self.num_frames, axis=0))

    def render(self, image: np.ndarray, moves: MaskTrajectory, plan: PromptPlan, seed: int) -> np.ndarray:
        return np.repeat(image[None], self.num_frames, axis=0)

    def generate(self, image: np.ndarray, prompt: str, seed: int, **more: Any) -> Generated:
        scene = self.of(image)
        moves = self.predict_motion(image, scene.ids[0], scene.plan, seed)
        return Generated(self.render(image, moves, scene.plan, seed), moves, scene.plan)


class WrongObject(Oracle):
    """Confuses the first two objects, and lets the wrong one change its appearance."""

    name = "wrong object"

    @staticmethod
    def exchanged(ids: np.ndarray) -> np.ndarray:
        table = np.arange(13, dtype=np.uint8)
        table[[1, 2]] = 2, 1
        return table[ids]

    def segment(self, image: np.ndarray, phrases: list[str]) -> np.ndarray:
        return self.exchanged(super().segment(image, phrases))

    def track(self, frames: np.ndarray, first_ids: np.ndarray) -> np.ndarray:
        return self.exchanged(super().track(frames, first_ids))

    def predict_motion(self, image: np.ndarray, ids: np.ndarray, plan: PromptPlan, seed: int) -> MaskTrajectory:
        return MaskTrajectory(self.exchanged(self.of(image).ids))

    def render(self, image: np.ndarray, moves: MaskTrajectory, plan: PromptPlan, seed: int) -> np.ndarray:
        scene = self.of(image)
        objects = plan.objects
        if len(objects) == 2:
            texts = [objects[1].local_prompt, objects[0].local_prompt]
            objects = tuple(ObjectPrompt(o.phrase, text) for o, text in zip(objects, texts, strict=True))
        other = replace(plan, objects=objects, prompt=plan.prompt + " ")
        return super().render(image, moves, other, seed) if len(scene.objects) == 2 else scene.frames


class NeverFinds(Oracle):
    """Its segmenter finds nothing."""

    name = "never finds"

    def segment(self, image: np.ndarray, phrases: list[str]) -> np.ndarray:
        raise ValueError(f"{phrases[0]} was not found")

    def generate(self, image: np.ndarray, prompt: str, seed: int, **more: Any) -> Generated:
        raise ValueError("a phrase was not found")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def still() -> StillImage:
    return StillImage()


@pytest.fixture(scope="module")
def wrong() -> WrongObject:
    return WrongObject()


@cache
def figures(module: Any, subject: Any) -> dict[str, Figure]:
    """All figures of a measure, by name without the indent."""
    measure = module.MEASURE
    rows = [measure.measure(subject, SETTINGS, item).row for item in measure.items(SETTINGS)]
    return {figure.name.strip(): figure for figure in measure.summarise(rows)}


def value(found: dict[str, Figure], start: str) -> float:
    """The value of the one figure whose name starts so."""
    names = [name for name in found if name.startswith(start)]
    assert len(names) == 1, names
    number = found[names[0]].value
    assert number is not None, names[0]
    return number


def test_half_of_the_scenes_have_one_object_and_each_can_be_seen() -> None:
    names = scene_names(SETTINGS)
    counts = [len(load_scene(SETTINGS, name).objects) for name in names]
    assert counts[:4] == [1] * 4 and all(2 <= count <= 3 for count in counts[4:])
    for name in names:
        scene = load_scene(SETTINGS, name)
        for number in range(len(scene.objects)):
            assert np.count_nonzero(scene.ids[0] == number + 1) >= MIN_PIXELS
    fewer = replace(SETTINGS, scenes=4)
    np.testing.assert_array_equal(load_scene(fewer, "multi-001").frames, load_scene(SETTINGS, "multi-001").frames)


def test_the_oracle_reaches_every_goal(oracle: Oracle) -> None:
    reached: list[Figure] = []
    for module in (autoencoder, segmentation, tracking, stage_one, stage_two, local_prompts, end_to_end):
        found = figures(module, oracle)
        assert all(figure.reached is not False for figure in found.values()), found
        reached += [figure for figure in found.values() if figure.reached]
    assert len(reached) >= 11, "every goal of the suite was put to the test"


def test_the_oracle_is_near_perfect_where_only_the_detectors_can_err(oracle: Oracle) -> None:
    assert value(figures(segmentation, oracle), "first-frame segmentation") == 1
    assert value(figures(stage_one, oracle), "stage 1 raw first two frames") == 1
    found = figures(stage_two, oracle)
    assert value(found, "stage 2 follows") == 1
    assert value(found, "on the true video") > 0.85
    found = figures(local_prompts, oracle)
    assert value(found, "local prompts: the right object") == 1
    assert value(found, "local prompts: the wrong object") == 0
    assert value(found, "local prompts swapped: the now right") == 1
    assert value(found, "local prompts swapped: the now wrong") == 0
    assert value(found, "sentence reworded too: the now right") == 1


def test_a_still_image_is_told_from_the_truth(still: StillImage) -> None:
    assert value(figures(tracking, still), "tracking of first-frame masks") < 0.75
    found = figures(stage_one, still)
    assert value(found, "left") == 0 if found["left"].count else True
    moving = [found[name] for name in ("left", "right", "up", "down") if found[name].count]
    assert moving and all(figure.value == 0 for figure in moving)
    assert all(figure.value in (1, None) for name, figure in found.items() if name == "stays")
    assert value(figures(stage_two, still), "stage 2 follows") < 0.8
    found = figures(local_prompts, still)
    for start in (
        "local prompts: the right",
        "local prompts swapped: the now right",
        "local prompts: the wrong",
    ):
        assert value(found, start) == 0
    found = figures(end_to_end, still)
    assert all(found[name].value == 0 for name in ("left", "right", "up", "down") if found[name].count)


def test_the_wrong_object_is_told_from_the_right_one(wrong: WrongObject) -> None:
    assert value(figures(segmentation, wrong), "scenes with 2-3 objects") < 0.4
    assert value(figures(tracking, wrong), "scenes with 2-3 objects") < 0.4
    assert value(figures(stage_one, wrong), "stage 1 raw first two frames") < 0.6
    found = figures(local_prompts, wrong)
    assert value(found, "local prompts: the right object") == 0
    assert value(found, "local prompts: the wrong object") == 1
    assert value(found, "local prompts swapped: the now right") == 0


def test_what_was_not_found_counts_as_lost() -> None:
    subject = NeverFinds()
    found = figures(segmentation, subject)
    assert value(found, "first-frame segmentation") == 0 and value(found, "scenes with a phrase not found") == 1
    found = figures(end_to_end, subject)
    assert value(found, "end to end") == 0 and found["seconds a video, weights loaded"].value is None


def test_pairs_have_one_visible_change_and_prompts_that_can_be_swapped() -> None:
    for name in pair_names(SETTINGS):
        pair = pair_scene(SETTINGS, name)
        appearance = pair.scene.objects[pair.asked].appearance
        assert appearance is not None and pair.scene.objects[1 - pair.asked].appearance is None
        asked, other = (pair.scene.plan.objects[number] for number in (pair.asked, 1 - pair.asked))
        assert appearance in asked.local_prompt and appearance not in other.local_prompt
        swapped = local_prompts.swapped(pair.scene.plan)
        assert swapped.objects[pair.asked] == ObjectPrompt(asked.phrase, other.local_prompt)
        reworded = local_prompts.reworded(pair)
        assert appearance in reworded.objects[1 - pair.asked].local_prompt
        assert appearance not in reworded.objects[pair.asked].local_prompt
        assert reworded.prompt.count(appearance) == 1
        for item in reworded.objects:
            assert item.local_prompt.startswith(f"the {item.phrase} ")


def test_the_counterfactual_with_the_true_appearances_is_the_scene() -> None:
    for name in pair_names(SETTINGS)[:4]:
        scene = load_scene(SETTINGS, name)
        again = with_appearances(scene, [item.appearance for item in scene.objects])
        objects = scene.ids > 0
        assert np.abs(again[objects].astype(float) - scene.frames[objects]).mean() < 12
        pair = pair_scene(SETTINGS, name)
        assert local_prompts.shares(pair, scene.frames)[pair.asked] > 0.9
        np.testing.assert_array_equal(again[0], scene.frames[0])
    with pytest.raises(ValueError, match="one each"):
        with_appearances(scene, [None])
    with pytest.raises(ValueError, match="expected None"):
        with_appearances(scene, ["sings", None])
