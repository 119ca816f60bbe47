from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stages.settings import Settings
from stages.tracking import Tracker, gif_bytes
from stages.train import run

Build = Callable[..., Settings]


def test_gif_holds_every_frame_at_its_pace() -> None:
    frames = np.zeros((5, 16, 24, 3), np.uint8)
    for t in range(5):
        frames[t, :, 4 * t : 4 * t + 4] = (255, 0, 0)
    picture = Image.open(io.BytesIO(gif_bytes(frames, fps=8)))
    assert picture.n_frames == 5 and picture.size == (24, 16) and picture.info["duration"] == 120
    for t in range(5):
        picture.seek(t)
        np.testing.assert_allclose(np.asarray(picture.convert("RGB")).astype(int), frames[t], atol=8)


@pytest.mark.parametrize(
    ("stage", "host"), [("image_to_motion", "wan"), ("motion_to_video", "wan"), ("motion_to_video", "unet")]
)
def test_a_run_shows_numbers_and_videos_in_tensorboard(settings: Build, stage: str) -> None:
    made = settings(
        f"stage={stage}", "tracker=tensorboard", "max_steps=2", "sample_every=2", "sample_scenes=2", "sample_steps=1"
    )
    run(made)
    events = EventAccumulator(str(Path(made.output_dir) / "tensorboard")).Reload()
    assert {"train/loss", "train/lr", "train/gradient_norm", "train/clips_per_second"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    shown = events.Images("samples")
    assert [event.step for event in shown] == [2]
    picture = Image.open(io.BytesIO(shown[0].encoded_image_string))
    assert picture.size == (64, 64) and picture.n_frames >= 2  # two scenes side by side, the true clip below


def test_samples_leave_the_training_as_it_was(settings: Build, tmp_path: Path) -> None:
    logs = []
    for every in (0, 1):
        sampling = [f"sample_every={every}", "sample_scenes=1", "sample_steps=1"]
        made = settings("max_steps=3", *sampling, f"output_dir={tmp_path / str(every)}")
        run(made)
        lines = (Path(made.output_dir) / "log.jsonl").read_text().splitlines()
        logs.append([json.loads(line)["loss"] for line in lines])
    assert logs[0] == logs[1]


def test_without_tensorboard_the_log_remains(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "none", 0)
    tracker.numbers(3, {"loss": 0.123456789})
    tracker.videos(3, "samples", [np.zeros((2, 4, 4, 3), np.uint8)])
    tracker.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "loss": 0.123457}
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
