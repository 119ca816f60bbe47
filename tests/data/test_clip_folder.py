from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ttm.data.clip_folder import read_clip_folder
from ttm.data.clip_prompts import prompt_of_name, read_clip_prompts
from ttm.data.video_reader import read_video
from ttm.data.video_resampling import resample_video
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory

REAL = Path(os.environ.get("TTM_REAL_DATA", Path(__file__).parents[3] / "shared/data")) / "dog.mp4"
SIZE = (32, 40)


def moving_square(count: int, height: int = 48, width: int = 60, until: int | None = None) -> NDArray[np.uint8]:
    """A red square of 12 px that moves right over grey, uint8 [T, H, W, 3]; gone from frame ``until`` on."""
    frames = np.full((count, height, width, 3), 90, np.uint8)
    for t in range(count if until is None else until):
        left = 8 + 30 * t // count
        frames[t, 16:28, left : left + 12] = (230, 20, 20)
    return frames


def red(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (frames[..., 0].astype(int) - frames[..., 1] > 70).astype(np.uint8)


class RedTracker:
    """Finds what is red, if it is asked for something red."""

    def segment(self, image: NDArray[np.uint8], phrases: Sequence[str]) -> NDArray[np.uint8]:
        if "red" not in phrases[0] or not red(image).any():
            raise ValueError(f"No region of the image matches {phrases[0]!r}.")
        return red(image)

    def track(self, frames: NDArray[np.uint8], first_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return red(frames)


def fill(folder: Path, count: int = 5, length: int = 24, fps: float = 24) -> Path:
    folder.mkdir(exist_ok=True)
    names = [folder / f"a-red-square-moves-{number:02d}.mp4" for number in range(count)]
    write_video(names[0], moving_square(length), fps)
    for name in names[1:]:
        shutil.copy(names[0], name)
    return folder


def read(folder: Path, num_frames: int = 5, fps: float = 8, tracker: RedTracker | None = None) -> list:
    return read_clip_folder(folder, num_frames, fps, SIZE, tracker or RedTracker())


def test_a_clip_of_each_file_with_masks_and_a_prompt(tmp_path: Path) -> None:
    clips = read(fill(tmp_path, 2))
    assert [clip.name for clip in clips] == [f"a-red-square-moves-{n:02d}.mp4" for n in range(2)]
    for clip in clips:
        assert clip.prompt == "a red square moves"
        assert clip.frames.shape == (5, *SIZE, 3) and clip.frames.dtype == np.uint8
        assert np.array_equal(clip.ids, red(clip.frames))
        assert (clip.frames[..., 0][clip.ids > 0] > 120).all()


def test_frames_are_the_nearest_in_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(30), 30)
    whole = read_video(tmp_path / "a.mp4", size=SIZE).frames
    made = resample_video(tmp_path / "a.mp4", 12, SIZE)
    expected = [int(np.abs(np.arange(30) / 30 - (n + 1e-6) / 12).argmin()) for n in range(12)]
    assert made.sources.tolist() == expected == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]
    assert np.array_equal(made.frames, whole[expected])
    assert (made.source_frames, made.source_size, made.source_fps) == (30, (48, 60), 30)


