"""Suites are built from what users have: the synthetic world, tables of scores, published folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.build_suite import build_from_table, build_selected, main
from benchmarks.candidate_table import candidates, described, read_table, three_frames
from benchmarks.manifest import load_suite
from benchmarks.true_clips import true_trajectory
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory


def rows(count: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "id": f"video {n}",
            "category": "ab"[n % 2],
            "aesthetic": 5 + n % 3,
            "motion": 1.5 * n,
            "objects": 1 + (n // 2) % 2,
            "caption": f"Ball {n} rolls.",
        }
        for n in range(count)
    ]


def save_csv(path: Path, table: list[dict[str, Any]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def test_the_synthetic_suite_holds_the_truth(tmp_path: Path) -> None:
    words = ["synthetic", str(tmp_path), "--scenes", "2", "--size", "64", "--frames", "5"]
    assert main(words) == 0
    suite = load_suite(tmp_path)
    assert [sample.id for sample in suite.samples] == ["single-000", "multi-000"]
    assert suite.splits == ["single", "multi"]
    for sample in suite.samples:
        assert all(path.is_file() for path in sample.files)
        assert sample.masks and sample.trajectory and sample.plan and sample.image
        truth = MaskTrajectory.load(sample.trajectory)
        assert truth.ids.shape == (5, 64, 64)
        assert np.array_equal(np.asarray(Image.open(sample.masks)), truth.ids[0])
        assert len(sample.motions) == len(sample.plan.objects)
    before = (tmp_path / "manifest.jsonl").read_bytes()
    assert main(words) == 0 and (tmp_path / "manifest.jsonl").read_bytes() == before


def test_sa_v_from_a_table_of_scores(tmp_path: Path) -> None:
    table = rows()
    videos = tmp_path / "raw"
    videos.mkdir()
    for row in table:
        (videos / f"{row['id']}.mp4").write_bytes(b"a video")
    annotation = {"masklet": [[{"size": [2, 2], "counts": "04"}]] * 40}
    for row in table:
        (videos / f"{row['id']}_manual.json").write_text(json.dumps(annotation))
    path = save_csv(tmp_path / "scores.csv", table)
    out = tmp_path / "suite"
    words = ["sa-v", str(out), "--table", str(path), "--videos", str(videos), "--top", "12", "--each", "3"]
    assert main(words) == 0
    suite = load_suite(out)
    assert [sample.split for sample in suite.samples] == ["single"] * 3 + ["multi"] * 3
    objects = {row["id"]: row["objects"] for row in table}
    for sample in suite.samples:
        assert sample.video and sample.video.read_bytes() == b"a video"
        assert (objects[sample.id] == 1) == (sample.split == "single")
        assert sample.prompt == f"Ball {sample.id.split()[1]} rolls."
        assert sample.trajectory
        assert MaskTrajectory.load(sample.trajectory).num_frames == 33, "frames 0 to 128, every 4th annotated"


def test_the_true_motion_comes_from_the_annotation_beside_the_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"a video")
    annotation = {"masklet": [[{"size": [2, 2], "counts": "04"}]] * 40}
    (tmp_path / "v_manual.json").write_text(json.dumps(annotation))
    build_selected(tmp_path / "out", {"": ["v"]}, [{"id": "v", "caption": "x", "category": "c"}], tmp_path)
    (sample,) = load_suite(tmp_path / "out").samples
    assert sample.trajectory and sample.split == ""
    truth = MaskTrajectory.load(sample.trajectory)
    assert truth.ids.shape == (33, 2, 2) and truth.fps == 6 and truth.ids.all()
    assert true_trajectory(sample.trajectory, (128, 2, 2), 24.0).num_frames == 128, "the paper's length, SA-V's rate"
    with pytest.raises(ValueError, match=r"5\.50 s of the model's video: 34 frames at 6 a second, not 33"):
        true_trajectory(sample.trajectory, (132, 2, 2), 24.0)


def test_videos_and_annotations_may_be_links_to_files_of_other_names(tmp_path: Path) -> None:
    """As in the Hub's cache."""
    snapshot, blobs = tmp_path / "snapshots/main", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "abc").write_bytes(b"a video")
    (blobs / "def").write_text(json.dumps({"masklet": [[{"size": [2, 2], "counts": "04"}]] * 40}))
    (snapshot / "v.mp4").symlink_to("../../blobs/abc")
    (snapshot / "v_manual.json").symlink_to("../../blobs/def")
    (tmp_path / "original").mkdir()
    (tmp_path / "original/v.mp4").write_bytes(b"a video")
    (tmp_path / "original/v_manual.json").write_bytes((blobs / "def").read_bytes())
    (tmp_path / "links").mkdir()
    (tmp_path / "links/v.mp4").symlink_to(tmp_path / "original/v.mp4")
    # Twice, as links of an earlier run are made anew; and last the links that the run itself made.
    for videos in (snapshot, snapshot, tmp_path / "links", tmp_path / "out/videos"):
        build_selected(tmp_path / "out", {"": ["v"]}, [{"id": "v", "caption": "x", "category": "c"}], videos)
        (sample,) = load_suite(tmp_path / "out").samples
        assert sample.video and sample.video.name == "v.mp4" and sample.video.read_bytes() == b"a video"
        assert sample.video.is_symlink() and sample.trajectory and sample.trajectory.is_file()


