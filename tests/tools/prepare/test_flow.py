"""The whole preparation in this process: what comes out, what is left out, what a kill or a full disk does."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tools.prepare import flow, steps
from tools.prepare.check import faults
from tools.prepare.draft import Draft
from tools.prepare.flow import CannotGoOn, InProcess, Job, Kept, prepare
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.sources import Source
from tools.prepare.steps import Reading, Watch
from tools.prepare.windows import Window
from tools.prepare.work import Work, read_rejects
from ttm.data.clip_manifest import MANIFEST, REJECTS, ClipFolderManifest
from ttm.data.prepared_clips import digest_of, read_clips, read_members, write_shard
from ttm.data.video_reader import read_video
from ttm.motion.mask_trajectory import MaskTrajectory

ROOT = Path(__file__).parents[3]
NONE = ModelSettings()


def run(folder: Path, out: Path, clips: ClipSettings, **more: object) -> tuple[int, int]:
    return prepare(folder, out, clips, NONE, say=lambda line: None, **more)  # type: ignore[arg-type]


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


@pytest.fixture
def videos(tmp_path: Path, add_video: Callable[..., Path]) -> Path:
    """Three sources, of 4, 2 and 1 clips."""
    for seed, (name, num_frames) in enumerate((("b", 20), ("a/long", 14), ("c", 5))):
        add_video(tmp_path / f"videos/{name}.mp4", num_frames, seed)
    return tmp_path / "videos"


def test_clips_come_out_as_they_went_in(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    (videos / "b.txt").write_text("The white square moves right.")
    assert run(videos, tmp_path / "out", replace(small_clips, keep_video=True)) == (7, 0)
    clips = list(read_clips(tmp_path / "out"))
    assert [clip.source for clip in clips] == ["a/long.mp4"] * 2 + ["b.mp4"] * 4 + ["c.mp4"]
    frames, ids = read_video(videos / "b.mp4").frames, MaskTrajectory.load(videos / "b.npz").ids
    for number, clip in enumerate(clip for clip in clips if clip.source == "b.mp4"):
        part = slice(5 * number, 5 * number + 5)
        np.testing.assert_array_equal(clip.trajectory.ids, ids[part])
        assert clip.frame_digest == digest_of(frames[part]) and clip.fps == 8
        assert np.abs(clip.frames().astype(int) - frames[part]).mean() < 3
        assert clip.start_seconds == number * 0.625
        assert (clip.caption, clip.plan.phrases) == ("The white square moves right.", ["white square"])
    assert [clip for clip in clips if clip.source == "c.mp4"][0].plan.motion_prompt == "the object 1 moves right"
    rows = ClipFolderManifest.load(tmp_path / "out").rows
    assert {row.shard for row in rows} == {"shard-00000.tar", "shard-00001.tar"}
    assert list(faults(tmp_path / "out")) == [] and (tmp_path / "out" / REJECTS).read_text().count("\n") == 1


def test_the_same_command_again_changes_nothing(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    run(videos, tmp_path / "out", small_clips)
    before = results(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)
    assert results(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")} == times


def test_a_shard_that_was_removed_is_made_again(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    run(videos, tmp_path / "out", small_clips)
    before = results(tmp_path / "out")
    (tmp_path / "out" / "shard-00001.tar").unlink()  # as the error of a damaged one advises
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)
    assert results(tmp_path / "out") == before


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize(
    ("place", "calls"), [("cut_one", 3), ("with_models", 1), ("keep", 5), ("pack", 1), ("begun", 2)]
)
def test_whatever_is_killed_the_same_bytes_come_out(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, monkeypatch: pytest.MonkeyPatch, place: str, calls: int
) -> None:
    owner = Work if place in ("pack", "begun") else flow
    real, count = getattr(owner, place), 0

    def deadly(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == calls:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, deadly)
        try:
            run(videos, tmp_path / "out", small_clips, sources_a_batch=2)
        except Killed:
            assert not (tmp_path / "out" / MANIFEST).exists()
    assert run(videos, tmp_path / "out", small_clips, sources_a_batch=2) == (7, 0)
    assert list(faults(tmp_path / "out")) == [] and not list((tmp_path / "out" / "work/records").glob("*"))
    run(videos, tmp_path / "whole", small_clips, sources_a_batch=2)
    assert results(tmp_path / "whole") == results(tmp_path / "out")


def test_a_process_killed_by_its_own_id(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    code = f"""
import os, signal
from pathlib import Path
from tools.prepare import flow
from tools.prepare.settings import ClipSettings, ModelSettings
keep, kept = flow.keep, []
def deadly(job, item):
    kept.append(keep(job, item))
    if len(kept) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept[-1]
