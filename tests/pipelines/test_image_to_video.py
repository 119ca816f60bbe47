"""Pipeline: image and sentence in, video and trajectory out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from PIL import Image

from ttm import MaskTrajectory, Pipeline, PromptPlan
from ttm.motion.carried_frame import carry_first_frame
from ttm.pipelines.autoencoders import encode_video, latent_shape
from ttm.pipelines.inputs import to_model

Make = Callable[..., Pipeline]
Seeded = Callable[[int], torch.Generator]
Pixels = NDArray[np.uint8]
BOTH_HOSTS = pytest.mark.parametrize("host", ["wan", "unet"])


@BOTH_HOSTS
def test_image_and_sentence_give_video_trajectory_and_plan(
    make_pipeline: Make, image: Pixels, masks: Pixels, prompt: str, plan: PromptPlan, seeded: Seeded
) -> None:
    pipe = make_pipeline(with_segmenter=True)
    out = pipe(Image.fromarray(image), prompt, generator=seeded(0))
    assert len(out.frames) == 1 and len(out.frames[0]) == 5
    assert all(isinstance(frame, Image.Image) and frame.size == (32, 32) for frame in out.frames[0])
    assert out.plan == plan
    assert out.trajectory.ids.shape == (5, 32, 32) and out.trajectory.fps == 8.0
    assert set(out.trajectory.object_ids) <= {1, 2}
    np.testing.assert_array_equal(out.first_ids, masks)
    np.testing.assert_array_equal(out.first_frame, image)
    assert set(out.seconds) == {"plan", "segment", "image_to_motion", "motion_to_video"}
    assert len(pipe.segmenter.seen) == 1


def test_masks_as_ids_and_as_booleans_skip_the_segmenter_alike(
    make_pipeline: Make, image: Pixels, masks: Pixels, prompt: str, seeded: Seeded
) -> None:
    pipe = make_pipeline(with_segmenter=True)
    given = [masks.astype(np.int64), [masks == 1, masks == 2]]
    outs = [pipe(image, prompt, masks=item, generator=seeded(0), output_type="np") for item in given]
    found = pipe(image, prompt, generator=seeded(0), output_type="np")
    assert len(pipe.segmenter.seen) == 1
    assert "segment" not in outs[0].seconds
    for out in outs:
        np.testing.assert_array_equal(out.frames, found.frames)


def test_a_generator_decides_and_none_does_not(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    def frames(generator: Any) -> Any:
        return pipe(image, plan=plan, masks=masks, generator=generator, output_type="pt").frames

    assert torch.equal(frames(seeded(3)), frames(seeded(3)))
    assert not torch.equal(frames(seeded(3)), frames(seeded(4)))
    assert not torch.equal(frames(None), frames(None))
    assert torch.equal(frames([seeded(3)]), frames(seeded(3)))


@BOTH_HOSTS
def test_a_trajectory_handed_back_in_gives_the_video_of_its_run(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    first = pipe(image, plan=plan, masks=masks, generator=seeded(5), output_type="np")
    again = pipe(image, plan=plan, trajectory=first.trajectory, generator=seeded(5), output_type="np")
    np.testing.assert_array_equal(again.frames, first.frames)
    assert again.trajectory == first.trajectory
    assert "image_to_motion" not in again.seconds


@BOTH_HOSTS
def test_the_stage_alone_makes_the_trajectory_of_the_whole_run(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    whole = pipe(image, plan=plan, masks=masks, generator=seeded(6), output_type="latent")
    alone = pipe.image_to_motion(image, plan, masks, generator=seeded(6))
    assert alone.trajectory == whole.trajectory


@BOTH_HOSTS
def test_a_host_may_see_the_image_carried_along_the_trajectory(
    make_pipeline: Make, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    moves = MaskTrajectory(np.stack([np.roll(masks, 3 * t, axis=1) for t in range(5)]))

    def condition(motion: str, carried: bool) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        stage = make_pipeline(motion=motion).motion_to_video
        stage.transformer.register_to_config(carried_first_frame=carried)
        stage.transformer.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["condition_latents"]), with_kwargs=True
        )
        stage(image, plan, moves, generator=seeded(0), output_type="latent")
        shown = next(sample for sample in torch.cat(seen) if sample.any())  # guidance leaves it out of some
        return shown[None, : len(shown) // 2]

    first = encode_video(make_pipeline().vae, to_model(image[None], torch.device("cpu")))
    carried = encode_video(make_pipeline().vae, to_model(carry_first_frame(image, moves.ids), torch.device("cpu")))
    torch.testing.assert_close(condition("masks", True), carried)
    still = condition("masks", False)
    torch.testing.assert_close(still, first.expand_as(still))
    assert not torch.allclose(still, carried)
    assert torch.equal(condition("none", True), still), "nothing moves there"


@BOTH_HOSTS
def test_the_trajectory_and_the_local_prompts_reach_the_video(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    def latents(plan: PromptPlan, ids: Pixels) -> torch.Tensor:
        moves = MaskTrajectory(np.repeat(ids[None], 5, axis=0))
        return pipe(image, plan=plan, trajectory=moves, generator=seeded(0), output_type="latent").frames

    swapped = replace(plan, objects=(plan.objects[1], plan.objects[0]))
    base = latents(plan, masks)
    assert not torch.allclose(base, latents(swapped, masks), atol=1e-4)
    assert not torch.allclose(base, latents(plan, np.roll(masks, 6, axis=1)), atol=1e-4)
    # A phrase grounds the segmentation alone; the models never read it.
    renamed = replace(plan, objects=tuple(replace(item, phrase="thing") for item in plan.objects))
    assert torch.equal(base, latents(renamed, masks))


@BOTH_HOSTS
@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_output_types_show_the_same_video(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded, output_type: str
) -> None:
    def run(kind: str) -> Any:
        return pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type=kind).frames

    frames, floats = run(output_type), run("np")
    assert floats.shape == (1, 5, 32, 32, 3)
    if output_type == "pil":
        stacked = np.stack([np.asarray(frame) for frame in frames[0]])
        np.testing.assert_array_equal(stacked, (floats[0] * 255).round().astype(np.uint8))
    if output_type == "pt":
        np.testing.assert_allclose(frames[0].permute(0, 2, 3, 1).numpy(), floats[0], atol=1e-6)
    if output_type == "latent":
        assert frames.shape == latent_shape(pipe.vae, 5, 32, 32)


@pytest.mark.parametrize("host", ["unet"])
def test_an_image_autoencoder_takes_any_number_of_frames_and_every_eighth_pixel(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    out = pipe(image, plan=plan, masks=masks, num_frames=4, height=40, width=40, generator=seeded(0))
    assert out.trajectory.ids.shape == (4, 40, 40) and len(out.frames[0]) == 4


@pytest.mark.parametrize("host", ["unet"])
def test_hosts_and_schedulers_can_be_put_together_freely(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    """Nothing downstream asks which host it is: here the U-Net is sampled by flow matching in stage 1 alone."""
    pipe.motion_scheduler = FlowMatchEulerDiscreteScheduler()
    out = pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type="np")
    assert np.isfinite(out.frames).all()


def test_no_dict_gives_a_tuple(pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded) -> None:
    frames, trajectory, given = pipe(
        image, plan=plan, masks=masks, generator=seeded(0), output_type="np", return_dict=False
    )
    assert frames.shape == (1, 5, 32, 32, 3) and trajectory.num_frames == 5 and given is plan


@BOTH_HOSTS
def test_another_size_and_length(pipe: Pipeline, plan: PromptPlan, seeded: Seeded) -> None:
    picture = np.zeros((60, 200, 3), np.uint8)
    ids = np.zeros((60, 200), np.uint8)
    ids[10:20, 80:90], ids[30:40, 110:120] = 1, 2
    out = pipe(picture, plan=plan, masks=ids, num_frames=9, height=32, width=48, generator=seeded(0))
    assert out.trajectory.ids.shape == (9, 32, 48)
    assert out.frames[0][0].size == (48, 32) and len(out.frames[0]) == 9


def test_settings_of_the_pipeline_stand_in_for_arguments(
    make_pipeline: Make, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    def frames(pipe: Pipeline, **arguments: Any) -> Any:
        moves = pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type="np", **arguments)
        return moves.frames

    settings = {"num_inference_steps": 3, "guidance_scale": 2.0, "image_guidance_scale": 1.2}
    both = {**settings, **{f"motion_{name}": value for name, value in settings.items()}}
    np.testing.assert_array_equal(frames(make_pipeline(**both)), frames(make_pipeline(), **settings))
    apart = make_pipeline(**settings, motion_guidance_scale=5.0)
    assert not np.array_equal(frames(apart), frames(apart, motion_guidance_scale=1.0))


@BOTH_HOSTS
def test_the_callback_sees_both_stages_and_can_change_the_latents(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    seen = []

    def callback(owner: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((owner is pipe, owner.stage, step, owner.num_timesteps, set(tensors)))
        assert 0 < float(timestep) <= 1000 and owner.guidance_scale == 3.0
        return {"latents": torch.zeros_like(tensors["latents"])} if owner.stage == "motion_to_video" else {}

    out = pipe(
        image,
        plan=plan,
        masks=masks,
        generator=seeded(0),
        output_type="latent",
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )
    names = {"latents", "prompt_embeds"}
    stages = ("image_to_motion", "motion_to_video")
    assert seen == [(True, stage, step, 2, names) for stage in stages for step in range(2)]
    assert not out.frames.any()


def test_a_callback_can_stop_a_stage(
    pipe: Pipeline, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    steps = []

    def callback(owner: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> None:
        steps.append((owner.stage, step))
        owner._interrupt = True

    pipe(
        image,
        plan=plan,
        masks=masks,
        num_inference_steps=4,
        generator=seeded(0),
        callback_on_step_end=callback,
    )
    assert steps == [("image_to_motion", 0), ("motion_to_video", 0)]


def test_a_planner_of_the_user(make_pipeline: Make, image: Pixels, masks: Pixels, plan: PromptPlan) -> None:
    class Fixed:
        def plan(self, prompt: str) -> PromptPlan:
            return replace(plan, prompt=prompt)

    pipe = make_pipeline(planner=Fixed())
    assert pipe(image, "anything at all", masks=masks).plan.prompt == "anything at all"


def test_segmentation_sees_only_what_the_video_shows(make_pipeline: Make, plan: PromptPlan) -> None:
    picture = np.full((40, 100, 3), 90, np.uint8)
    picture[5:15, 40:50], picture[20:30, 50:60] = (230, 0, 0), (0, 0, 230)
    pipe = make_pipeline(with_segmenter=True)
    ids = pipe.segment(picture, plan)
    assert ids.shape == (40, 100)
    assert set(map(tuple, np.argwhere(ids == 1))) == {(y, x) for y in range(5, 15) for x in range(40, 50)}
    picture[5:15, 40:50] = 90
    picture[5:15, 0:10] = (230, 0, 0)  # outside of the centred square
    with pytest.raises(ValueError, match=r"masks hold the ids \[2\]; expected \[1, 2\]"):
        pipe.segment(picture, plan)


def test_a_large_image_is_segmented_at_the_segmenters_own_size(make_pipeline: Make, plan: PromptPlan) -> None:
    picture = np.full((900, 700, 3), 90, np.uint8)
    picture[300:400, 200:300], picture[500:560, 400:500] = (230, 0, 0), (0, 0, 230)
    pipe = make_pipeline(with_segmenter=True)
    pipe.segmenter.sam2 = torch.nn.Module()
    pipe.segmenter.sam2.image_size = 64
    ids = pipe.segment(picture, plan)
    assert pipe.segmenter.seen == [(64, 64)]
    for number, (top, left, height, width) in ((1, (300, 200, 100, 100)), (2, (500, 400, 60, 100))):
        rows, columns = np.nonzero(ids == number)
        corners = (rows.min(), columns.min(), rows.max() + 1 - rows.min(), columns.max() + 1 - columns.min())
        np.testing.assert_allclose(corners, (top, left, height, width), atol=14)  # a pixel of 64 is 11 wide


def test_a_run_whose_objects_all_vanish_still_ends(
    pipe: Pipeline,
    image: Pixels,
    masks: Pixels,
    plan: PromptPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stage 1 may fail; what it made is shown all the same, not hidden behind an error."""
    blank = MaskTrajectory(np.zeros((5, 32, 32), np.uint8))
    frames = blank.to_video()
    monkeypatch.setattr("ttm.ImageToMotionPipeline._decode", lambda *arguments: (blank, frames))
    out = pipe(image, plan=plan, masks=masks)
    assert out.trajectory == blank and len(out.frames[0]) == 5
