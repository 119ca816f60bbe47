"""Files found, paired and brought to one form; what does not fit is one clear error before any video is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import NAMES, write_clip
from ttm.evaluation.inputs import VIDEO_SUFFIXES, Form, find_files, pair, plain_name, read_clip, read_prompts

PROMPTS = {"a b": "a red ball, and more", "été 日本": "Le chat s'en va", "sub/c": "007"}


def test_files_are_found_by_name(videos: Path) -> None:
    (videos / "notes.txt").write_text("none")
    (videos / ".hidden.mp4").write_text("none")
    assert set(find_files(videos, VIDEO_SUFFIXES, "videos")) == set(NAMES)
    (alone,) = find_files(videos / "a b.mp4", VIDEO_SUFFIXES, "videos").items()
    assert alone == ("a b", videos / "a b.mp4")


def test_of_what_generate_wrote_the_video_alone_is_scored(tmp_path: Path) -> None:
    for name in ("a/video.mp4", "a/trajectory.mp4", "a/overlay.mp4", "b/overlay.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "run.json").write_text("{}")
    assert set(find_files(tmp_path, VIDEO_SUFFIXES, "videos")) == {"a/video", "b/overlay"}


def test_what_generate_wrote_is_paired_with_its_trajectory(tmp_path: Path) -> None:
    for name in ("a/video.mp4", "a/trajectory.npz", "a/run.json", "b/video.mp4", "b/trajectory.npz", "b/run.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    videos, masks = find_files(tmp_path, VIDEO_SUFFIXES, "videos"), find_files(tmp_path, (".npz",), "trajectories")
    items = pair(videos, trajectories=masks, required=["ids"])
    assert [item.trajectory for item in items] == [tmp_path / "a/trajectory.npz", tmp_path / "b/trajectory.npz"]


def test_of_a_benchmark_s_sample_the_video_and_its_trajectory_are_taken(tmp_path: Path) -> None:
    made = ("video.mp4", "trajectory.npz")
    for sample, names in {"a": made, "without motion": made[:1], "failed": ()}.items():
        (tmp_path / sample).mkdir()
        for name in (*names, "record.json", "reference.mp4", "overlay.mp4", "compare-0f.mp4", "truth.npz"):
            (tmp_path / sample / name).write_bytes(b"")
    videos, masks = find_files(tmp_path, VIDEO_SUFFIXES, "videos"), find_files(tmp_path, (".npz",), "trajectories")
    assert set(videos) == {"a/video", "without motion/video"}
    assert masks == {"a/video": tmp_path / "a" / "trajectory.npz"}
    (tmp_path / "a" / "record.json").unlink()
    assert "a/reference" in find_files(tmp_path, VIDEO_SUFFIXES, "videos")


def test_no_videos_or_two_of_one_name_are_errors(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="videos: .*empty holds none; expected files that end in .mp4"):
        find_files(tmp_path / "empty", VIDEO_SUFFIXES, "videos")
    with pytest.raises(ValueError, match="references: .*nowhere is not there"):
        find_files(tmp_path / "nowhere", VIDEO_SUFFIXES, "references")
    (videos / "a b.webm").write_bytes(b"")
    with pytest.raises(ValueError, match="have one name"):
        find_files(videos, VIDEO_SUFFIXES, "videos")


@pytest.mark.parametrize("kind", ["mapping.json", "rows.json", "rows.csv", "mapping.yaml"])
def test_prompts_are_read_from_any_of_the_forms(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    rows = [{"video": f"{name}.mp4", "prompt": f" {prompt} "} for name, prompt in PROMPTS.items()]
    if kind == "mapping.json":
        path.write_text(json.dumps(PROMPTS), encoding="utf-8")
    elif kind == "rows.json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif kind == "rows.csv":
        lines = ["video,prompt,more", *(f'{row["video"]},"{row["prompt"]}",x' for row in rows)]
        path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    else:
        path.write_text("".join(f"{name}: {prompt}\n" for name, prompt in PROMPTS.items()), encoding="utf-8")
    assert read_prompts(path) == PROMPTS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "can't be read"),
        ("a.json", "[1]", "holds neither"),
        ("a.json", '{"x": 3}', "prompt of 'x' is 3"),
        ("a.yaml", "a: [", "can't be read"),
        ("a.csv", "name,text\nx,y\n", r"columns \['name', 'text'\]; expected video and prompt"),
        ("a.csv", "video,prompt\nx,\n", "prompt of 'x' is ''"),
        ("a.csv", "video,prompt\nx\n", "prompt of 'x' is None"),
        ("a.csv", "video,prompt\nx,y\nx.mp4,z\n", "two rows for 'x'"),
        ("a.csv", "video,prompt\nw,y\nx.mp4,a ball, and more\n", r"row 2 \('x.mp4'\) has more cells.*expected quotes"),
        ("a.csv", "video,prompt,prompt\nx,y,z\n", "expected video and prompt, each once"),
        ("a.json", '{"x": "y", "x": "z"}', "key 'x' twice"),
        ("a.json", '[{"video": "x", "prompt": "y", "prompt": "z"}]', "key 'prompt' twice"),
        ("a.yaml", "x: y\nw: y\nx: z\n", "key 'x' twice"),
        ("a.yaml", "- {video: x, prompt: y, video: w}\n", "key 'video' twice"),
    ],
)
def test_prompts_in_another_form_are_an_error(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_prompts(tmp_path / name)
    with pytest.raises(ValueError, match="is not there"):
        read_prompts(tmp_path / "none.json")


def test_a_prompt_of_a_csv_may_have_two_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('video,prompt\nx,"a ball\nrolls"\n')
    assert read_prompts(tmp_path / "a.csv") == {"x": "a ball\nrolls"}


def test_names_with_dots_keep_them() -> None:
    assert [plain_name(name) for name in ("v1.5 b", "v1.5 b.MP4", "./x/y.webm", "x\\y")] == ["v1.5 b"] * 2 + ["x/y"] * 2


def test_videos_and_references_are_paired_by_name(videos: Path, references: Path) -> None:
    found, real = (find_files(folder, VIDEO_SUFFIXES, "") for folder in (videos, references))
    items = {item.name: item for item in pair(found, real, PROMPTS, required=("reference", "prompt"))}
    assert set(items) == {*NAMES, "more"}
    assert all(items[name].reference is not None and items[name].prompt == PROMPTS[name] for name in NAMES)
    assert items["more"].video is None and items["more"].reference == references / "more.mp4"


def test_a_video_without_what_is_required_is_an_error(videos: Path) -> None:
    found = find_files(videos, VIDEO_SUFFIXES, "videos")
    with pytest.raises(ValueError, match=r"2 of 3 videos have no row in the prompts: 'sub/c', 'été 日本'"):
        pair(found, prompts={"a b": "x", "other": "y"}, required=["prompt"])
    with pytest.raises(ValueError, match="3 of 3 videos have no reference video"):
        pair(found, {}, required=["reference"])
    many = {f"{n}": Path(f"{n}.mp4") for n in range(20)}
    with pytest.raises(ValueError, match="'4' and 15 more"):
        pair(many, required=["ids"])


def test_two_single_files_are_a_pair_whatever_their_names(videos: Path, references: Path) -> None:
    one = find_files(videos / "a b.mp4", VIDEO_SUFFIXES, "videos")
    other = find_files(references / "more.mp4", VIDEO_SUFFIXES, "references")
    (item,) = pair(one, other, required=["reference"])
    assert item.reference == references / "more.mp4"


def test_a_clip_is_brought_to_the_form_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, 0, frames=12, fps=24.0)
    whole, numbers = read_clip(path, Form())
    np.testing.assert_array_equal(numbers, np.arange(12))
    assert (whole.num_frames, whole.size, whole.fps) == (12, (32, 48), pytest.approx(24.0))
    slow, numbers = read_clip(path, Form(fps=8.0))
    np.testing.assert_array_equal(numbers, [0, 3, 6, 9])
    np.testing.assert_array_equal(slow.frames, whole.frames[::3])
    assert slow.fps == 8.0
    uneven, _ = read_clip(path, Form(fps=10.0, num_frames=4))
    np.testing.assert_array_equal(uneven.frames, whole.frames[[0, 2, 5, 7]])
    small, _ = read_clip(path, Form(num_frames=5, size=(16, 16)))
    write_clip(tmp_path / "odd.mp4", 0, frames=13, fps=24.0)
    _, numbers = read_clip(tmp_path / "odd.mp4", Form(fps=8.0, num_frames=5))
    np.testing.assert_array_equal(numbers, [0, 3, 6, 9, 12])  # the last frame lies exactly at the last time
    assert small.frames.shape == (5, 16, 16, 3)
    for form, said in (
        (Form(num_frames=13), "12 frames"),
        (Form(fps=48.0), "24 frames a second; expected at least 48"),
        (Form(fps=8.0, num_frames=5), "4 frames at 8 a second; expected 5"),
    ):
        with pytest.raises(ValueError, match=said):
            read_clip(path, form)