flow.keep = deadly
flow.prepare(Path({str(videos)!r}), Path({str(tmp_path / "out")!r}), {small_clips!r}, ModelSettings())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out" / MANIFEST).exists() and list((tmp_path / "out" / "work/records").rglob("*.tar"))
    assert run(videos, tmp_path / "out", small_clips) == run(videos, tmp_path / "whole", small_clips)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_records_that_a_loss_of_power_damaged_are_made_again(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(videos, tmp_path / "whole", small_clips)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Work, "pack", lambda *arguments: (_ for _ in ()).throw(Killed()))
        run(videos, tmp_path / "out", small_clips)
    for record in (tmp_path / "out" / "work/records").rglob("*.tar"):
        record.write_bytes(record.read_bytes()[:700])
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_new_sources_are_added(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, add_video: Callable[..., Path]
) -> None:
    run(videos, tmp_path / "out", small_clips)
    before = results(tmp_path / "out")
    add_video(videos / "a/first.mp4", 10, 5)
    assert run(videos, tmp_path / "out", small_clips) == (9, 0)
    after = results(tmp_path / "out")
    assert {name: after[name] for name in before if name.endswith(".tar")} == {
        name: content for name, content in before.items() if name.endswith(".tar")
    }
    assert set(before[MANIFEST].splitlines()) < set(after[MANIFEST].splitlines())


