"""The embedded video encoder: what its features tell apart, and what they don't."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttm.data.synthetic import SyntheticWorld
from ttm.evaluation.video_encoder import TinyVideoFeatures, VideoEncoder, to_clips
from ttm.metrics.scoring import Clip
from ttm.pipelines.embedded import EMBEDDED


@pytest.fixture(scope="module")
def features() -> TinyVideoFeatures:
    return TinyVideoFeatures()


def moving_sideways(way: str) -> list[Clip]:
    """One object a scene, held-out photographs and looks; the same scenes but for the direction of time."""
    world = SyntheticWorld("test", 64, 16, (1, 1), appearance=0.0, motions=("right",), seed=7)
    scenes = [world[index].frames for index in range(24)]
    return [Clip(np.ascontiguousarray(frames[::-1] if way == "left" else frames), 8.0) for frames in scenes]


def test_it_sees_which_way_things_move(features: TinyVideoFeatures) -> None:
    """A line between half of the scenes and their reverse tells the other half: the mean alone can't."""
    right, left = (np.stack(features.extract(moving_sideways(way))) for way in ("right", "left"))
    direction = right[:12].mean(0) - left[:12].mean(0)
    assert ((right[12:] - left[12:]) @ direction > 0).mean() >= 0.9


def test_a_clip_alone_or_among_others_has_the_same_features(features: TinyVideoFeatures) -> None:
    clips = moving_sideways("right")[:3]
    together = features.extract(clips)
    for clip, found in zip(clips, together, strict=True):
        np.testing.assert_allclose(features.extract([clip])[0], found, atol=1e-5)
    assert together[0].shape == (features.width,) and together[0].dtype == np.float32


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 40, 30), (5, 64, 64), (100, 20, 90)])
def test_clips_of_any_length_and_size_are_brought_to_one(frames: int, height: int, width: int) -> None:
    encoder = VideoEncoder(num_frames=8, side=32)
    clip = np.zeros((frames, height, width, 3), np.uint8)
    clip[-1] = 255
    prepared = encoder.prepare(clip)
    assert prepared.shape == (8, 32, 32, 3) and prepared[-1].min() == 255
    assert encoder(to_clips(prepared[None])).shape == (1, 64)


def test_what_is_embedded_is_small() -> None:
    assert sum(path.stat().st_size for path in (EMBEDDED / "ttm-tiny-video").iterdir()) < 5e6


def test_every_parameter_learns() -> None:
    encoder = VideoEncoder(num_frames=8, side=32)
    encoder(torch.rand(2, 8, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
