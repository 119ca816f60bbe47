"""Where clips lie: rates, lengths, sizes, the alignment with annotated frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.prepare.footage import Footage, open_footage
from tools.prepare.settings import ClipSettings
from tools.prepare.sources import Part, Source, find_sources
from tools.prepare.windows import clip_id, cut
from ttm.data.video_reader import read_video
from ttm.data.video_timeline import Timeline


def footage(num_frames: int, fps: float, size: tuple[int, int] = (32, 48)) -> Footage:
    made = Footage(Path("none"), Timeline(None, [n / fps for n in range(num_frames)], fps))
    made.__dict__["size"] = size
    return made


SOURCE = Source("a/Run No. 3.mp4", Part("a/Run No. 3.mp4"))
SETTINGS = ClipSettings(num_frames=(5,), fps=8.0, sizes=((32, 48),))


def test_a_whole_multiple_gives_every_so_manieth_frame() -> None:
    for own, stride in ((24.0, 3), (24000 / 1001, 3), (30000 / 1001 / 30 * 8, 1), (120.0, 15)):
        numbers, fps = footage(100, own).at_rate(8.0)
        assert numbers == list(range(0, 100, stride)) and fps == pytest.approx(own / stride)


def test_other_rates_take_what_is_on_show() -> None:
    numbers, fps = footage(300, 30000 / 1001).at_rate(8.0)
    assert fps == 8 and numbers[:4] == [0, 4, 7, 11]
    with pytest.raises(ValueError, match="7.5 frames a second; expected at least 8"):
        footage(100, 7.5).at_rate(8.0)


def test_clips_lie_side_by_side() -> None:
    windows = cut(footage(77, 24.0), SOURCE, SETTINGS)
    assert [each.first for each in windows] == [0, 5, 10, 15, 20]  # 26 frames at 8 a second
    assert [each.start_seconds for each in windows] == [0, 0.625, 1.25, 1.875, 2.5]
    assert len({each.clip_id for each in windows}) == 5


def test_the_longest_length_that_fits() -> None:
    several = replace(SETTINGS, num_frames=(5, 9, 17))
    assert {each.num_frames for each in cut(footage(16, 8), SOURCE, several)} == {9}
    assert [each.num_frames for each in cut(footage(40, 8), SOURCE, several)] == [17, 17]
    with pytest.raises(ValueError, match="4 frames at 8 a second; expected at least 5"):
        cut(footage(4, 8), SOURCE, several)


def test_few_clips_are_spread_over_the_source() -> None:
    windows = cut(footage(50, 8), SOURCE, replace(SETTINGS, max_clips=3))
    assert [each.first for each in windows] == [0, 20, 45]


@pytest.mark.parametrize(("fps", "step"), [(6.0, 1), (12.0, 2), (24.0, 4), (8.0, 4), (3.0, 1)])
def test_clips_with_masklets_begin_at_annotated_frames(fps: float, step: int) -> None:
    source, film = replace(SOURCE, masks_kind="sa_v"), footage(200, 24.0)
    numbers, _ = film.at_rate(fps)
    firsts = [each.first for each in cut(film, source, replace(SETTINGS, fps=fps))]
    assert firsts[0] == 0 and {second - first for first, second in zip(firsts, firsts[1:], strict=False)} == {
        -(-5 // step) * step
    }
    assert all(numbers[first] % 4 == 0 for first in firsts)


@pytest.mark.parametrize("fps", [10.0, 15.0, 16.0])
def test_and_at_rates_that_do_not_divide_the_videos(fps: float) -> None:
    source, film = replace(SOURCE, masks_kind="sa_v"), footage(200, 24.0)
    numbers, _ = film.at_rate(fps)
    windows = cut(film, source, replace(SETTINGS, fps=fps))
    firsts = [each.first for each in windows]
    assert firsts[0] == 0 and all(numbers[first] % 4 == 0 for first in firsts)
    assert [each.start_seconds for each in windows] == [round(numbers[first] / 24, 6) for first in firsts]
    for first, second in zip(firsts, firsts[1:] + [len(numbers)], strict=True):
        assert second - first >= 5  # they do not overlap, and none that fits is passed over
        assert all(numbers[place] % 4 for place in range(first + 5, min(second, len(numbers) - 4)))


def test_the_size_nearest_to_the_aspect_ratio() -> None:
    sizes = ((480, 832), (832, 480), (624, 624))
    for own, size in (((720, 1280), 0), ((1920, 1080), 1), ((1000, 1100), 2)):
        (window, *_) = cut(footage(20, 8, own), SOURCE, replace(SETTINGS, sizes=sizes))
        assert (window.height, window.width) == sizes[size]
    (window, *_) = cut(footage(20, 8, (848, 480)), SOURCE, replace(SETTINGS, sizes=()))
    assert (window.height, window.width) == (848, 480)
    with pytest.raises(ValueError, match="640 x 360 pixels; expected at least 832 x 480"):
        cut(footage(20, 8, (360, 640)), SOURCE, replace(SETTINGS, sizes=sizes))


def test_ids_are_readable_and_tell_sources_apart() -> None:
    one, other = clip_id("a/Run No. 3.mp4", 12), clip_id("b/Run No. 3.mp4", 12)
    assert one.startswith("run-no-3-") and one.endswith("-000012") and one != other
    assert clip_id("…/…", 0).startswith("clip-")


@pytest.mark.parametrize(
    "wrong", [{"num_frames": ()}, {"fps": 0}, {"sizes": ((4, 9),)}, {"masks": "x"}, {"max_clips": 0}]
)
def test_settings_that_are_none(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def test_a_folder_of_frames_is_footage(tmp_path: Path, add_video: Callable[..., Path]) -> None:
    frames = read_video(add_video(tmp_path / "x.mp4", 6)).frames
    folder = tmp_path / "s/JPEGImages_24fps/v"
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg", quality=95)
    (source,) = find_sources(tmp_path / "s")
    with open_footage(tmp_path / "s", source) as film:
        assert film.timeline.num_frames == 6 and film.size == (32, 48)
        assert film.at_rate(12.0) == ([0, 2, 4], 12.0)
        (clip,) = film.windows([[0, 2, 4]], (32, 48))
        assert np.abs(clip.astype(int) - frames[[0, 2, 4]]).mean() < 4
        (small,) = film.windows([[5]], (16, 16))
        assert small.shape == (1, 16, 16, 3)
    (folder / "00003.jpg").unlink()
    with pytest.raises(ValueError, match="00004.jpg is not frame 3"):
        with open_footage(tmp_path / "s", source):
            pass
