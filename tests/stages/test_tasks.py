from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from stages.cache import build_world
from stages.corruption import corrupt_ids
from stages.draws import clip_order, in_share, sample_rng
from stages.host import build_transformer, load_vae
from stages.latent_cache import frames_to_tensor
from stages.motion_to_video import under_other_names
from stages.settings import Settings
from stages.train import build_task
from ttm.motion.carried_frame import carry_first_frame
from ttm.objects import ObjectPrompt, PromptPlan
from ttm.pipelines.autoencoders import encode_video
from ttm.pipelines.conditioning import trajectory_coverage

Build = Callable[..., Settings]
INDICES = np.array([3, 11, 4, 8])


@pytest.fixture
def both(settings: Build) -> tuple:
    made = [settings(f"stage={stage}") for stage in ("image_to_motion", "motion_to_video")]
    accelerator = Accelerator(cpu=True)
    tasks = [build_task(item, accelerator, build_transformer(item)) for item in made]
    scenes = clip_order(made[0].seed, INDICES, 8)
    world = build_world(made[0].data)
    return *tasks, [world[int(scene)] for scene in scenes]


def test_stage_1_sees_first_frames_and_predicts_the_palette_clip(both: tuple) -> None:
    task, _, scenes = both
    batch = task.batch(INDICES)
    rows = task.cache.rows(clip_order(0, INDICES, 8))
    assert torch.equal(batch.data, rows.motion)
    x0, s0 = batch.conditions.latents.split(4, dim=1)
    for t in range(2):
        assert torch.equal(x0[:, :, t], rows.video[:, :, 0]) and torch.equal(s0[:, :, t], rows.motion[:, :, 0])
    expected, _ = task.texts.lookup([scene.plan.motion_prompt for scene in scenes])
    assert torch.equal(batch.conditions.text, expected)
    assert batch.conditions.coverage is None and batch.conditions.local_text is None


def test_stage_2_sees_the_trajectory_and_each_objects_prompt(both: tuple) -> None:
    _, task, scenes = both
    batch = task.batch(INDICES)
    rows = task.cache.rows(clip_order(0, INDICES, 8))
    assert torch.equal(batch.data, rows.video)
    x0, trajectory = batch.conditions.latents.split(4, dim=1)
    assert torch.equal(trajectory, rows.motion) and torch.equal(x0[:, :, 1], rows.video[:, :, 0])
    for place, scene in enumerate(scenes):
        count = len(scene.plan.objects)
        coverage = trajectory_coverage(torch.from_numpy(scene.ids[None]), count, (2, 4, 4), (1, 2, 2))[0]
        torch.testing.assert_close(batch.conditions.coverage[place, :count], coverage, rtol=0, atol=1e-6)
        assert (batch.conditions.coverage[place, count:] == 0).all()
        text, mask = task.texts.lookup(scene.plan.local_prompts)
        assert torch.equal(batch.conditions.local_text[place, :count], text)
        assert torch.equal(batch.conditions.local_mask[place, :count], mask)
        assert not batch.conditions.local_mask[place, count:].any()


def test_without_the_sentence_the_objects_own_prompts_stay(settings: Build, both: tuple) -> None:
    made = settings("stage=motion_to_video", "stage.drop_sentence=0.5")
    task = build_task(made, Accelerator(cpu=True), build_transformer(made))
    batch, whole, unsaid = task.batch(INDICES), both[1].batch(INDICES), in_share(made.seed, INDICES, "sentence", 0.5)
    assert 0 < unsaid.sum() < len(unsaid)
    for text, said, gone in zip(batch.conditions.text, whole.conditions.text, unsaid, strict=True):
        assert torch.equal(text, task.nothing[0] if gone else said)
    assert torch.equal(batch.conditions.local_text, whole.conditions.local_text)
    assert torch.equal(batch.conditions.coverage, whole.conditions.coverage)


def test_some_samples_name_another_object_in_each_objects_own_prompt(settings: Build) -> None:
    of_pairs = ("stage=motion_to_video", "data.num_objects=[2,2]")
    made, plain = settings(*of_pairs, "stage.exchanged_names=0.5"), settings(*of_pairs)
    model = build_transformer(made)
    task = build_task(made, Accelerator(cpu=True), model)
    whole = build_task(plain, Accelerator(cpu=True), model).batch(INDICES)
    batch, exchanged = task.batch(INDICES), in_share(made.seed, INDICES, "names", 0.5)
    assert 0 < exchanged.sum() < len(exchanged)
    world = build_world(made.data)
    for place, (scene, other) in enumerate(zip(clip_order(made.seed, INDICES, 8), exchanged, strict=True)):
        plan = world[int(scene)].plan
        text, mask = task.texts.lookup((under_other_names(plan) if other else plan).local_prompts)
        assert torch.equal(batch.conditions.local_text[place], text)
        assert torch.equal(batch.conditions.local_mask[place], mask)
    for name in ("latents", "text", "coverage"):
        assert torch.equal(getattr(batch.conditions, name), getattr(whole.conditions, name))
    assert torch.equal(batch.data, whole.data)


