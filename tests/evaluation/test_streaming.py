"""The stream: every video counted once, faults in their rows, nothing that depends on batches or threads."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import NAMES, write_clip
from tests.metrics.clips import MeanColour
from ttm.data.video_writer import write_video
from ttm.evaluation.inputs import VIDEO_SUFFIXES, Form, Item, find_files, pair
from ttm.evaluation.report import table, to_dict, write_json
from ttm.evaluation.streaming import score_videos
from ttm.metrics.clip import FrameConsistency
from ttm.metrics.fvd import FVD
from ttm.metrics.scoring import Clip
from ttm.motion.mask_trajectory import MaskTrajectory


class Rows(MeanColour):
    """Features [T, 3] of frames: the mean colour of each."""

    def extract(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """One array a clip."""
        self.asked += len(clips)
        return [clip.frames[:, :8, :8].mean(axis=(1, 2)).astype(np.float32) for clip in clips]


def _items(videos: Path, references: Path | None = None) -> list[Item]:
    real = find_files(references, VIDEO_SUFFIXES, "references") if references else None
    return pair(find_files(videos, VIDEO_SUFFIXES, "videos"), real)


@pytest.mark.parametrize(("batch_size", "readers"), [(1, 1), (2, 3), (50, 2)])
def test_batches_and_threads_change_nothing(videos: Path, references: Path, batch_size: int, readers: int) -> None:
    seen: list[str] = []
    metrics = [FrameConsistency(Rows(), "all pairs"), FVD(MeanColour())]
    scores = score_videos(_items(videos, references), metrics, None, batch_size, readers, seen.append)
    once = score_videos(_items(videos, references), [FrameConsistency(Rows(), "all pairs"), FVD(MeanColour())])
    assert [row.name for row in scores.rows] == seen and set(seen) == {*NAMES, "more"}
    for figure, other in zip(scores.figures, once.figures, strict=True):
        assert figure.value == pytest.approx(other.value, rel=1e-9)
    consistency, fvd = scores.figures
    assert consistency.num_videos == 3 and fvd.num_videos == 3 and fvd.convention["references"] == 4
    values = [row.values["CF-all-pairs"] for row in scores.rows if row.name != "more"]
    assert consistency.value == pytest.approx(np.mean(values))
    assert scores.faulty == [] and scores.rows[-1].values == {}


def test_what_cannot_be_read_has_a_row_and_is_in_no_figure(videos: Path, references: Path, tmp_path: Path) -> None:
    (videos / "no video.mp4").write_bytes(b"nothing")
    cut = (videos / "a b.mp4").read_bytes()
    (videos / "cut off.mp4").write_bytes(cut[: len(cut) // 2])
    write_clip(videos / "one frame.mp4", 5, frames=1)
    metrics = [FrameConsistency(Rows(), "adjacent"), FVD(MeanColour())]
    scores = score_videos(_items(videos, references), metrics)
    problems = {row.name: row.problems for row in scores.faulty}
    assert set(problems) == {"no video", "cut off", "one frame"}
    assert "damaged" in problems["no video"]["video"] or "no video" in problems["no video"]["video"]
    assert problems["one frame"] == {
        "CF-adjacent": "1 frame; at least 2 needed",
        "FVD": "video: 1 frames; at least 10 needed",
    }
    assert [figure.num_videos for figure in scores.figures] == [3, 3]
    shown = table(scores)
    assert "3 of 7 videos are missing from some figure" in shown and "cut off: video:" in shown
    assert "FVD: 3 videos: below 400" in shown


def test_the_form_is_of_both_sides(videos: Path, references: Path) -> None:
    write_clip(references / "a b.mp4", 9, frames=20, size=(64, 64), fps=16.0)
    fvd = FVD(MeanColour())
    scores = score_videos(_items(videos, references), [fvd], Form(num_frames=10, fps=8.0, size=(16, 16)))
    assert [row.name for row in scores.faulty] == []
    assert fvd.figure().convention["frames of every video"] == 10
    apart = score_videos(_items(videos, references), [FVD(MeanColour())])
    assert any("20 frames at 16 a second" in reason for row in apart.faulty for reason in row.problems.values())


def test_trajectories_come_with_their_videos(videos: Path, tmp_path: Path) -> None:
    ids = np.zeros((12, 32, 48), np.uint8)
    ids[:, 4:20, 4:20] = 1
    paths = {name: tmp_path / f"{number}.npz" for number, name in enumerate(NAMES)}
    MaskTrajectory(ids).save(paths["a b"])
    MaskTrajectory(ids[:5]).save(paths["sub/c"])
    paths["été 日本"].write_bytes(b"no trajectory")
    items = pair(find_files(videos, VIDEO_SUFFIXES, "videos"), trajectories=paths)
    scores = score_videos(items, [FrameConsistency(Rows(), "adjacent", foreground=True)])
    assert scores.figures[0].num_videos == 1
    problems = {row.name: " ".join(row.problems.values()) for row in scores.faulty}
    MaskTrajectory(ids.repeat(2, axis=0)).save(paths["sub/c"])  # too many is as wrong as too few
    longer = score_videos(items, [FrameConsistency(Rows(), "adjacent", foreground=True)])
    assert longer.figures[0].num_videos == 1 and "sub/c" in {row.name for row in longer.faulty}
    assert "expected [12, 32, 48], as the video" in problems["sub/c"] and "it has no ids" in problems["été 日本"]


@pytest.mark.parametrize("size", [None, (16, 24), (16, 16)])  # as it is, halved, cut at the sides and halved
def test_masks_are_those_of_the_frames_that_are_taken(tmp_path: Path, size: tuple[int, int] | None) -> None:
    """A bright square that moves 2 pixels a frame: the foreground is all bright if its masks are of its frames."""
    frames, ids = np.zeros((12, 32, 48, 3), np.uint8), np.zeros((12, 32, 48), np.uint8)
    for t in range(12):
        at = slice(2 * t + 8, 2 * t + 24)
        frames[t, 8:24, at], ids[t, 8:24, at] = 255, 1
    write_video(tmp_path / "a.mp4", frames, 16)
    MaskTrajectory(ids, 16).save(tmp_path / "a.npz")
    items = pair({"a": tmp_path / "a.mp4"}, trajectories={"a": tmp_path / "a.npz"})
    seen: list[Clip] = []

    class Kept(Rows):
        def extract(self, clips: Sequence[Clip]) -> list[np.ndarray]:
            seen.extend(clips)
            return super().extract(clips)

    form = Form(num_frames=5, fps=8.0, size=size)
    scores = score_videos(items, [FrameConsistency(Kept(), "adjacent", foreground=True)], form)
    assert not scores.faulty and seen[0].num_frames == 5
    lit = (seen[0].frames.mean(-1) > 128).mean(axis=(1, 2))
    assert (lit > 0.9).all(), lit


def test_videos_do_not_stay_in_memory(videos: Path, tmp_path: Path) -> None:
    """However many pass, no more than a batch and what was read ahead are alive."""
    alive: list[weakref.ref[Clip]] = []
    most = 0

    class Watching(Rows):
        def extract(self, clips: Sequence[Clip]) -> list[np.ndarray]:
            nonlocal most
            alive.extend(weakref.ref(clip) for clip in clips)
            most = max(most, sum(clip() is not None for clip in alive))
            return super().extract(clips)

    items = [Item(f"{n}", videos / "a b.mp4") for n in range(12)]
    scores = score_videos(items, [FrameConsistency(Watching(), "adjacent")], batch_size=2)
    assert scores.figures[0].num_videos == 12
    assert most <= 4, "two batches of two: the one at hand, and the one before until it is let go"


def test_the_report_says_what_is_behind_every_figure(videos: Path, tmp_path: Path) -> None:
    scores = score_videos(_items(videos), [FrameConsistency(Rows("colour"), "adjacent")])
    path = tmp_path / "réport.json"
    write_json(path, values := to_dict(scores, {"videos": "somewhere"}))
    import json

    assert json.loads(path.read_text(encoding="utf-8")) == values
    (figure,) = values["figures"]
    assert figure["convention"]["features"] == "colour" and figure["convention"]["pairs"].startswith("adjacent")
    assert figure["num_videos"] == 3 and len(figure["interval"]) == 2
    assert {row["name"] for row in values["videos"]} == set(NAMES)
    assert {"torch", "numpy", "python"} <= set(values["versions"])
    assert values["settings"] == {"videos": "somewhere"}
    with pytest.raises(OSError, match="folder does not exist"):
        write_json(tmp_path / "none" / "x.json", values)
