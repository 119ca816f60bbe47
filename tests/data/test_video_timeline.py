"""Videos whose frames are not evenly spaced, or not upright, or not all there: the same from both readers."""

from __future__ import annotations

import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ttm.data.video_reader import read_video
from ttm.data.video_resampling import resample_video
from ttm.data.video_timeline import Timeline
from ttm.segmentation.extraction import choose_frames

MILLISECOND = Fraction(1, 1000)


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord")
    return request.param


def write(path: Path, times: list[int], rotation: int = 0, size: tuple[int, int] = (64, 96)) -> Path:
    """Frame n has the grey level 8 n and a white upper left corner, and is shown at the n-th time, in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height, stream.width = size
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", MILLISECOND
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            picture = np.full((*size, 3), 8 * (number % 32), np.uint8)
            picture[:16, :16] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(frames: np.ndarray) -> list[int]:
    return (frames[:, 32, 48].mean(axis=-1) / 8).round().astype(int).tolist()


def test_a_constant_rate_keeps_every_frame_whatever_the_rounding() -> None:
    for rate in (24, 30000 / 1001, 60):
        seconds = [round(number / rate, 3) for number in range(200)]
        assert Timeline([round(1000 * each) for each in seconds], seconds, rate).at_rate() == (list(range(200)), rate)


def test_evenly_spaced_times_take_the_frame_that_is_on_show() -> None:
    # 10 frames in 0.9 s: a pause after the third, then a hurry
    seconds = [0.0, 0.1, 0.2, 0.62, 0.66, 0.7, 0.74, 0.78, 0.82, 0.9]
    shown, rate = Timeline(None, seconds, 25.0).at_rate()
    assert shown == [0, 1, 2, 2, 2, 2, 3, 6, 8, 9] and rate == pytest.approx(10)
    assert Timeline(None, seconds, 25.0).at_rate(5.0) == ([0, 2, 2, 3, 8], 5.0)


@pytest.mark.parametrize(
    ("fps", "expected"), [(10, [0, 3, 6, 9]), (60, sorted([*range(12), *range(12)])), (30, list(range(12)))]
)
def test_another_rate_of_an_even_video(fps: float, expected: list[int]) -> None:
    seconds = [number / 30 for number in range(12)]
    assert Timeline(None, seconds, 30.0).at_rate(fps) == (expected, fps)


def test_frames_spread_over_a_video_are_found_again_at_their_own_rate() -> None:
    for count in (12, 48, 100, 301):
        line = Timeline(list(range(count)), [number / 24 for number in range(count)], 24)
        for taken in range(2, count):
            chosen, rate = choose_frames(count, 24, taken, spread=True)
            found = line.at_rate(rate, taken)[0]
            assert len(found) == taken
            assert np.abs(np.subtract(found, chosen)).max() <= 1  # a time halfway between two frames has either
    assert len(line.at_rate(rate, taken + 2)[0]) < taken + 2  # what lies behind the end stays missing


def test_one_frame_is_a_video() -> None:
    assert Timeline([0], [0.0], 25.0).at_rate() == ([0], 25.0)
    assert Timeline([0], [0.0], 0.0).at_rate() == ([0], 1.0)


@pytest.mark.parametrize("name", ["vary.mp4", "vary.mkv"])
def test_a_variable_rate_becomes_a_constant_one(tmp_path: Path, backend: str, name: str) -> None:
    path = write(tmp_path / name, [0, 100, 200, 620, 660, 700, 740, 780, 820, 900])
    frames, fps = read_video(path, backend=backend)  # type: ignore[arg-type]
    assert numbers(frames) == [0, 1, 2, 2, 2, 2, 3, 6, 8, 9] and fps == pytest.approx(10, rel=1e-3)
    frames, fps = read_video(path, 2, start=1, stride=2, backend=backend, fps=5.0)  # type: ignore[arg-type]
    assert numbers(frames) == [2, 3] and fps == 2.5


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_upright(tmp_path: Path, backend: str, rotation: int) -> None:
    path = write(tmp_path / "held.mp4", [0, 40, 80], rotation)
    frames = read_video(path, backend=backend).frames  # type: ignore[arg-type]
    stored = write(tmp_path / "plain.mp4", [0, 40, 80])
    plain = read_video(stored, backend="pyav").frames
    assert frames.shape[1:3] == ((96, 64) if rotation % 180 else (64, 96))
    # the display matrix counts counterclockwise, as rot90 does
    np.testing.assert_array_equal(frames, np.rot90(plain, rotation // 90, axes=(1, 2)))


def test_clips_of_few_shot_training_follow_the_times_and_are_upright(tmp_path: Path) -> None:
    path = write(tmp_path / "held.mp4", [0, 100, 200, 620, 660, 700, 740, 780, 820, 900], rotation=90)
    made = resample_video(path, 5, (96, 64))
    # at 0, 200, 400, 600, 800 ms; 400 is nearer to the third than to the fourth
    assert made.sources.tolist() == [0, 2, 2, 3, 8] and made.source_size == (96, 64)
    np.testing.assert_array_equal(made.frames, read_video(path, backend="pyav", fps=5.0).frames)


@pytest.mark.parametrize("name", ["none.mp4", "none.mkv"])
def test_a_video_without_a_frame(tmp_path: Path, name: str) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match=rf"{name} .*no (frame|video stream)"):
        read_video(tmp_path / name)


def test_sound_with_a_cover_is_no_video(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        with av.open(str(tmp_path / "sound.wav")) as source:
            for frame in source.decode(audio=0):
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name in ("sound.wav", "song.m4a"):
        with pytest.raises(ValueError, match=f"{name} has no video stream; expected a video"):
            read_video(tmp_path / name)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
@pytest.mark.parametrize("keep", [0.0, 0.4, 0.8])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, keep: float) -> None:
    raw = write(tmp_path / name, list(range(0, 8000, 100))).read_bytes()
    (tmp_path / name).write_bytes(raw[: int(keep * len(raw))])
    for reader in ("auto", "pyav"):
        with pytest.raises(ValueError, match=rf"{name} is (damaged|cut off)"):
            read_video(tmp_path / name, backend=reader)  # type: ignore[arg-type]


def test_a_trimmed_file_is_whole(tmp_path: Path) -> None:
    """An mp4 whose first half an edit list hides: fewer frames than its table counts, and nothing is wrong."""
    path = write(tmp_path / "trimmed.mp4", list(range(0, 800, 40)))
    with av.open(str(path)) as container:
        half = round(Fraction(2, 5) / Fraction(container.streams.video[0].time_base or 1))
    raw = bytearray(path.read_bytes())
    place = raw.index(b"elst") + 12  # after the version and the count: its duration, and where it begins
    duration, begin = struct.unpack_from(">Ii", raw, place)
    struct.pack_into(">Ii", raw, place, duration // 2, begin + half)
    path.write_bytes(raw)
    frames, fps = read_video(path)
    assert numbers(frames) == list(range(10, 20)) and fps == pytest.approx(25, rel=1e-2)
    np.testing.assert_array_equal(frames, read_video(path, backend="pyav").frames)
