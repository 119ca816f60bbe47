"""What the stages train on when the motion is optical flow, or is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from stages.cache import build_world, cache_folder, fill_cache, latents_at_rest
from stages.draws import in_share
from stages.host import build_transformer, load_vae
from stages.latent_cache import LatentCache, frames_to_tensor, pictures_path
from stages.settings import Settings
from stages.train import build_task, run
from ttm.motion.optical_flow import flow_to_video
from ttm.pipelines.autoencoders import encode_video

Build = Callable[..., Settings]
INDICES = np.arange(8)


def test_flow_lies_beside_the_masks_and_stage_1_begins_with_masks(settings: Build, tmp_path: Path) -> None:
    masks = settings(f"data.cache_dir={tmp_path}")
    vae, world = load_vae(masks.host.pipeline), build_world(masks.data)
    folder = cache_folder(masks.data, vae)
    fill_cache(masks, folder, vae, 4)
    with pytest.raises(ValueError, match="optical_flow.safetensors does not exist"):
        LatentCache(folder, motion="optical_flow")
    kept = (folder / "shard-00000.safetensors").stat().st_mtime_ns
    flow = settings("motion=optical_flow", f"data.cache_dir={tmp_path}", "data.encode_scenes=4")
    task = build_task(flow, Accelerator(cpu=True), build_transformer(flow))
    assert (folder / "shard-00000.safetensors").stat().st_mtime_ns == kept  # encoded once, shared by both
    assert pictures_path(folder, 0, "optical_flow").exists()
    batch = task.batch(np.arange(4))
    plain = LatentCache(folder).rows(task.cache.order(0, np.arange(4)))
    for place, scene in enumerate(task.cache.order(0, np.arange(4))):
        pictures = flow_to_video(world[int(scene)].flow())
        expected = encode_video(vae, frames_to_tensor([pictures]))[0]
        torch.testing.assert_close(batch.data[place], expected, rtol=0, atol=2e-3)  # kept in half precision
    assert torch.equal(batch.conditions.latents[:, 4:, 0], plain.motion[:, :, 0])
    assert not torch.equal(batch.data, plain.motion)


@pytest.mark.parametrize(("stage", "host"), [("image_to_motion", "wan"), ("motion_to_video", "unet")])
def test_both_stages_train_on_flow(settings: Build, stage: str, host: str) -> None:
    made = settings(f"stage={stage}", "motion=optical_flow", "max_steps=2", "motion.left_out=0.5")
    assert run(made).complete
    assert (Path(made.output_dir) / "transformer" / "config.json").exists()


def test_what_is_left_out_is_the_motion_and_who_does_what(settings: Build) -> None:
    accelerator = Accelerator(cpu=True)
    made = settings("stage=motion_to_video", "motion.left_out=0.5")
    model = build_transformer(made)
    whole = build_task(settings("stage=motion_to_video"), accelerator, model).batch(INDICES)
    task = build_task(made, accelerator, model)
    batch, unseen = task.batch(INDICES), in_share(made.seed, INDICES, "motion", 0.5)
    assert 0 < unseen.sum() < len(unseen)
    rest = latents_at_rest(load_vae(made.host.pipeline), "masks", 5, 32, 32)
    scenes = task.cache.order(made.seed, INDICES)
    for place, gone in enumerate(unseen):
        if not gone:
            assert torch.equal(batch.conditions.latents[place], whole.conditions.latents[place])
            assert torch.equal(batch.conditions.coverage[place], whole.conditions.coverage[place])
            assert torch.equal(batch.conditions.local_text[place], whole.conditions.local_text[place])
            continue
        torch.testing.assert_close(batch.conditions.latents[place, 4:], rest, rtol=0, atol=1e-5)
        assert not batch.conditions.coverage[place].any()
        sentence, words = task.texts.lookup([task.cache.plans[int(scenes[place])].prompt])
        assert torch.equal(batch.conditions.local_text[place, 0], sentence[0])
        assert torch.equal(batch.conditions.local_mask[place, 0], words[0])
        assert not batch.conditions.local_mask[place, 1:].any()
    # What is learnt, from which noise, and how it weighs, is the same with and without motion.
    for name in ("data", "covered"):
        assert torch.equal(getattr(batch, name), getattr(whole, name))
    assert torch.equal(batch.conditions.text, whole.conditions.text)
    assert torch.equal(batch.conditions.latents[:, :4], whole.conditions.latents[:, :4])


def test_a_sample_without_motion_keeps_its_sentence(settings: Build) -> None:
    made = settings("stage=motion_to_video", "motion.left_out=0.5", "stage.drop_sentence=1")
    task = build_task(made, Accelerator(cpu=True), build_transformer(made))
    said = (task.batch(INDICES).conditions.text != task.nothing).flatten(1).any(dim=1)
    assert said.tolist() == in_share(made.seed, INDICES, "motion", 0.5).tolist()


def test_the_twin_without_motion_never_sees_any(settings: Build) -> None:
    made = settings("stage=motion_to_video", "motion=none", "host.region=none")
    batch = build_task(made, Accelerator(cpu=True), build_transformer(made)).batch(INDICES)
    assert not batch.conditions.coverage.any()
    assert torch.equal(batch.conditions.latents[0, 4:], batch.conditions.latents[5, 4:])


@pytest.mark.parametrize("host", ["wan", "unet"])
def test_what_a_start_knows_of_motion_can_be_forgotten(settings: Build, host: str, tmp_path: Path) -> None:
    knows = build_transformer(settings("stage=motion_to_video"))
    for parameter in knows.parameters():
        torch.nn.init.normal_(parameter)
    knows.save_pretrained(tmp_path / "knows")
    begin = (f"host.init_from={tmp_path / 'knows'}", "stage=motion_to_video")
    known, fresh = (build_transformer(settings(*begin, *words)).state_dict() for words in ((), ("motion.forget=true",)))
    differing = [name for name, value in known.items() if not torch.equal(value, fresh[name])]
    assert len(differing) == 1 and "condition" in differing[0]
    weight = fresh[differing[0]]
    assert not weight[:, 4:].any() and torch.equal(weight[:, :4], known[differing[0]][:, :4])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["motion=flow"], "motion=flow does not exist"),
        (["motion.left_out=1.5"], "expected a share of samples"),
        (["motion=none"], "expected stage=motion_to_video"),
        (["motion=none", "stage=motion_to_video", "motion.left_out=0.5"], "motion.left_out=1"),
        (
            ["motion=optical_flow", "stage=motion_to_video", "stage.corrupted=0.5", "data.corrupted_variants=1"],
            "no corrupted masks",
        ),
    ],
)
def test_settings_that_contradict_each_other(settings: Build, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(*words)
