"""The models that come with the package open by their names and make a video from image and sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttm import Pipeline
from ttm.metrics.mask_iou import mean_iou
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel
from ttm.pipelines.embedded import embedded_models

HOSTS = {"ttm-tiny": MaskedWanTransformer3DModel, "ttm-tiny-unet": MaskedUNetMotionModel}


def test_each_is_known() -> None:
    assert embedded_models() == sorted(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_image_and_sentence_in_video_out(name: str) -> None:
    picture = np.random.default_rng(0).integers(90, 110, (128, 128, 3)).astype(np.uint8)
    picture[50:90, 30:70] = (220, 30, 30)
    ids = (picture[None, ..., 0] > 200).astype(np.uint8)
    pipe = Pipeline.from_pretrained(name, torch_dtype=torch.float32)
    assert isinstance(pipe.transformer, HOSTS[name]) and isinstance(pipe.motion_transformer, HOSTS[name])
    few = {"num_inference_steps": 4, "motion_num_inference_steps": 4, "output_type": "np"}
    made = [
        pipe(picture, "The red square moves right.", generator=torch.Generator().manual_seed(0), **few)
        for _ in range(2)
    ]
    frames, trajectory = made[0].frames[0], made[0].trajectory
    assert frames.shape == (17, 128, 128, 3) and np.isfinite(frames).all()
    assert trajectory.ids.shape == (17, 128, 128) and set(np.unique(trajectory.ids)) == {0, 1}
    assert mean_iou(trajectory.ids[:1], ids) > 0.6
    assert np.array_equal(made[1].frames[0], frames) and made[1].trajectory == trajectory