def test_a_short_video_and_one_without_an_object_yet_are_samples_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing, all_of_it = ([{"size": [2, 2], "counts": counts}] for counts in ("4", "04"))
    masklets = {"short": [all_of_it] * 30, "late": [nothing] * 33 + [all_of_it], "last": [nothing] * 32 + [all_of_it]}
    for name, masklet in masklets.items():
        (tmp_path / f"{name}.mp4").write_bytes(b"a video")
        (tmp_path / f"{name}_manual.json").write_text(json.dumps({"masklet": masklet}))
    table = [{"id": name, "caption": "x", "category": "c"} for name in masklets]
    build_selected(tmp_path / "out", {"": list(masklets)}, table, tmp_path)
    short, late, last = load_suite(tmp_path / "out").samples
    assert short.trajectory and MaskTrajectory.load(short.trajectory).num_frames == 30
    assert last.trajectory and MaskTrajectory.load(last.trajectory).areas()[:, 1].tolist() == [0] * 32 + [4]
    assert late.video and late.trajectory is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "late_manual.json shows no object in its first 33 annotated frames" in line
    (tmp_path / "late_manual.json").write_text("{")
    with pytest.raises(ValueError, match=r"late_manual\.json is no SA-V annotation"):
        build_selected(tmp_path / "out", {"": ["late"]}, table, tmp_path)


def test_image_animation_bench_from_a_table(tmp_path: Path) -> None:
    for row in rows():
        (tmp_path / f"{row['id']}.mp4").write_bytes(b"")
    path = save_csv(tmp_path / "t.csv", rows())
    out = tmp_path / "out"
    words = ["image-animation-bench", str(out), "--table", str(path), "--videos", str(tmp_path)]
    assert main([*words, "--count", "6", "--categories", "2"]) == 0
    found = [sample.category for sample in load_suite(out).samples]
    assert sorted(found) == ["a"] * 3 + ["b"] * 3


def test_a_published_folder_by_its_own_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"video_id": 7, "file": "v/7.mp4", "text": "A dog runs.", "kind": ""}\n')
    words = ["table", str(tmp_path), "--table", str(tmp_path / "metadata.jsonl")]
    assert main([*words, "id=video_id", "video=file", "prompt=text", "split=kind"]) == 0
    (sample,) = load_suite(tmp_path).samples
    assert (sample.id, sample.video, sample.prompt) == ("7", tmp_path / "v/7.mp4", "A dog runs.")
    assert main([*words, "id=video_id", "video=path"]) == 2
    assert "no columns ['path']" in capsys.readouterr().err
    assert main([*words, "id"]) == 2
    with pytest.raises(ValueError, match="unknown"):
        build_from_table(tmp_path, [{"a": 1}], {"caption": "a"})


