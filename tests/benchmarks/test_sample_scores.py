"""Scores of a run: over all samples, each split and each category; motion against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.generators import Made, VideoFolder
from benchmarks.manifest import Sample, load_suite, write_manifest
from benchmarks.motion_scores import motion_scores
from benchmarks.sample_run import SampleRun
from benchmarks.sample_scores import ScoreSettings, check_settings, score_run
from tests.metrics.test_fvd import ScriptedI3D
from ttm.data.video_writer import write_video
from ttm.evaluation.choice import Sources, build_metrics
from ttm.evaluation.inputs import Item
from ttm.evaluation.streaming import score_videos
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import ObjectPrompt, PromptPlan

PLAN = PromptPlan("Ball right, box stays.", "x", (ObjectPrompt("ball", "x"), ObjectPrompt("box", "x")))
WEIGHTS_OF_NOBODY = dict.fromkeys(("i3d", "clip", "viclip", "raft", "segmenter"), "./not/here")


def two_objects(step: float) -> MaskTrajectory:
    """A square that moves right by ``step`` pixels a frame, and one that stays."""
    ids = np.zeros((6, 32, 48), np.uint8)
    for t in range(6):
        left = 4 + round(step * t)
        ids[t, 4:12, left : left + 8] = 1
        ids[t, 20:28, 20:28] = 2
    return MaskTrajectory(ids)


def place_with(folder: Path, made: MaskTrajectory, plan: PromptPlan | None = PLAN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(folder / "trajectory.npz")
    two_objects(4).save(folder / "truth.npz")
    (folder / "plan.json").unlink(missing_ok=True)
    if plan is not None:
        plan.save(folder / "plan.json")
    return folder


def test_motion_against_the_truth(tmp_path: Path) -> None:
    sample = Sample("a", "x", plan=PLAN, motions=("right", "stays"))
    values, problems = motion_scores(place_with(tmp_path / "a", two_objects(4)), sample)
    assert values == {"trajectory IoU": 1.0, "motion right": 1.0} and problems == {}
    values, _ = motion_scores(place_with(tmp_path / "a", two_objects(0)), sample)
    # The ball: 4 of 12 columns in frame 1, none from frame 2 on; the box is right throughout.
    assert values["trajectory IoU"] == pytest.approx((np.mean([4 / 12, 0, 0, 0, 0]) + 1) / 2)
    assert values["motion right"] == 0.5
    values, problems = motion_scores(tmp_path / "a", Sample("a", "x"))
    assert values == {} and "has no plan" in problems["trajectory IoU"], "id 1 is whatever the annotators began with"
    bare = Sample("a", "x", plan=PLAN)
    assert list(motion_scores(tmp_path / "a", bare)[0]) == ["trajectory IoU"]
    assert motion_scores(tmp_path / "nothing", sample) == ({}, {})
    others = PromptPlan("x", "x", (ObjectPrompt("box", "x"), ObjectPrompt("ball", "x")))
    values, problems = motion_scores(place_with(tmp_path / "a", two_objects(4), others), sample)
    assert values == {} and "planned the objects ['box', 'ball']" in problems["motion right"]
    (tmp_path / "a" / "plan.json").unlink()
    (tmp_path / "a" / "truth.npz").write_bytes(b"damaged")
    assert "damaged" in motion_scores(tmp_path / "a", sample)[1]["trajectory IoU"]


@pytest.fixture
def run(tmp_path: Path) -> SampleRun:
    """Six videos with references in two splits, and a sample without a video."""
    suite, videos = tmp_path / "suite", tmp_path / "videos"
    suite.mkdir()
    videos.mkdir()
    Image.new("RGB", (16, 16)).save(suite / "i.png")
    rng = np.random.default_rng(0)
    entries = []
    for n in range(7):
        for path in (suite / f"{n}.mp4", videos / f"{n}.mp4"):
            write_video(path, np.full((10, 16, 16, 3), rng.integers(0, 256, 3), np.uint8), 8)
        entry = {"id": str(n), "image": "i.png", "prompt": "x", "reference": f"{n}.mp4", "category": "ab"[n // 4]}
        entries.append(entry | {"split": ["single", "multi"][n % 2]})
    (videos / "6.mp4").unlink()
    write_manifest(suite, entries)
    made = SampleRun(tmp_path / "out", load_suite(suite).samples, VideoFolder(videos))
    made.generate(say=lambda line: None)
    return made


class Follower:
    """A still picture, and the sample's true trajectory as its motion: predicted, or handed to it."""

    name = "follower"

    def __init__(self, given: bool) -> None:
        self.given, self.identity = given, {"given": given}

    def generate(self, sample: Sample, seed: int) -> Made:
        assert sample.trajectory is not None
        truth = MaskTrajectory.load(sample.trajectory)
        frames = np.zeros((*truth.ids.shape, 3), np.uint8)
        return Made(frames, truth.fps, truth, sample.plan, trajectory_given=self.given)

    def inputs(self, sample: Sample) -> list[Path]:
        return []