def test_clips_of_other_sizes_and_rates_come_to_one(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    write_video(tmp_path / "a-red-square-moves-30.mp4", moving_square(40, height=96, width=64), 30)
    clips = read(tmp_path)
    assert {clip.frames.shape for clip in clips} == {(5, *SIZE, 3)} and len(clips) == 2


def test_every_clip_gives_as_many_windows_as_the_shortest(tmp_path: Path) -> None:
    fill(tmp_path, 1, length=24)  # 8 frames at 8 fps
    write_video(tmp_path / "a-red-square-moves-09.mp4", moving_square(60), 24)  # 20 frames
    assert len(read(tmp_path, num_frames=5)) == 2
    clips = read(tmp_path, num_frames=4)
    assert [clip.name[-6:-4] for clip in clips] == ["00", "00", "09", "09"]
    long = resample_video(tmp_path / "a-red-square-moves-09.mp4", 8, SIZE).frames
    assert np.array_equal(clips[-2].frames, long[:4]) and np.array_equal(clips[-1].frames, long[-4:])


@pytest.mark.parametrize("kind", ["npz", "video", "pictures"])
def test_given_masks_are_cut_and_resampled_with_the_frames(tmp_path: Path, kind: str) -> None:
    frames = moving_square(24, height=96, width=60)
    write_video(tmp_path / "take1.mp4", frames, 24)
    (tmp_path / "prompts.yaml").write_text("take1.mp4: something happens\n")
    masks = MaskTrajectory(red(frames) * 2, 24)
    if kind == "npz":
        masks.save(tmp_path / "take1.npz")
    elif kind == "video":
        write_video(tmp_path / "take1.masks.mp4", masks.to_video(), 24)
    else:
        (tmp_path / "take1.masks").mkdir()
        for number, ids in enumerate(masks.ids):
            Image.fromarray(ids).save(tmp_path / "take1.masks" / f"{number:03d}.png")
    [clip] = read_clip_folder(tmp_path, 5, 8, SIZE)
    assert set(np.unique(clip.ids)) == {0, 2}
    assert np.mean((clip.ids > 0) == (red(clip.frames) > 0)) > 0.98  # a pixel of the rim more or less


def test_prompts_of_names_and_of_the_file(tmp_path: Path) -> None:
    assert prompt_of_name("a-dog-runs-03.mp4") == "a dog runs"
    assert prompt_of_name("two_birds  fly.mp4") == "two birds fly"
    assert prompt_of_name("03.mp4") == ""
    (tmp_path / "birds.npz").touch()
    (tmp_path / "prompts.yaml").write_text(
        "03.mp4:\n  prompt: the birds turn\n  phrases: [left bird, right bird]\n  masks: birds.npz\n"
        "a-dog-runs-1.mp4: the brown dog runs left\n"
    )
    told = read_clip_prompts(tmp_path, ["03.mp4", "a-dog-runs-1.mp4", "the-cat-jumps-2.mp4"])
    assert told["03.mp4"].phrases == ("left bird", "right bird") and told["03.mp4"].masks == tmp_path / "birds.npz"
    assert told["a-dog-runs-1.mp4"].phrases == ("brown dog",)
    assert (told["the-cat-jumps-2.mp4"].prompt, told["the-cat-jumps-2.mp4"].phrases) == ("the cat jumps", ("cat",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("take9.mp4: a dog", "no clip of the folder"),
        ("a: [b", "no YAML"),
        ("- a", "expected lines of the form"),
        ("take1.mp4: a dog\ntake1.mp4: a cat", "'take1.mp4' is given twice"),
        ("take1.mp4: {prompt: a dog, prompt: a cat}", "'prompt' is given twice"),
        ("take1.mp4: {promt: x}", "has the key 'promt'"),
        ("take1.mp4: 7", "no prompt"),
        ("take1.mp4: {prompt: a dog runs, phrases: dog}", "expected a list"),
        ("take1.mp4: {prompt: a dog runs, masks: ../outside.npz}", "outside of"),
        ("take1.mp4: {prompt: a dog runs, masks: /etc/passwd}", "outside of"),
        ("take1.mp4: {prompt: a dog runs, masks: none.npz}", "is not in"),
    ],
)
def test_a_wrong_prompts_file(tmp_path: Path, text: str, words: str) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (tmp_path / "outside.npz").touch()
    (folder / "prompts.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_clip_prompts(folder, ["take1.mp4"])


def test_masks_behind_a_link_that_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (tmp_path / "outside.npz").touch()
    (folder / "link.npz").symlink_to(tmp_path / "outside.npz")
    (folder / "prompts.yaml").write_text("take1.mp4: {prompt: a dog runs, masks: link.npz}")
    with pytest.raises(ValueError, match="outside of"):
        read_clip_prompts(folder, ["take1.mp4"])


def test_a_number_of_clips_that_is_unusual_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(fill(tmp_path, 2))
    assert "holds 2 clips; expected 5 to 8" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: write_video(f / "a-red-square-x.mp4", moving_square(6), 24), "expected at least 5, the length"),
        (lambda f: write_video(f / "a-red-square-x.mp4", moving_square(24), 5), "5 frames a second; expected at leas"),
        (lambda f: write_video(f / "a-red-square-moves-x.mp4", moving_square(24, until=12), 24), "after frame 9"),
        (lambda f: write_video(f / "a-red-square-moves-x.mp4", moving_square(24, until=0), 24), "not found"),
        (lambda f: write_video(f / "a-blue-ball-moves-x.mp4", moving_square(24), 24), "blue ball not found"),
        (lambda f: write_video(f / "the-waterfall.mp4", moving_square(24), 24), "names nothing that moves"),
        (lambda f: write_video(f / "07.mp4", moving_square(24), 24), "its name says nothing"),
        (lambda f: (f / "a-red-square-x.mp4").write_bytes(b"no video at all"), "damaged, cut off or no video"),
        (lambda f: MaskTrajectory(np.ones((3, 48, 60), int)).save(f / "a-red-square-moves-00.npz"), "holds 3 masks"),
    ],
)
def test_a_clip_that_will_not_do(tmp_path: Path, spoil, words: str) -> None:  # noqa: ANN001
    spoil(fill(tmp_path, 1))
    with pytest.raises(ValueError, match=words):
        read(tmp_path)


