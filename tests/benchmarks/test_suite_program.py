"""The whole program on a folder of videos: in one part and in three, with samples that can't be scored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.manifest import write_manifest
from benchmarks.run import SUITES
from benchmarks.suite_run import benchmark_samples
from tests.benchmarks.test_run_command import composed
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory

ROOT = SUITES.parents[1]
IDS = ["läuft 犬", "b", "no video", "short"]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Four samples; of one there is no video, of one the reference is too short."""
    folder = tmp_path / "my suite"
    videos = tmp_path / "their videos"
    folder.mkdir()
    videos.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "i.png")
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)
    entries = []
    for number, name in enumerate(IDS):
        length = 2 if name == "short" else 6
        write_video(folder / f"{number}.mp4", noise[:length], 8)
        MaskTrajectory(np.ones((6, 32, 48), np.uint8)).save(folder / f"{number}.npz")
        more = {"reference": f"{number}.mp4", "trajectory": f"{number}.npz", "split": ["single", "multi"][number % 2]}
        entries.append({"id": name, "image": "i.png", "prompt": f"{name} moves.", "category": "x", **more})
        if name != "no video":
            # Another size and rate than the reference: it is the reference that is brought to the video.
            write_video(videos / f"{name}.mp4", noise[: 4 - number % 2, :24, :24], 4 if number == 0 else 8)
    write_manifest(folder, entries)
    return folder


def program(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.run", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["videos=V", "scenes=2"], r"scenes has no part in suite=.*, which is of samples; expected suite=synthetic"),
        (["videos=V", "measures=[stage_one]"], "measures has no part"),
        (["strips=6"], "strips has no part"),
        (["videos=V", "clip.height=32"], "clip.height has no part in videos=V, which are scored as they are"),
        (["videos=V", "sampling.num_inference_steps=1"], "sampling.num_inference_steps has no part"),
        (["videos=V", "give=[plan]"], "give has no part in videos=V"),
        (["videos=V", "dtype=bfloat16"], "dtype has no part"),
        (["videos=V", "model=svd"], "model has no part"),
        (["model=svd", "give=[plan,masks]"], "give has no part in model=svd, whose inputs are always the same"),
        (["model=ti2v:FOLDER", "give=[plan]"], "give has no part in model=ti2v:FOLDER"),
        (["model=few-shot:FOLDER", "give=[trajectory]"], "give has no part in model=few-shot:FOLDER"),
        (["score.features=tiny", "score.weights.clip=x"], "expected none for clip beside them"),
    ],
)
def test_a_setting_that_would_be_left_out_is_refused(suite: Path, words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        benchmark_samples(composed(f"suite={suite}", *words))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["score.metrics=[fdv]"], "no metric 'fdv'"),
        (["score.metrics=[mask-iou]"], "mask-iou needs a model that makes trajectories"),
        (["score.metrics=[cf-adjacent]", "score.weights.clip=nowhere"], "CLIP: there is no 'nowhere'"),
        (["score.features=tyni"], "score.features is 'tyni'; expected tiny"),
    ],
)
def test_scoring_that_can_not_be_had_is_said_before_any_video(
    tmp_path: Path, suite: Path, settings: list[str], said: str
) -> None:
    words = [f"suite={suite}", f"videos={tmp_path / 'their videos'}", f"output={tmp_path / 'out'}", *settings]
    with pytest.raises(ValueError, match=said):
        benchmark_samples(composed(*words))
    assert not (tmp_path / "out").exists()


def test_a_run_that_can_not_be_compared_with_is_said_before_any_video(tmp_path: Path, suite: Path) -> None:
    words = [f"suite={suite}", f"videos={tmp_path / 'their videos'}", f"output={tmp_path / 'out'}"]
    other = tmp_path / "other"
    with pytest.raises(FileNotFoundError, match=f"{other} holds no .*; expected a run that has been scored"):
        benchmark_samples(composed(*words, f"compare=[{other}]"))
    other.mkdir()
    (other / "run.json").write_text(json.dumps({"suite": "another", "samples": []}))
    (other / "scores.json").write_text("{}")
    with pytest.raises(ValueError, match="of the suite 'another'; expected 'my suite'"):
        benchmark_samples(composed(*words, f"compare=[{other}]"))
    assert not (tmp_path / "out").exists()


def test_three_parts_report_what_one_reports(
    tmp_path: Path, suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three jobs of one process, as hydra's launchers run them; and the whole in this process."""
    words = [f"suite={suite}", f"videos={tmp_path / 'their videos'}", "score.metrics=[]"]
    notes = f"hydra.sweep.dir={tmp_path / 'notes'}"
    parts = program("-m", *words, f"output={tmp_path / 'parts'}", "shard=2/3,0/3,1/3", notes)
    assert parts.returncode == 0, parts.stderr[-3000:]
    assert "samples are missing yet" in parts.stdout and parts.stdout.count("FAILED") == 1
    monkeypatch.chdir(tmp_path)
    assert benchmark_samples(composed(*words, f"output={tmp_path / 'whole'}")) == 0
    assert "wrote" in capsys.readouterr().out
    for name in ("scores.json", "run.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    page = (tmp_path / "whole" / "report.html").read_text(encoding="utf-8")
    assert "Failed: 1 of 4 samples" in page and "There is no video no video.mp4" in page
    assert "the reference 3.mp4" in page and "expected at least" in page, "the short one is a warning"
    records = {name: json.loads((tmp_path / "whole/samples" / name / "record.json").read_text()) for name in IDS}
    assert [record["error"] == "" for record in records.values()] == [True, True, False, True]
    assert (records["läuft 犬"]["fps"], records["b"]["fps"]) == (4, 8)
    other = [*words, f"output={tmp_path / 'whole'}", "seed=1"]
    with pytest.raises(ValueError, match=r"videos of another run \(seed 0, not 1\); expected another output"):
        benchmark_samples(composed(*other))
    assert benchmark_samples(composed(*other, "overwrite=true")) == 0
    elsewhere = shutil.copytree(tmp_path / "their videos", tmp_path / "moved" / "their videos")
    with pytest.raises(ValueError, match=r"videos of another run \(videos .*moved"):
        benchmark_samples(composed(f"suite={suite}", f"videos={elsewhere}", f"output={tmp_path / 'whole'}", "seed=1"))
    with pytest.raises(FileNotFoundError, match="expected one with a video"):
        benchmark_samples(composed(f"suite={suite}", f"videos={tmp_path / 'nowhere'}"))
