"""Masks that come with a source: SA-V's masklets to the pixel, in all their layouts, and what doesn't fit."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tools.prepare.draft import Draft
from tools.prepare.flow import prepare
from tools.prepare.models import Models, StageError
from tools.prepare.settings import ClipSettings, ModelSettings
from tools.prepare.windows import Window
from tools.prepare.work import read_rejects
from ttm.data.prepared_clips import PreparedClip, read_clips
from ttm.data.sa_v import JsonMasklets, decode_mask
from ttm.motion.resize_ids import resize_ids
from ttm.objects import ObjectPrompt, PromptPlan

REAL = Path(os.environ.get("TTM_REAL_DATA", Path(__file__).parents[4] / "shared/data")) / "sav_000001_manual.json"
needs_real_data = pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL} (TTM_REAL_DATA)")


def prepared(folder: Path, out: Path, clips: ClipSettings) -> list[PreparedClip]:
    prepare(folder, out, clips, ModelSettings(), say=lambda line: None)
    return list(read_clips(out))


def grey_video(path: Path, num_frames: int, size: tuple[int, int], fps: int = 24) -> Path:
    """Frames without content, at the least cost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((size[0] * 3 // 2, size[1]), 128, np.uint8), format="yuv420p")
        for number in range(num_frames):
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rle(mask: np.ndarray) -> dict[str, object]:
    """COCO run lengths, by the format's own library."""
    coco = pytest.importorskip("pycocotools.mask")
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def masklets(path: Path, masks: np.ndarray) -> Path:
    path.write_text(json.dumps({"masklet": [[rle(mask) for mask in frame] for frame in masks]}))
    return path


def moving(times: int = 10, late: int = 3) -> np.ndarray:
    """Two objects that overlap, bool [T, 2, 32, 48]; the smaller one appears late and lies in front."""
    masks = np.zeros((times, 2, 32, 48), bool)
    for time in range(times):
        masks[time, 0, 4:28, time : time + 24] = True
        if time >= late:
            masks[time, 1, 10:16, time + 4 : time + 10] = True
    return masks


def ids_of(masks: np.ndarray) -> np.ndarray:
    return np.where(masks[:, 1], 2, np.where(masks[:, 0], 1, 0)).astype(np.uint8)


@needs_real_data
def test_the_real_masklets_come_out_of_the_shard_to_the_pixel(tmp_path: Path) -> None:
    """Five objects, 121 annotated frames of 848 x 480, overlaps, one that appears in frame 113 of them."""
    grey_video(tmp_path / "videos/sav_000001.mp4", 483, (848, 480))
    os.symlink(REAL, tmp_path / "videos/sav_000001_manual.json")
    clips = ClipSettings(num_frames=(121,), fps=6.0, sizes=(), keep_video=False)
    (clip,) = prepared(tmp_path / "videos", tmp_path / "out", clips)
    assert clip.trajectory.ids.shape == (121, 848, 480) and clip.fps == 6 and len(clip.plan.objects) == 5
    stated = json.loads(REAL.read_text())["masklet"]
    areas = np.zeros(5, np.int64)
    for frame in stated:
        areas += [int(decode_mask(item).sum()) for item in frame]
    for ids, frame in zip(clip.trajectory.ids, stated, strict=True):
        masks = [decode_mask(item) for item in frame]
        for number, mask in enumerate(masks):  # its own pixels, but where a smaller object lies in front
            smaller = [masks[other] for other in range(5) if areas[other] < areas[number]]
            visible = mask & ~np.any([np.zeros_like(mask), *smaller], axis=0)
            np.testing.assert_array_equal(ids == number + 1, visible)


@pytest.mark.parametrize("layout", ["files", "archive", "frames"])
def test_every_layout_of_sa_v(tmp_path: Path, layout: str, small_clips: ClipSettings) -> None:
    masks, folder = moving(), tmp_path / "in"
    if layout == "frames":
        (folder / "JPEGImages_24fps/v").mkdir(parents=True)
        for number in range(40):
            Image.new("RGB", (48, 32), (128,) * 3).save(folder / f"JPEGImages_24fps/v/{number:05d}.jpg")
        for time, frame in enumerate(masks):
            for number, mask in enumerate(frame):
                place = folder / f"Annotations_6fps/v/{number:03d}"
                place.mkdir(parents=True, exist_ok=True)
                if mask.any():
                    Image.fromarray(mask.astype(np.uint8) * 255).save(place / f"{4 * time:05d}.png")
    else:
        grey_video(folder / "sav/x.mp4", 40, (32, 48))
        masklets(folder / "sav/x_manual.json", masks)
    if layout == "archive":
        with tarfile.open(folder / "sav_000.tar", "w") as archive:
            archive.add(folder / "sav", "sav")
        for path in (folder / "sav").iterdir():
            path.unlink()
    one, other = prepared(folder, tmp_path / "out", replace(small_clips, fps=6.0))
    np.testing.assert_array_equal(one.trajectory.ids, ids_of(masks)[:5])
    np.testing.assert_array_equal(other.trajectory.ids, ids_of(masks)[5:])


@pytest.mark.parametrize(("fps", "stride"), [(24.0, 1), (12.0, 2), (8.0, 3)])
def test_frames_between_have_the_nearest_ids_and_annotated_ones_their_own(
    tmp_path: Path, small_clips: ClipSettings, fps: float, stride: int
) -> None:
    masks = moving(late=0)
    grey_video(tmp_path / "in/x.mp4", 40, (32, 48))
    masklets(tmp_path / "in/x_manual.json", masks)
    clips = prepared(tmp_path / "in", tmp_path / "out", replace(small_clips, fps=fps, num_frames=(9,)))
    assert clips
    for clip in clips:
        first = round(clip.start_seconds * 24)
        assert first % 4 == 0
        for place, ids in enumerate(clip.trajectory.ids):
            frame = first + place * stride
            options = [ids_of(masks)[time] for time in {(frame + 1) // 4, (frame + 2) // 4} if time < 10]
            if frame % 4 == 0:
                options = [ids_of(masks)[frame // 4]]
            assert any(np.array_equal(ids, option) for option in options), frame


def test_another_size_takes_the_centred_part(tmp_path: Path, small_clips: ClipSettings) -> None:
    masks = moving(late=0)
    grey_video(tmp_path / "in/x.mp4", 40, (32, 48))
    masklets(tmp_path / "in/x_manual.json", masks)
    clips = prepared(tmp_path / "in", tmp_path / "out", replace(small_clips, fps=6.0, sizes=((16, 16),)))
    expected = np.stack([resize_ids(frame[:, 8:40], 16, 16) for frame in ids_of(masks)])
    np.testing.assert_array_equal(np.concatenate([clip.trajectory.ids for clip in clips]), expected)


@pytest.mark.parametrize(
    ("size", "times", "words"),
    [((30, 48), 10, "48 x 30 pixels; expected 48 x 32"), ((32, 48), 11, "reach to frame 40")],
)
def test_masklets_of_another_video(
    tmp_path: Path, small_clips: ClipSettings, size: tuple[int, int], times: int, words: str
) -> None:
    grey_video(tmp_path / "in/good.mp4", 40, (32, 48))
    masklets(tmp_path / "in/good_manual.json", moving(late=0))
    grey_video(tmp_path / "in/x.mp4", 40, (32, 48))
    masklets(tmp_path / "in/x_manual.json", np.ones((times, 2, *size), bool))
    assert len(prepared(tmp_path / "in", tmp_path / "out", replace(small_clips, fps=6.0))) == 2
    told = list(read_rejects(tmp_path / "out"))
    assert len(told) == 2 and {row["stage"] for row in told} == {"masks"}
    assert all(words in row["reason"] for row in told)


def test_damaged_masklets_in_an_archive_are_told_by_its_name(tmp_path: Path, small_clips: ClipSettings) -> None:
    grey_video(tmp_path / "x.mp4", 40, (32, 48))
    (tmp_path / "x_manual.json").write_text("[")
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tar", "w") as archive:
        for name in ("x.mp4", "x_manual.json"):
            archive.add(tmp_path / name, name)
    prepare(tmp_path / "in", tmp_path / "out", replace(small_clips, fps=6.0), ModelSettings(), say=lambda line: None)
    reasons = [row["reason"] for row in read_rejects(tmp_path / "out")]
    assert len(reasons) == 2 and all(reason.startswith("a.tar is no SA-V annotation") for reason in reasons)


def test_no_more_objects_than_asked_for(tmp_path: Path, small_clips: ClipSettings) -> None:
    grey_video(tmp_path / "in/x.mp4", 40, (32, 48))
    path = masklets(tmp_path / "in/x_manual.json", moving(late=0))
    (clip, _) = prepared(tmp_path / "in", tmp_path / "out", replace(small_clips, fps=6.0, max_objects=1))
    np.testing.assert_array_equal(clip.trajectory.ids, JsonMasklets(path).ids(range(5), 1))
    assert clip.trajectory.object_ids == [1]


@pytest.mark.parametrize("told", ["beside", "template", "captioner"])
def test_captions_beside_masklets_need_a_segmenter(tmp_path: Path, small_clips: ClipSettings, told: str) -> None:
    grey_video(tmp_path / "in/x.mp4", 40, (32, 48))
    masklets(tmp_path / "in/x_manual.json", moving())
    clips = replace(small_clips, fps=6.0, caption="A dog runs." if told == "template" else None)
    if told == "beside":
        (tmp_path / "in/x.txt").write_text("A dog runs.")
    models = ModelSettings(captioner=str(tmp_path / "none") if told == "captioner" else None)
    with pytest.raises(ValueError, match="x.mp4 has masklets and a caption, .*expected --segmenter, or no caption"):
        prepare(tmp_path / "in", tmp_path / "out", clips, models)
    assert not (tmp_path / "out").exists()
    phrases = tuple(ObjectPrompt(f"dog {number}", f"the dog {number} runs") for number in range(12))
    PromptPlan("Dogs run.", "the dogs run", phrases).save(tmp_path / "in/x.plan.json")
    if told != "captioner":
        assert prepare(tmp_path / "in", tmp_path / "out", clips, models, say=lambda line: None) == (2, 0)


def test_masks_without_names_are_told_as_such(small_clips: ClipSettings) -> None:
    ids, window = np.ones((5, 32, 48), np.uint8), Window("a", 0, 5, 32, 48, 0.0)
    frames = np.zeros((5, 32, 48, 3), np.uint8)
    draft = Draft("a.mp4", window, 8.0, frames, ids, np.ones(5, bool), "A dog runs.")
    with pytest.raises(StageError, match="it has masks without names; expected a plan, or a segmenter"):
        Models(small_clips, ModelSettings())(draft)
