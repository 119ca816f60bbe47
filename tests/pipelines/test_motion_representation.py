"""Pipelines ask the representation of motion, and never which one it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ttm import MaskTrajectory, Pipeline, PromptPlan
from ttm.motion.optical_flow import FlowTrajectory, flow_from_video
from ttm.objects import whole_plan

Make = Callable[..., Pipeline]
Seeded = Callable[[int], torch.Generator]
Pixels = NDArray[np.uint8]


@pytest.mark.parametrize("host", ["wan", "unet"])
def test_stage_1_predicts_flow_and_stage_2_follows_it(
    make_pipeline: Make, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    pipe = make_pipeline(motion="optical_flow")
    out = pipe(image, plan=plan, masks=masks, generator=seeded(0), output_type="np")
    assert isinstance(out.trajectory, FlowTrajectory)
    np.testing.assert_array_equal(out.trajectory.ids[0], masks)
    alone = pipe.image_to_motion(image, plan, masks, generator=seeded(0))
    np.testing.assert_array_equal(alone.trajectory.flow, flow_from_video(alone.frames))
    again = pipe(image, plan=plan, trajectory=out.trajectory, generator=seeded(0), output_type="np")
    np.testing.assert_array_equal(again.frames, out.frames)
    still = FlowTrajectory(out.trajectory.ids, np.zeros_like(out.trajectory.flow))
    other = pipe(image, plan=plan, trajectory=still, generator=seeded(0), output_type="np")
    assert not np.array_equal(other.frames, out.frames)


def test_a_flow_model_needs_a_flow_and_a_mask_model_takes_its_masks(
    make_pipeline: Make, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    ids = np.repeat(masks[None], 5, axis=0)
    with pytest.raises(ValueError, match="knows no optical flow"):
        make_pipeline(motion="optical_flow")(image, plan=plan, trajectory=MaskTrajectory(ids))
    flow = FlowTrajectory(ids, np.ones((4, 32, 32, 2), np.float32))
    frames = [
        make_pipeline()(image, plan=plan, trajectory=moves, generator=seeded(0), output_type="np").frames
        for moves in (flow, MaskTrajectory(ids))
    ]
    np.testing.assert_array_equal(*frames)


def test_without_motion_the_trajectory_and_the_local_prompts_change_nothing(
    make_pipeline: Make, image: Pixels, masks: Pixels, plan: PromptPlan, seeded: Seeded
) -> None:
    pipe = make_pipeline(motion="none")
    ids = np.repeat(masks[None], 5, axis=0)
    frames = [
        pipe.motion_to_video(image, told, MaskTrajectory(moves), generator=seeded(0), output_type="np").frames
        for told, moves in ((plan, ids), (whole_plan(plan.prompt), np.where(ids == 1, 1, 0).astype(np.uint8)))
    ]
    np.testing.assert_array_equal(*frames)


def test_the_representation_is_saved_with_the_pipeline(make_pipeline: Make, tmp_path: Path) -> None:
    make_pipeline(motion="optical_flow").save_pretrained(tmp_path)
    pipe = Pipeline.from_pretrained(tmp_path)
    assert pipe.config.motion == pipe.image_to_motion.config.motion == pipe.motion_to_video.config.motion
    assert pipe.config.motion == "optical_flow"
    with pytest.raises(ValueError, match="no motion representation 'flow'"):
        make_pipeline(motion="flow").motion_to_video  # noqa: B018 - the view is made when it is asked for