def test_other_settings_need_another_folder(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    run(videos, tmp_path / "out", small_clips)
    with pytest.raises(ValueError, match="fps was 8.0 and is 4.0"):
        run(videos, tmp_path / "out", replace(small_clips, fps=4.0))
    with pytest.raises(ValueError, match="lies in the folder"):
        run(videos, videos / "out", small_clips)
    with Work(tmp_path / "out").alone(), pytest.raises(ValueError, match="Another run is at work"):
        run(videos, tmp_path / "out", small_clips)


@pytest.mark.parametrize("left", [MANIFEST, "shard-00000.tar"])
def test_a_finished_folder_without_its_state_is_not_written_over(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, left: str
) -> None:
    out = tmp_path / "out"
    run(videos, out, small_clips)
    shutil.rmtree(out / "work")  # as docs/preparing_data.md allows
    for name in results(out).keys() - {left}:
        (out / name).unlink()
    before = results(out)
    with pytest.raises(ValueError, match=f"out holds {left} .*expected a new folder"):
        run(videos, out, small_clips)
    assert results(out) == before


def sound(path: Path) -> None:
    with wave.open(str(path.with_suffix(".wav")), "wb") as stream:
        stream.setnchannels(1), stream.setsampwidth(2), stream.setframerate(8000)
        stream.writeframes(b"\0\0" * 8000)
    with av.open(str(path.with_suffix(".wav"))) as read, av.open(str(path), "w") as written:
        stream_out = written.add_stream("aac", rate=8000)
        for frame in read.decode(audio=0):
            written.mux(stream_out.encode(frame))
        written.mux(stream_out.encode(None))
    path.with_suffix(".wav").unlink()


def test_bad_sources_are_told_and_the_others_prepared(
    tmp_path: Path, small_clips: ClipSettings, add_video: Callable[..., Path]
) -> None:
    videos = tmp_path / "videos"
    whole = add_video(videos / "good.mp4", 10)
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.mp4").write_text("no video")
    (videos / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sound(videos / "sound.mp4")
    with av.open(str(videos / "frameless.mp4"), "w") as container:
        container.add_stream("libx264", rate=8)
        container.start_encoding()
    add_video(videos / "short.mp4", 4)
    add_video(videos / "slow.mp4", 10, fps=4)
    add_video(videos / "nameless.mp4", 10, masks=False)
    other = add_video(videos / "other-size.mp4", 10)
    MaskTrajectory(np.ones((10, 16, 16), np.uint8), 8).save(other.with_suffix(".npz"))
    fewer = add_video(videos / "fewer.mp4", 10)
    MaskTrajectory(np.ones((9, 32, 48), np.uint8), 8).save(fewer.with_suffix(".npz"))
    late = add_video(videos / "late.mp4", 5)
    ids = MaskTrajectory.load(late.with_suffix(".npz")).ids
    ids[0] = 0
    MaskTrajectory(ids, 8).save(late.with_suffix(".npz"))
    (videos / "damaged.mp4").write_bytes(whole.read_bytes())
    (videos / "damaged.npz").write_bytes(b"x")
    assert run(videos, tmp_path / "out", small_clips)[0] == 2
    told = {(row["source"], row["stage"]): row["reason"] for row in read_rejects(tmp_path / "out")}
    expected = {
        ("empty.mp4", "cut"): "0 bytes", ("text.mp4", "cut"): "no video", ("cut.mp4", "cut"): "cut off|damaged",
        ("sound.mp4", "cut"): "no video stream", ("frameless.mp4", "cut"): "holds no frame|no video|cut off",
        ("short.mp4", "cut"): "4 frames at 8", ("slow.mp4", "cut"): "4 frames a second",
        ("nameless.mp4", "caption"): "no caption", ("other-size.mp4", "masks"): "16 x 16 pixels; expected 48 x 32",
        ("fewer.mp4", "masks"): "9 masks; expected 10", ("late.mp4", "masks"): "first frame",
        ("damaged.mp4", "masks"): "damaged.npz",
    }  # fmt: skip
    assert set(told) == set(expected)
    for key, words in expected.items():
        assert any(word in told[key] for word in words.split("|")), (key, told[key])
    assert not any(str(tmp_path) in reason for reason in told.values())
    again = tmp_path / "again"
    run(videos, again, small_clips)
    assert results(again) == results(tmp_path / "out")


def test_a_full_disk_ends_the_run_with_one_error(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(videos, tmp_path / "whole", small_clips)
    real = flow.finish_clip

    def full(work: Work, draft: object, settings: ClipSettings) -> None:
        if len(list(work.folder.rglob("*.tar"))) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(work, draft, settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(CannotGoOn, match="No space left.*same command goes on"):
        patch.setattr(flow, "finish_clip", full)
        run(videos, tmp_path / "out", small_clips)
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_shard_that_does_not_fit_on_the_disk(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    """By a limit on the size of files, which stops the writing within the second clip of a shard."""
    run(videos, tmp_path / "whole", small_clips)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, limits[1]))
    try:
        with pytest.raises(CannotGoOn, match="too large"):
            run(videos, tmp_path / "out", small_clips)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "out").glob("*.tar")) and not list((tmp_path / "out").glob(".*"))
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)
    assert results(tmp_path / "out") == results(tmp_path / "whole")


