"""One video a sample: killed, resumed, shared between processes, with samples that fail."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ttm
from benchmarks.generators import Made, VideoFolder, first_frame, first_masks, weights_hash
from benchmarks.manifest import Sample, load_suite, write_manifest
from benchmarks.sample_run import RECORD, SampleRun, sample_seed
from benchmarks.shard import Shard, local_device
from benchmarks.true_clips import nearest_frames, true_trajectory, true_video
from ttm.data.video_reader import read_video
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory


class Painter:
    """Videos of noise from the seed, and a note of every call in a file that processes share."""

    def __init__(self, log: Path, fails: str = "", slow: float = 0.0) -> None:
        self.name, self.identity = "painter", {"version": 1}
        self._log, self._fails, self._slow = log, fails, slow

    def generate(self, sample: Sample, seed: int) -> Made:
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(f"{sample.id}\n")
        time.sleep(self._slow)
        if sample.id == self._fails:
            raise RuntimeError("CUDA out of memory, say")
        rng = np.random.default_rng(seed)
        frames = np.repeat(rng.integers(0, 256, (5, 4, 4, 3), np.uint8), 4, axis=1).repeat(4, axis=2)
        return Made(frames, 8.0, MaskTrajectory(np.ones((5, 16, 16), np.uint8)))

    def inputs(self, sample: Sample) -> list[Path]:
        return []


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    folder = tmp_path / "suite"
    folder.mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "a.png")
    names = [f"Hündin {n} 犬" for n in range(7)]
    write_manifest(folder, [{"id": name, "image": "a.png", "prompt": f"{name} runs."} for name in names])
    return load_suite(folder).samples


def calls(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").splitlines())


def results(folder: Path) -> dict[str, bytes]:
    """Every file of a run but what tells the time."""
    found = {}
    for path in sorted((folder / "samples").rglob("*")):
        if path.is_file() and path.name != ".lock":
            content = path.read_bytes()
            if path.name == RECORD:
                content = json.dumps(json.loads(content) | {"seconds": 0}).encode()
            found[str(path.relative_to(folder))] = content
    return found


def test_three_parts_make_what_one_makes(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    log = tmp_path / "log"
    whole = SampleRun(tmp_path / "one", samples, Painter(log))
    assert whole.generate(say=lambda line: None) == 7 and len(whole.records()) == 7
    for index in (2, 0, 1):
        SampleRun(tmp_path / "three", samples, Painter(log)).generate(Shard(index, 3), say=lambda line: None)
    assert results(tmp_path / "one") == results(tmp_path / "three")
    assert set(calls(log).values()) == {2}


def _run(folder: Path, samples: tuple[Sample, ...], log: Path, slow: float) -> None:
    SampleRun(folder, samples, Painter(log, slow=slow)).generate(say=lambda line: None)


def test_a_killed_run_goes_on_and_does_nothing_twice(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    log, folder = tmp_path / "log", tmp_path / "out"
    log.touch()
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, samples, log, 0.2))
    process.start()
    while len(calls(log)) < 3:
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    run = SampleRun(folder, samples, Painter(log))
    kept = len(run.records())
    assert 2 <= kept < 7
    assert run.generate(say=lambda line: None) == 7 - kept and len(run.records()) == 7
    assert sum(calls(log).values()) <= 8, "at most the sample that was being made is made again"
    assert run.generate(say=lambda line: None) == 0
    whole = SampleRun(tmp_path / "whole", samples, Painter(tmp_path / "other"))
    whole.generate(say=lambda line: None)
    assert results(folder) == results(tmp_path / "whole")


def test_processes_share_a_folder_without_a_word(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    log, folder = tmp_path / "log", tmp_path / "out"
    log.touch()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_run, args=(folder, samples, log, 0.05)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert calls(log) == Counter(sample.id for sample in samples)
    assert len(SampleRun(folder, samples, Painter(log)).records()) == 7


def test_one_failing_sample_costs_one_sample(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    bad = samples[2].id
    said: list[str] = []
    run = SampleRun(tmp_path / "out", samples, Painter(tmp_path / "log", fails=bad))
    assert run.generate(say=said.append) == 7
    records = run.records()
    assert [name for name, record in records.items() if record["error"]] == [bad]
    assert records[bad]["error"] == "CUDA out of memory, say" and records[bad]["kind"] == "RuntimeError"
    assert records[bad]["at"].startswith("test_sample_run.py:")
    assert "FAILED" in said[2] and "left" in said[3]
    assert run.generate(say=said.append) == 0, "it is not tried again unasked"
    healed = SampleRun(tmp_path / "out", samples, Painter(tmp_path / "log"))
    assert healed.generate(retry=True, say=said.append) == 1
    assert not any(record["error"] for record in healed.records().values())


def test_results_of_another_model_seed_or_picture_do_not_count(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    painter = Painter(tmp_path / "log")
    SampleRun(tmp_path / "out", samples, painter).generate(say=lambda line: None)
    assert not SampleRun(tmp_path / "out", samples, painter, seed=1).records()
    painter.identity = {"version": 2}
    assert not SampleRun(tmp_path / "out", samples, painter).records()
    painter.identity = {"version": 1}
    assert len(SampleRun(tmp_path / "out", samples, painter).records()) == 7
    assert samples[0].image is not None
    Image.new("RGB", (16, 16), "blue").save(samples[0].image)
    assert not SampleRun(tmp_path / "out", samples, painter).records()


def test_each_sample_says_what_versions_made_it(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    """A run that goes on after an upgrade."""
    before = SampleRun(tmp_path / "out", samples, Painter(tmp_path / "log"))
    before.versions = before.versions | {"through-the-mask": "0.0.9"}
    before.generate(Shard(0, 2), say=lambda line: None)
    after = SampleRun(tmp_path / "out", samples, Painter(tmp_path / "log", fails=samples[1].id))
    after.generate(say=lambda line: None)
    found = [record["versions"]["through-the-mask"] for record in after.records().values()]
    assert found == ["0.0.9" if n % 2 == 0 else ttm.__version__ for n in range(7)], "the failed one too"


def test_shards_by_hand_and_by_the_launcher() -> None:
    assert Shard.read("1/3") == Shard(1, 3)
    assert Shard.read(None, {}) == Shard(0, 1)
    assert Shard.read(None, {"RANK": "2", "WORLD_SIZE": "4"}) == Shard(2, 4), "accelerate, torchrun"
    assert Shard.read(None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == Shard(0, 2)
    for wrong in ("3/3", "1", "-1/3", "a/b", "1/0"):
        with pytest.raises(ValueError, match="expected k/n"):
            Shard.read(wrong)
    assert local_device("cuda", {"LOCAL_RANK": "1"}) == "cuda:1" and local_device("cuda", {}) == "cuda"
    assert local_device("cpu", {"LOCAL_RANK": "1"}) == "cpu"
    assert sample_seed(0, "a") != sample_seed(0, "b") != sample_seed(1, "b")


def test_a_folder_of_videos_is_a_model(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    folder = tmp_path / "some method"
    folder.mkdir()
    frames = np.full((3, 16, 16, 3), 90, np.uint8)
    for sample in samples[1:]:
        write_video(folder / f"{sample.id}.mp4", frames, 8)
    (folder / f"{samples[1].id}.mp4").write_bytes(b"no video")
    run = SampleRun(tmp_path / "out", samples, VideoFolder(folder))
    run.generate(say=lambda line: None)
    errors = {name: record["error"] for name, record in run.records().items() if record["error"]}
    assert list(errors) == [samples[0].id, samples[1].id]
    assert "There is no video" in errors[samples[0].id] and "no video" in errors[samples[1].id]
    write_video(folder / f"{samples[0].id}.mp4", frames, 8)
    again = SampleRun(tmp_path / "out", samples, VideoFolder(folder))
    assert again.generate(say=lambda line: None) == 1, "a video that is there now counts, unasked"
    with pytest.raises(FileNotFoundError, match="expected one with a video"):
        VideoFolder(tmp_path / "nowhere")


def test_the_truth_comes_at_the_times_of_the_video(tmp_path: Path) -> None:
    assert nearest_frames(4, 8, 24, None, "x").tolist() == [0, 3, 6, 9]
    assert nearest_frames(4, 8, 8, 4, "x").tolist() == [0, 1, 2, 3]
    assert nearest_frames(5, 8, 4, 3, "x").tolist() == [0, 0, 1, 1, 2], "in the middle: the earlier one"
    assert nearest_frames(9, 8, 6, 7, "x").tolist()[-1] == 6
    with pytest.raises(ValueError, match=r"x lasts 0\.38 s; expected at least the 0\.50 s"):
        nearest_frames(4, 8, 8, 3, "x")
    with pytest.raises(ValueError, match=r"5\.33 s; .* 5\.33 s .*: 33 frames at 6 a second, not 32"):
        nearest_frames(128, 24, 6, 32, "x")
    with pytest.raises(ValueError, match="frames a second"):
        nearest_frames(4, 8, 0, 3, "x")
    frames = np.repeat((np.arange(24, dtype=np.uint8) * 10)[:, None, None, None], 32, axis=1)
    write_video(tmp_path / "v.mp4", np.broadcast_to(frames, (24, 32, 64, 3)).copy(), 24)
    found = true_video(tmp_path / "v.mp4", (4, 16, 16), 8)
    assert found.shape == (4, 16, 16, 3)
    assert found.mean(axis=(1, 2, 3)) == pytest.approx([0, 30, 60, 90], abs=4)
    with pytest.raises(ValueError, match=r"the reference v\.mp4"):
        true_video(tmp_path / "v.mp4", (9, 16, 16), 8)
    ids = np.zeros((6, 20, 40), np.uint8)
    ids[:, 5:15, 15:25] = 1
    ids[3:] = 0
    MaskTrajectory(ids, 6.0).save(tmp_path / "t.npz")
    truth = true_trajectory(tmp_path / "t.npz", (5, 10, 10), 6)
    assert truth.fps == 6 and truth.ids.shape == (5, 10, 10)
    assert truth.ids[0, 3:7, 3:7].all() and not truth.ids[0, 0].any() and not truth.ids[3:].any()


def test_a_short_or_damaged_truth_is_a_warning(tmp_path: Path, samples: tuple[Sample, ...]) -> None:
    folder = tmp_path / "suite"
    write_video(folder / "short.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8)
    (folder / "t.npz").write_bytes(b"damaged")
    more: dict[str, Any] = {"image": "a.png", "prompt": "x"}
    write_manifest(folder, [more | {"id": "a", "reference": "short.mp4"}, more | {"id": "b", "trajectory": "t.npz"}])
    run = SampleRun(tmp_path / "out", load_suite(folder).samples, Painter(tmp_path / "log"))
    run.generate(say=lambda line: None)
    first, second = run.records().values()
    assert "expected at least 5" in first["warnings"][0] and "no trajectory" in second["warnings"][0]
    assert not first["error"] and read_video(run.place(run.samples[0]) / "video.mp4").frames.shape[0] == 5


def test_pictures_and_masks_of_a_sample(tmp_path: Path) -> None:
    frames = np.full((3, 16, 16, 3), (200, 20, 20), np.uint8)
    write_video(tmp_path / "v.mp4", frames, 8)
    seen = first_frame(Sample("a", "x", video=tmp_path / "v.mp4"))
    assert np.abs(seen.astype(int) - frames[0]).max() < 12
    with pytest.raises(ValueError, match="no picture"):
        first_frame(Sample("a", "x"))
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "m.png")
    masks = first_masks(Sample("a", "x", masks=tmp_path / "m.png"))
    assert masks is not None and np.array_equal(masks, np.eye(4))
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match="one channel"):
        first_masks(Sample("a", "x", masks=tmp_path / "rgb.png"))
    assert first_masks(Sample("a", "x")) is None


def test_large_files_are_named_by_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.generators._WHOLE_UP_TO", 10)
    monkeypatch.setattr("benchmarks.generators._END", 4)
    seen = set()
    for content in (b"aaaa....bbbb", b"aaaa....bbbc", b"xaaa....bbbb", b"aaaa.....bbbb", b"small", b"smell"):
        (tmp_path / "w").write_bytes(content)
        seen.add(weights_hash([tmp_path / "w"]))
    assert len(seen) == 6
