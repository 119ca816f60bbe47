"""Small videos with known objects, for every test of the preparation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tools.prepare.settings import ClipSettings
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory

SIZE = (32, 48)


def moving_square(num_frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, 32, 48, 3] and ids [T, 32, 48]: a white square that moves right over a grey by the seed."""
    frames = np.full((num_frames, *SIZE, 3), 20 + 15 * (seed % 8), np.uint8)
    ids = np.zeros((num_frames, *SIZE), np.uint8)
    for time in range(num_frames):
        left = min(2 * time, 36)
        ids[time, 10:20, left : left + 10] = 1
    frames[ids == 1] = 255
    return frames, ids


@pytest.fixture
def small_clips() -> ClipSettings:
    """Clips of 5 frames of 32 x 48 at 8 a second, four to a shard, without their videos."""
    return ClipSettings(num_frames=(5,), fps=8.0, sizes=(SIZE,), clips_per_shard=4, keep_video=False)


@pytest.fixture
def add_video() -> Callable[..., Path]:
    """add_video(path, num_frames=10, seed=0, fps=8, masks=True): a video, and its ids beside it."""
    return _add_video


def _add_video(path: Path, num_frames: int = 10, seed: int = 0, fps: float = 8.0, masks: bool = True) -> Path:
    frames, ids = moving_square(num_frames, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, fps)
    if masks:
        MaskTrajectory(ids, fps).save(path.with_suffix(".npz"))
    return path