class Losing(InProcess):
    """Loses half of what is asked of it, as dying workers do; or all."""

    def __init__(self, keeps: int) -> None:
        self.keeps = keeps

    def cut(self, job: Job, sources: Sequence[object]) -> Iterator[object]:  # type: ignore[override]
        return super().cut(job, sources[: -(-len(sources) * self.keeps // 2)])  # type: ignore[arg-type]

    def prepare(self, job: Job, readings: Sequence[Reading]) -> Iterator[Kept]:  # type: ignore[override]
        return super().prepare(job, readings[: -(-len(readings) * self.keeps // 2)])  # type: ignore[return-value]


def test_what_workers_lose_is_asked_for_again(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    run(videos, tmp_path / "whole", small_clips)
    assert run(videos, tmp_path / "out", small_clips, runner=Losing(1)) == (7, 0)
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="None of 3 sources came back"):
        run(videos, tmp_path / "none", small_clips, runner=Losing(0))


def test_a_clip_that_kills_its_workers_is_left_out(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    for _ in range(steps.DEATHS):
        watch.begin("a clip", "read")  # and no end
    with pytest.raises(steps.StageError, match="2 workers died"):
        watch.begin("a clip", "read")
    watch.end("a clip", "read")
    watch.begin("a clip", "read")


def test_errors_that_no_clip_explains_end_the_run(
    tmp_path: Path, small_clips: ClipSettings, add_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_video(tmp_path / "videos/a.mp4", 100)

    def broken(self: object, draft: object) -> object:
        raise steps.StageError("encode", "RuntimeError: out of memory", unexpected=True)

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="first 16 clips all failed.*out of memory"):
        patch.setattr(flow.Models, "__call__", broken)
        run(tmp_path / "videos", tmp_path / "out", small_clips)
    assert run(tmp_path / "videos", tmp_path / "out", small_clips) == (20, 0)


def test_clips_that_failed_by_chance_are_tried_again(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(videos, tmp_path / "whole", small_clips)
    real, asked = flow.Models.__call__, list[str]()

    def at_times(self: flow.Models, draft: Draft) -> Draft:
        asked.append(draft.window.clip_id)
        if draft.source == "c.mp4" or draft.window.first == 5:
            raise steps.StageError("plan", "NoPlanError: the server can't be reached", unexpected=True)
        return real(self, draft)

    (videos / "bad.mp4").write_bytes(b"no video")
    for _ in range(2):  # the same again, which is no reason to end
        with monkeypatch.context() as patch:
            patch.setattr(flow.Models, "__call__", at_times)
            assert run(videos, tmp_path / "out", small_clips) == (4, 4)
        assert {row["reason"] for row in read_rejects(tmp_path / "out") if row["clip"]} == {
            "NoPlanError: the server can't be reached"
        }
    assert len(asked) == 7 + 3 and not list((tmp_path / "out/work/records").glob("*"))
    (videos / "bad.mp4").unlink()
    assert run(videos, tmp_path / "out", small_clips) == (7, 1)
    one, other = results(tmp_path / "whole"), results(tmp_path / "out")
    assert {name: one[name] for name in one if name != REJECTS} == {n: other[n] for n in other if n != REJECTS}


def test_a_source_whose_cut_failed_by_chance_is_cut_again(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = steps._cut

    def at_times(folder: Path, source: Source, settings: ClipSettings) -> list[Window]:
        if source.name == "b.mp4":
            raise MemoryError("no room")
        return real(folder, source, settings)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "_cut", at_times)
        assert run(videos, tmp_path / "out", small_clips) == (3, 1)
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)
    assert len(list(read_clips(tmp_path / "out"))) == 7 and list(faults(tmp_path / "out")) == []


def test_a_small_batch_that_fails_as_a_whole_ends_with_an_error(
    tmp_path: Path, videos: Path, small_clips: ClipSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, draft: object) -> object:
        raise steps.StageError("encode", "RuntimeError: out of memory", unexpected=True)

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="All 7 clips .*encode.*tries them"):
            patch.setattr(flow.Models, "__call__", broken)
            run(videos, tmp_path / "out", small_clips)
    assert run(videos, tmp_path / "out", small_clips) == (7, 0)


def test_the_check_sees_what_is_wrong(tmp_path: Path, videos: Path, small_clips: ClipSettings) -> None:
    out = tmp_path / "out"
    run(videos, out, small_clips)
    clips = list(read_clips(out))
    write_shard(out / "shard-00001.tar", [replace(clips[4], caption="another"), *clips[5:]])
    (out / "shard-00007.tar").write_bytes((out / "shard-00000.tar").read_bytes())
    (out / "shard-00000.tar").write_bytes((out / "shard-00000.tar").read_bytes()[:5000])
    told = list(faults(out))
    assert len(told) == 3 and "damaged" in told[0] and "unlike the manifest" in told[1] and "not in the man" in told[2]
    assert [name for name, _ in read_members(out / "shard-00007.tar")] == [clip.clip_id for clip in clips[:4]]