def test_what_is_wrong_with_given_masks_is_said_before_anything_is_tracked(tmp_path: Path) -> None:
    class NeverAsked(RedTracker):
        def segment(self, image: NDArray[np.uint8], phrases: Sequence[str]) -> NDArray[np.uint8]:
            raise AssertionError("tracked before the masks were looked at")

    fill(tmp_path, 2)
    ids = np.ones((24, 48, 60), int)
    ids[12:] = 0
    MaskTrajectory(ids).save(tmp_path / "a-red-square-moves-01.npz")
    with pytest.raises(ValueError, match="a-red-square-moves-01.mp4"):
        read(tmp_path, tracker=NeverAsked())


def test_masks_that_no_clip_takes_are_a_misspelt_name(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    masks = MaskTrajectory(np.ones((24, 48, 60), int))
    for name in ("a-red-square-move-00.npz", "a-red-square-move-00.masks.mov", "another.masks"):
        path = tmp_path / name
        path.mkdir() if name.endswith("masks") else path.write_bytes(b"")
        with pytest.raises(ValueError, match=f"{name} looks like the masks of a clip"):
            read(tmp_path)
        path.rmdir() if name.endswith("masks") else path.unlink()
    masks.save(tmp_path / "elsewhere.npz")
    (tmp_path / "prompts.yaml").write_text("a-red-square-moves-00.mp4: {prompt: it moves, masks: elsewhere.npz}")
    assert (read(tmp_path)[0].ids == 1).all()


def test_a_palette_video_may_have_any_suffix_of_clips(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    ids = np.zeros((24, 48, 60), np.uint8)
    ids[:, 8:40, 8:40] = 2
    write_video(tmp_path / "masks.mp4", MaskTrajectory(ids).to_video(), 24)
    (tmp_path / "masks.mp4").rename(tmp_path / "a-red-square-moves-00.masks.mov")
    assert set(np.unique(read(tmp_path)[0].ids)) == {0, 2}


def test_no_clips_and_no_segmenter(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no video"):
        read(tmp_path)
    with pytest.raises(ValueError, match="no segmenter"):
        read_clip_folder(fill(tmp_path, 1), 5, 8, SIZE)
    MaskTrajectory(np.ones((24, 48, 60), int)).save(tmp_path / "a-red-square-moves-00.npz")
    (tmp_path / "a-red-square-moves-00.masks").mkdir()
    with pytest.raises(ValueError, match="expected one of them"):
        read(tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
def test_a_real_video(tmp_path: Path) -> None:
    frames = read_video(REAL, 48, size=(90, 160)).frames
    write_video(tmp_path / "a-dog-turns-1.mp4", frames, 30)
    ids = np.zeros(frames.shape[:3], np.uint8)
    ids[:, 47:68, 56:88] = 1
    MaskTrajectory(ids, 30).save(tmp_path / "a-dog-turns-1.npz")
    clips = read_clip_folder(tmp_path, 8, 10, (64, 96))
    assert len(clips) == 2 and clips[0].frames.shape == (8, 64, 96, 3) and clips[0].ids.any()