def test_a_trajectory_that_was_given_is_not_scored(tmp_path: Path) -> None:
    two_objects(4).save(tmp_path / "true.npz")
    sample = Sample("a", "x", plan=PLAN, trajectory=tmp_path / "true.npz", motions=("right", "stays"))
    found = {}
    for given in (False, True):
        run = SampleRun(tmp_path / str(given), [sample], Follower(given))
        run.generate(say=lambda line: None)
        scores = score_run(run, ScoreSettings(()), tmp_path / "features")
        found[given] = {metric["name"]: metric["figures"][""]["value"] for metric in scores["metrics"]}
    assert found == {False: {"motion right": 1.0, "trajectory IoU": 1.0}, True: {}}


def test_a_metric_of_the_set_is_measured_for_each_split(
    tmp_path: Path, run: SampleRun, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.jit.script(ScriptedI3D()).save(str(tmp_path / "i3d_torchscript.pt"))
    weights = {"i3d": str(tmp_path / "i3d_torchscript.pt")}
    scores = score_run(run, ScoreSettings(("fvd",), weights=weights), tmp_path / "features")
    assert "scored 6/6, 0 s left" in capsys.readouterr().out
    (metric,) = scores["metrics"]
    assert list(metric["figures"]) == ["", "single", "multi"] and metric["categories"] == {}
    assert [figure["count"] for figure in metric["figures"].values()] == [6, 3, 3]
    multi = [run.folder / "samples" / name for name in ("1", "3", "5")]
    items = [Item(place.name, place / "video.mp4", place / "reference.mp4") for place in multi]
    expected = score_videos(items, build_metrics(["fvd"], Sources(**weights), "cpu", None)).figures[0]  # type: ignore[arg-type]
    assert metric["figures"]["multi"]["value"] == pytest.approx(expected.value, rel=1e-6)
    assert metric["figures"]["multi"]["value"] != metric["figures"]["single"]["value"]
    assert any("400" in warning for warning in metric["warnings"])


def test_means_over_splits_and_categories_leave_out_what_failed(
    tmp_path: Path, run: SampleRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = dict(zip("012345", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], strict=True))

    def known(place: Path, sample: Sample) -> tuple[dict[str, float], dict[str, str]]:
        return ({"motion right": values[sample.id]}, {}) if sample.id != "5" else ({}, {"motion right": "damaged"})

    monkeypatch.setattr("benchmarks.sample_scores.motion_scores", known)
    scores = score_run(run, ScoreSettings(()), tmp_path / "features")
    (metric,) = scores["metrics"]
    found = {name: (figure["value"], figure["count"]) for name, figure in metric["figures"].items()}
    assert found == {"": (pytest.approx(0.3), 5), "single": (pytest.approx(0.3), 3), "multi": (pytest.approx(0.3), 2)}
    categories = {name: (figure["value"], figure["count"]) for name, figure in metric["categories"].items()}
    assert categories == {"a": (pytest.approx(0.25), 4), "b": (pytest.approx(0.5), 1)}
    rows: dict[str, Any] = {row["id"]: row for row in scores["samples"]}
    assert rows["5"]["problems"] == {"motion right": "damaged"} and rows["6"]["values"] == {}


def test_absent_weights_are_said_and_an_error_only_if_asked_for(tmp_path: Path, run: SampleRun) -> None:
    scores = score_run(run, ScoreSettings(None, weights=WEIGHTS_OF_NOBODY), tmp_path / "features")
    assert scores["metrics"] == [] and {"fvd", "viclip-t", "viclip-v", "ad"} <= set(scores["not_measured"])
    assert "i3d" in scores["not_measured"]["fvd"]
    with pytest.raises(ValueError, match="FVD"):
        score_run(run, ScoreSettings(("fvd",), weights=WEIGHTS_OF_NOBODY), tmp_path / "features")
    with pytest.raises(ValueError, match="no metric 'fdv'"):
        score_run(run, ScoreSettings(("fdv",)), tmp_path / "features")


def test_what_can_not_be_scored_is_known_before_any_video(tmp_path: Path) -> None:
    with_video, bare = [Sample("a", "x", video=tmp_path / "v.mp4")], [Sample("a", "x", image=tmp_path / "i.png")]
    nobody = ScoreSettings(("fvd",), weights=WEIGHTS_OF_NOBODY)
    for settings, samples, trajectories, said in (
        (ScoreSettings(("fdv",)), with_video, True, "no metric 'fdv'"),
        (ScoreSettings(("viclip-v", "fvd")), bare, True, "viclip-v needs samples with a reference or a video"),
        (ScoreSettings(("mask-iou",)), with_video, False, "mask-iou needs a model that makes trajectories"),
        (ScoreSettings(("ad",), tiny=True), with_video, True, "ad has no stand-in"),
        (nobody, with_video, True, "FVD: there is no"),
    ):
        with pytest.raises(ValueError, match=said):
            check_settings(settings, samples, trajectories)
    check_settings(ScoreSettings(("fvd", "mask-iou"), tiny=True), with_video, True)
    check_settings(ScoreSettings(None, weights=WEIGHTS_OF_NOBODY), bare, False)
    check_settings(ScoreSettings(()), bare, False)


def test_a_run_without_any_video_has_no_scores(tmp_path: Path, run: SampleRun) -> None:
    alone = SampleRun(tmp_path / "none", run.samples[6:], run.model)
    alone.generate(say=lambda line: None)
    scores = score_run(alone, ScoreSettings(None), tmp_path / "features")
    assert scores["metrics"] == [] and scores["not_measured"] == {"everything": "no sample has a video"}