def test_rows_of_json_may_leave_out_what_a_sample_can_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "metadata.jsonl"
    words = ["table", str(tmp_path), "--table", str(table), "id=id", "video=file", "prompt=caption", "split=kind"]
    first, second = '{"id": 1, "file": "1.mp4", "caption": "x"}\n', '{"id": 2, "file": "2.mp4", "caption": "y"'
    table.write_text(first + second + ', "kind": "multi"}\n')
    assert main(words) == 0
    assert [sample.split for sample in load_suite(tmp_path).samples] == ["", "multi"]
    table.write_text(first + '{"id": 2, "file": "2.mp4", "kind": "multi"}\n')
    assert main(words) == 2
    assert "sample 2 (id '2') has no prompt" in capsys.readouterr().err


def test_tables_that_can_not_be_used(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.csv", "id,category\n1\n", "number of cells"),
        ("b.jsonl", "{", "no table"),
        ("c.json", "[1]", "no rows"),
        ("d.csv", "id,category\n", "no rows"),
        ("e.txt", "", "expected .csv"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_table(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"Row 2 .* lacks \['motion'\]"):
        candidates([rows()[0], rows()[1] | {"motion": ""}])
    with pytest.raises(ValueError, match="expected numbers"):
        candidates([rows()[0] | {"aesthetic": "good"}])


def test_a_missing_video_or_caption_is_named(tmp_path: Path) -> None:
    row = {"id": "v", "caption": "", "category": "c"}
    with pytest.raises(FileNotFoundError, match=r"v\.mp4"):
        build_selected(tmp_path / "out", {"": ["v"]}, [row], tmp_path)
    (tmp_path / "v.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="no caption"):
        build_selected(tmp_path / "out", {"": ["v"]}, [row], tmp_path)


def test_the_users_videos_stay_what_they_are(tmp_path: Path) -> None:
    row = {"id": "v", "caption": "it moves", "category": "c"}
    inside = tmp_path / "out/videos"
    inside.mkdir(parents=True)
    (inside / "v.mp4").write_bytes(b"the video")
    for _ in range(2):
        build_selected(tmp_path / "out", {"": ["v"]}, [row], inside)  # they lie where links would be made
        assert not (inside / "v.mp4").is_symlink() and (inside / "v.mp4").read_bytes() == b"the video"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "v.mp4").write_bytes(b"another")
    with pytest.raises(FileExistsError, match="there already and no link"):
        build_selected(tmp_path / "out", {"": ["v"]}, [row], elsewhere)
    victim = tmp_path / "victim.mp4"
    victim.write_bytes(b"the video")
    with pytest.raises(ValueError, match="id '../../victim'"):
        build_selected(
            tmp_path / "out", {"": ["../../victim"]}, [row | {"id": "../../victim"}], tmp_path / "out/videos"
        )
    assert victim.read_bytes() == b"the video" and not victim.is_symlink()


def test_a_vision_language_model_fills_in_what_is_missing(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(9, dtype=np.uint8)[:, None, None, None] * 25, 16, axis=1)
    write_video(tmp_path / "b.mp4", np.broadcast_to(frames, (9, 16, 16, 3)), 8)
    asked: list[list[int]] = []

    def describe(three: np.ndarray) -> tuple[str, str]:
        asked.append([int(frame.mean().round(-1)) for frame in three])
        return "a caption", "toys"

    table = [{"id": "a", "caption": "own", "category": "own"}, {"id": "b", "caption": "own"}]
    filled = described(table, lambda name: three_frames(tmp_path / f"{name}.mp4"), describe)
    assert filled == [table[0], {"id": "b", "caption": "own", "category": "toys"}]
    assert len(asked) == 1 and asked[0] == pytest.approx([0, 100, 200], abs=10)
