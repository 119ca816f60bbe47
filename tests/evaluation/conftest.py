"""Folders of small videos, with names that are no plain ASCII words."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from ttm.data.video_writer import write_video

NAMES = ("a b", "été 日本", "sub/c")


def write_clip(path: Path, seed: int, frames: int = 12, size: tuple[int, int] = (32, 48), fps: float = 8.0) -> None:
    """A picture of blocks that drifts to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3)).astype(np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    write_video(path, np.stack([np.roll(picture, 2 * t, axis=1) for t in range(frames)]), fps)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos, one of them in a subfolder."""
    for seed, name in enumerate(NAMES):
        write_clip(tmp_path / "videos" / f"{name}.mp4", seed)
    return tmp_path / "videos"


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """A reference for each video, its name written as another system would, and one more."""
    for seed, name in enumerate(NAMES):
        write_clip(tmp_path / "real" / f"{unicodedata.normalize('NFD', name)}.mp4", 10 + seed)
    write_clip(tmp_path / "real" / "more.mp4", 20)
    return tmp_path / "real"