def test_under_other_names_each_object_does_what_it_did() -> None:
    prompts = [("red ball", "the red ball turns green"), ("cat", "the cat moves left"), ("cup", "it stays")]
    plan = PromptPlan("All move.", "all move", tuple(ObjectPrompt(*item) for item in prompts))
    other = under_other_names(plan)
    assert other.local_prompts == ["the cat turns green", "the cup moves left", "it stays"]  # whom "it" is, stays open
    assert (other.prompt, other.motion_prompt, other.phrases) == (plan.prompt, plan.motion_prompt, plan.phrases)
    alone = PromptPlan("A cat runs.", "the cat runs", (ObjectPrompt("cat", "the cat runs"),))
    assert under_other_names(alone) == alone


def test_covered_is_where_objects_are(both: tuple) -> None:
    for task in both[:2]:
        batch = task.batch(INDICES)
        assert batch.covered.shape == (4, 1, 2, 4, 4)
        for place, scene in enumerate(both[2]):
            shown = batch.covered[place, 0, 0].mean()
            assert abs(shown - float((scene.ids[0] > 0).mean())) < 1e-3


def test_stage_2_also_weighs_what_objects_leave_behind(both: tuple) -> None:
    first_task, second_task, _ = both
    covered = first_task.batch(INDICES).covered
    assert (covered < covered[:, :, :1]).any()  # something moves away
    assert torch.equal(second_task.batch(INDICES).covered, torch.maximum(covered, covered[:, :, :1]))


def test_corrupted_variants_spoil_latents_and_coverage_together(settings: Build, tmp_path) -> None:  # noqa: ANN001
    made = settings(
        "stage=motion_to_video", "stage.corrupted=1", "data.corrupted_variants=1", f"data.cache_dir={tmp_path}"
    )
    task = build_task(made, Accelerator(cpu=True), build_transformer(made))
    spoiled = task.batch(INDICES)
    made.stage.corrupted = 0.0
    true = build_task(made, Accelerator(cpu=True), build_transformer(made)).batch(INDICES)
    assert torch.equal(spoiled.data, true.data)
    assert torch.equal(spoiled.conditions.latents[:, :4], true.conditions.latents[:, :4])
    assert not torch.equal(spoiled.conditions.latents[:, 4:], true.conditions.latents[:, 4:])
    assert not torch.equal(spoiled.conditions.coverage, true.conditions.coverage)


def test_a_host_may_see_the_first_frame_carried_along_the_masks(settings: Build, both: tuple) -> None:
    made = settings("stage=motion_to_video", "host.carried_first_frame=true", "motion.left_out=0.3")
    model = build_transformer(made)
    assert model.config.carried_first_frame
    batch = build_task(made, Accelerator(cpu=True), model).batch(INDICES)
    unseen = in_share(made.seed, INDICES, "motion", 0.3)
    assert 0 < unseen.sum() < len(unseen)
    still, vae = both[1].batch(INDICES).conditions.latents[:, :4], load_vae(made.host.pipeline)
    for place, (scene, gone) in enumerate(zip(both[2], unseen, strict=True)):
        frames = frames_to_tensor([carry_first_frame(scene.frames[0], scene.ids)])
        expected = still[place] if gone else encode_video(vae, frames)[0]
        torch.testing.assert_close(batch.conditions.latents[place, :4], expected, rtol=2e-3, atol=2e-3)  # float16
    assert not build_transformer(settings("host.carried_first_frame=true")).config.carried_first_frame  # stage 1


def test_a_corrupted_trajectory_carries_the_first_frame_too(settings: Build, tmp_path: Path) -> None:
    place = ("stage=motion_to_video", "host.carried_first_frame=true", f"data.cache_dir={tmp_path}")
    spoiled = ("stage.corrupted=1", "data.corrupted_variants=1")
    made, vae = settings(*place, *spoiled), load_vae(settings().host.pipeline)
    build_task(settings(*place), Accelerator(cpu=True), build_transformer(made))  # what is there already is kept
    batch = build_task(made, Accelerator(cpu=True), build_transformer(made)).batch(INDICES)
    for row, number in enumerate(clip_order(made.seed, INDICES, 8)):
        scene = build_world(made.data)[int(number)]
        rng = sample_rng(made.data.seed, int(number), "corruption")
        ids = corrupt_ids(scene.ids, made.data.corruption, rng)
        expected = encode_video(vae, frames_to_tensor([carry_first_frame(scene.frames[0], ids)]))[0]
        torch.testing.assert_close(batch.conditions.latents[row, :4], expected, rtol=2e-3, atol=2e-3)
