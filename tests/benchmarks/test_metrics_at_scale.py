"""Metrics at scale, at a small one: what is made, what is printed, and that growth is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.metrics_at_scale import MemoryLog, main, make_videos
from ttm.data.video_reader import read_video


def test_files_are_the_distinct_contents_in_turn(tmp_path: Path) -> None:
    make_videos(tmp_path, count=5, distinct=2, frames=10, size=16, first_seed=0)
    files = sorted(tmp_path.glob("*.mp4"))
    contents = [path.read_bytes() for path in files]
    assert len(files) == 5 and len(set(contents)) == 2 and contents[0] == contents[2] == contents[4]
    assert read_video(files[3]).frames.shape == (10, 16, 16, 3)


def test_growth_is_of_the_second_half() -> None:
    log = MemoryLog(10)
    log.megabytes = [100, 150, 200, 200, 200, 200, 200, 200, 210, 220]
    assert log.growth() == pytest.approx(0.1)


def test_a_run_says_how_many_a_second_and_how_memory_went(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether memory is flat over eight videos is the machine's affair; that it is told is not."""
    small = ["--videos", "8", "--references", "8", "--frames", "10", "--size", "16", "--light"]
    assert main(small) in (0, 1)
    shown = capsys.readouterr().out
    assert "CF-adjacent-colours" in shown and "N 8" in shown
    assert "8 videos of 10 frames, 16 x 16, without networks:" in shown and "videos a second on cpu" in shown
    assert "over the second half" in shown
