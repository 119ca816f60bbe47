"""Videos that other programs open, with the right colours, whole or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import av
import numpy as np
import pytest

from ttm.data.video_reader import read_video
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import PALETTE, MaskTrajectory


def clip(frames: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    """A bright square that moves over a gradient."""
    ramp = np.linspace(0, 180, width).astype(np.uint8)
    video = np.broadcast_to(ramp[None, None, :, None], (frames, height, width, 3)).copy()
    for t in range(frames):
        video[t, 8:24, 4 + 3 * t : 20 + 3 * t] = (230, 60, 40)
    return video


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b.astype(float)) ** 2).mean(), 1e-9)))


@pytest.mark.parametrize("fps", [8, 24, 29.97, 7.5])
def test_it_is_h264_that_players_open(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, clip(), fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert stream.frames == 9
    raw = path.read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")  # a browser can start before it has all
    assert psnr(read_video(path).frames, clip()) > 30
    assert [item.name for item in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_colours_come_back(tmp_path: Path, backend: str) -> None:
    if backend == "decord":
        pytest.importorskip("decord")
    bars = np.repeat(np.repeat(PALETTE[None, None], 32, axis=1), 16, axis=2).repeat(3, axis=0)
    write_video(tmp_path / "bars.mp4", bars, 8)
    read = read_video(tmp_path / "bars.mp4", backend=backend).frames  # type: ignore[arg-type]
    middles = read[:, 16, 8::16].astype(int)
    assert np.abs(middles - PALETTE).max() <= 4


def test_a_trajectory_survives_its_video(tmp_path: Path) -> None:
    ids = np.zeros((5, 64, 64), np.uint8)
    for t in range(5):
        ids[t, 8:28, 6 + 4 * t : 26 + 4 * t] = 1
        ids[t, 36:56, 30:50] = 2
    write_video(tmp_path / "trajectory.mp4", MaskTrajectory(ids).to_video(), 8)
    decoded = MaskTrajectory.from_video(*read_video(tmp_path / "trajectory.mp4"), ids=[1, 2])
    assert decoded.fps == 8
    for number in (1, 2):
        both, either = (decoded.ids == number) & (ids == number), (decoded.ids == number) | (ids == number)
        assert both.sum() / either.sum() > 0.95


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (1, 1)])
def test_odd_sides_gain_a_row_or_column(tmp_path: Path, height: int, width: int) -> None:
    frames = clip(3)[:, :height, :width]
    write_video(tmp_path / "odd.mp4", frames, 8)
    read = read_video(tmp_path / "odd.mp4").frames
    assert read.shape[1:3] == (height + height % 2, width + width % 2)
    assert psnr(read[:, :height, :width], frames) > 28


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", clip(), 8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_full_disk_leaves_the_old_video(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, clip(), 8)
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (12, 128, 128, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="writable folder with space left.*video.mp4"):
            write_video(path, noise, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["video.mp4"]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        write_video(tmp_path / "missing" / "video.mp4", clip(), 8)
    with pytest.raises(IsADirectoryError, match="path of a file"):
        write_video(tmp_path, clip(), 8)


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (clip()[0], 8, r"\[T, H, W, 3\]"),
        (clip()[:0], 8, "empty axis"),
        (clip()[..., :1], 8, r"\[T, H, W, 3\]"),
        (clip() / 255, 8, "float64"),
        (clip(), 0, "fps"),
        (clip(), float("nan"), "fps"),
    ],
)
def test_bad_arguments(tmp_path: Path, frames: np.ndarray, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "video.mp4", frames, fps)
    assert not list(tmp_path.iterdir())
