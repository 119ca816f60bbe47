"""read_video: the frames asked for, the same from both readers, and errors that say what is wrong."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttm.data import video_reader
from ttm.data.video_reader import read_video, read_windows
from ttm.data.video_timeline import read_timeline
from ttm.data.video_writer import write_video

REAL = Path(os.environ.get("TTM_REAL_DATA", Path(__file__).parents[3] / "shared/data")) / "dog.mp4"
needs_real_data = pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL} (TTM_REAL_DATA)")


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 flat frames; frame t has the grey level 8 t."""
    path = tmp_path_factory.mktemp("video") / "counted.mp4"
    levels = (8 * np.arange(30, dtype=np.uint8))[:, None, None, None]
    write_video(path, np.broadcast_to(levels, (30, 32, 64, 3)).copy(), 12)
    return path


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord")
    return request.param


def times(frames: np.ndarray) -> list[int]:
    return (frames.mean(axis=(1, 2, 3)) / 8).round().astype(int).tolist()


@pytest.mark.parametrize(
    ("arguments", "expected", "fps"),
    [
        ({}, list(range(30)), 12),
        ({"start": 27}, [27, 28, 29], 12),
        ({"num_frames": 4, "start": 5}, [5, 6, 7, 8], 12),
        ({"num_frames": 4, "start": 2, "stride": 9}, [2, 11, 20, 29], 12 / 9),
        ({"stride": 10}, [0, 10, 20], 1.2),
    ],
)
def test_the_frames_asked_for(
    counted: Path, backend: str, arguments: dict[str, int], expected: list[int], fps: float
) -> None:
    frames, rate = read_video(counted, backend=backend, **arguments)  # type: ignore[arg-type]
    assert frames.dtype == np.uint8 and frames.shape == (len(expected), 32, 64, 3)
    assert times(frames) == expected
    assert rate == pytest.approx(fps)


@pytest.mark.parametrize("arguments", [{"num_frames": 31}, {"num_frames": 4, "start": 3, "stride": 9}, {"start": 30}])
def test_too_few_frames(counted: Path, backend: str, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="has 30 frames; expected at least 31"):
        read_video(counted, backend=backend, **arguments)  # type: ignore[arg-type]


def test_sizes_that_decord_cannot_read(tmp_path: Path) -> None:
    """It refuses some narrow videos (48 pixels wide, in version 0.6.0); PyAV then reads them."""
    levels = (8 * np.arange(4, dtype=np.uint8))[:, None, None, None]
    write_video(tmp_path / "narrow.mp4", np.broadcast_to(levels, (4, 32, 48, 3)).copy(), 12)
    assert times(read_video(tmp_path / "narrow.mp4").frames) == [0, 1, 2, 3]


def test_size_takes_the_largest_centred_part(tmp_path: Path) -> None:
    picture = np.zeros((2, 40, 80, 3), np.uint8)
    picture[:, :, 20:60] = 255  # the middle square
    write_video(tmp_path / "wide.mp4", picture, 8)
    assert read_video(tmp_path / "wide.mp4", size=(20, 20)).frames.mean() > 245
    whole = read_video(tmp_path / "wide.mp4", size=(20, 40)).frames
    assert whole.shape == (2, 20, 40, 3) and 120 < whole.mean() < 136


def test_without_decord_pyav_reads(counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_reader, "find_spec", lambda name: None)
    monkeypatch.setattr(video_reader, "_read_with_decord", lambda *args: pytest.fail("decord is not installed"))
    assert times(read_video(counted, num_frames=3).frames) == [0, 1, 2]


def test_a_bridge_that_others_left_on_torch_does_no_harm(counted: Path) -> None:
    decord = pytest.importorskip("decord")
    decord.bridge.set_bridge("torch")
    assert isinstance(read_video(counted, num_frames=1, backend="decord").frames, np.ndarray)


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (16, 8), (10, 200, 30)).save(tmp_path / "x.png")
    assert read_video(tmp_path / "x.png").frames.tolist() == [[[[10, 200, 30]] * 16] * 8]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_a_video_that_is_cut_off(tmp_path: Path, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    write_video(tmp_path / "whole.mp4", noise, 8)
    raw = (tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(raw[: int(keep * len(raw))])
    for reader in ("auto", "pyav"):
        with pytest.raises(ValueError, match=r"cut\.mp4 is (damaged|cut off)"):
            read_video(path, backend=reader)  # type: ignore[arg-type]


def test_files_without_a_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="no video"):
        read_video(tmp_path / "text.mp4")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    with pytest.raises(ValueError, match="no video stream"):
        read_video(tmp_path / "sound.wav")
    for path in (tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(FileNotFoundError, match="expected a video"):
            read_video(path)


@pytest.mark.parametrize(
    "arguments",
    [{"num_frames": 0}, {"start": -1}, {"stride": 0}, {"size": (0, 4)}, {"size": (4,)}, {"backend": "vlc"}],
)
def test_bad_arguments(counted: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is"):
        read_video(counted, **arguments)  # type: ignore[arg-type]


@needs_real_data
def test_both_readers_give_equal_frames_of_a_real_video() -> None:
    pytest.importorskip("decord")
    ours, theirs = (read_video(REAL, 3, start=20, stride=7, backend=name) for name in ("decord", "pyav"))  # type: ignore[arg-type]
    assert ours.frames.shape == (3, 720, 1280, 3)
    assert ours.fps == pytest.approx(theirs.fps) == pytest.approx(29.97 / 7, rel=1e-4)
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    assert (ours.frames[0] != ours.frames[1]).mean() > 0.1


@pytest.mark.parametrize("size", [None, (16, 16)])
def test_windows_are_the_clips_read_one_by_one(counted: Path, backend: str, size: tuple[int, int] | None) -> None:
    windows = [[0, 2, 4], [3, 5, 7, 9], [20, 20, 29], [29, 29, 29], [29, 29, 29]]  # a still picture, shown for long
    read = read_windows(counted, read_timeline(counted), windows, size, backend)  # type: ignore[arg-type]
    everything = read_video(counted, size=size).frames
    for frames, window in zip(read, windows, strict=True):
        np.testing.assert_array_equal(frames, everything[window])


def test_windows_that_decord_cannot_read_are_read_by_pyav(counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    opened = video_reader._open_with_decord

    def open_and_fail(*arguments):  # type: ignore[no-untyped-def]
        read = opened(*arguments)

        def fail(wanted):  # type: ignore[no-untyped-def]
            if wanted[0] > 3:
                raise video_reader._Unreadable("damaged for decord")
            return read(wanted)

        return fail

    monkeypatch.setattr(video_reader, "_open_with_decord", open_and_fail)
    windows = [[0, 1], [4, 5], [6, 9]]
    assert [times(frames) for frames in read_windows(counted, read_timeline(counted), windows)] == windows
    with pytest.raises(ValueError, match="damaged for decord"):
        list(read_windows(counted, read_timeline(counted), windows, backend="decord"))
