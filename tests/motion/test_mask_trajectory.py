"""MaskTrajectory: exact without an autoencoder, majority right with one, and whole on disk."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ttm.motion.mask_trajectory import MIN_COLOUR_DISTANCE, PALETTE, MaskTrajectory
from ttm.objects import MAX_OBJECTS


def random_ids(seed: int = 0, objects: int = MAX_OBJECTS) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, objects + 1, (5, 24, 32)).astype(np.uint8)


def blocks(objects: int, frames: int = 5, side: int = 96) -> np.ndarray:
    """Squares of 16 px on a grid, one an object, that drift one pixel a frame."""
    ids = np.zeros((frames, side, side), np.uint8)
    for frame in range(frames):
        for number in range(objects):
            top, left = 4 + 24 * (number // 4), 4 + 22 * (number % 4) + frame
            ids[frame, top : top + 16, left : left + 16] = number + 1
    return ids


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_palette_colours_are_far_apart_and_ordered() -> None:
    assert PALETTE.shape == (MAX_OBJECTS + 1, 3)
    distances = np.linalg.norm(PALETTE[:, None].astype(float) - PALETTE[None], axis=-1)
    off_diagonal = distances[~np.eye(len(PALETTE), dtype=bool)]
    assert off_diagonal.min() >= MIN_COLOUR_DISTANCE
    assert distances[:8, :8][~np.eye(8, dtype=bool)].min() == 255
    names = ["black", "red", "lime", "blue", "yellow", "magenta", "cyan", "white"]
    assert PALETTE[:8].tolist() == [list(Image.new("RGB", (1, 1), name).getpixel((0, 0))) for name in names]
    with pytest.raises(ValueError, match="read-only"):
        PALETTE[0] = 1


@pytest.mark.parametrize("objects", range(MAX_OBJECTS + 1))
def test_the_palette_video_round_trip_is_exact(objects: int) -> None:
    trajectory = MaskTrajectory(random_ids(objects, objects=objects), fps=12.5)
    video = trajectory.to_video()
    assert video.dtype == np.uint8 and video.shape == (*trajectory.ids.shape, 3)
    assert MaskTrajectory.from_video(video, fps=12.5) == trajectory
    assert MaskTrajectory.from_video(video / np.float32(255), fps=12.5) == trajectory
    assert MaskTrajectory.from_video([Image.fromarray(frame) for frame in video], fps=12.5) == trajectory


def test_noise_below_half_the_spacing_changes_no_pixel() -> None:
    ids = random_ids()
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(*ids.shape, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    noisy = PALETTE[ids] / 255 + direction * (0.49 * MIN_COLOUR_DISTANCE / 255)
    assert noisy.min() < 0 and noisy.max() > 1  # as a decoder overshoots
    np.testing.assert_array_equal(MaskTrajectory.from_video(noisy.astype(np.float32)).ids, ids)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_decoding_equals_brute_force_on_random_colours(dtype: type) -> None:
    frames = np.random.default_rng(2).random((2, 9, 7, 3)).astype(dtype)
    distances = np.linalg.norm(frames[..., None, :].astype(np.float64) * 255 - PALETTE, axis=-1)
    np.testing.assert_array_equal(MaskTrajectory.from_video(frames).ids, distances.argmin(-1))


@pytest.mark.parametrize("damage", ["noise", "jpeg", "blur"])
@pytest.mark.parametrize("objects", [3, MAX_OBJECTS])
def test_a_damaged_video_keeps_every_object(damage: str, objects: int) -> None:
    ids = blocks(objects)
    video = MaskTrajectory(ids).to_video()
    if damage == "noise":
        noise = np.random.default_rng(3).normal(0, 40, video.shape)
        video = np.clip(video + noise, 0, 255).astype(np.uint8)
    elif damage == "jpeg":
        video = np.stack([through_jpeg(frame) for frame in video])
    else:
        blurred = [Image.fromarray(frame).filter(ImageFilter.GaussianBlur(1.5)) for frame in video]
        video = np.stack([np.asarray(frame) for frame in blurred])
    decoded = MaskTrajectory.from_video(video, ids=range(1, objects + 1))
    assert (decoded.ids == ids).mean() > 0.9
    for number in range(1, objects + 1):
        assert (decoded.ids == number)[ids == number].mean() > 0.5
        # Edges of ids 4 and 6 on black blur to ids 11 and 12: these keep their place, not their outline.
        if number <= 10:
            assert iou(decoded.ids == number, ids == number) > 0.5


def through_jpeg(frame: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


def test_allowed_ids_keep_mixed_edges_from_becoming_objects() -> None:
    ids = np.zeros((1, 8, 8), np.uint8)
    ids[:, :, 4:] = 1
    video = MaskTrajectory(ids).to_video()
    video[:, :, 3] = PALETTE[11]  # half of yellow: what black and yellow mix to
    assert MaskTrajectory.from_video(video).object_ids == [1, 11]
    assert MaskTrajectory.from_video(video, ids=[1]).object_ids == [1]
    assert MaskTrajectory.from_video(video, ids=[]).object_ids == []


def test_ids_are_copied_and_properties_describe_them() -> None:
    source = random_ids(objects=2)
    trajectory = MaskTrajectory(source.astype(np.int64), fps=24)
    source[:] = 9
    assert (trajectory.num_frames, trajectory.height, trajectory.width) == (5, 24, 32)
    assert trajectory.ids.dtype == np.uint8 and trajectory.object_ids == [1, 2]
    assert trajectory.areas().sum(axis=1).tolist() == [24 * 32] * 5
    assert "5 frames of 24 x 32" in repr(trajectory)


def test_centroids_of_a_moving_square() -> None:
    centroids = MaskTrajectory(blocks(2, frames=3)).centroids(2)
    np.testing.assert_allclose(centroids, [[33.5, 11.5], [34.5, 11.5], [35.5, 11.5]])
    assert np.isnan(MaskTrajectory(blocks(2)).centroids(7)).all()


def test_overlay_paints_objects_and_leaves_the_background() -> None:
    trajectory = MaskTrajectory(blocks(3))
    frames = np.random.default_rng(4).integers(0, 256, (*trajectory.ids.shape, 3), np.uint8)
    before = frames.copy()
    half = trajectory.overlay(frames)
    background = trajectory.ids == 0
    np.testing.assert_array_equal(half[background], frames[background])
    mean = (frames[~background].astype(float) + PALETTE[trajectory.ids[~background]]) / 2
    assert np.abs(half[~background] - mean).max() <= 0.5
    np.testing.assert_array_equal(trajectory.overlay(frames, alpha=0), frames)
    opaque = trajectory.overlay(frames, alpha=1)
    np.testing.assert_array_equal(opaque[~background], trajectory.to_video()[~background])
    np.testing.assert_array_equal(trajectory.overlay(frames / 255.0), half)
    np.testing.assert_array_equal(frames, before)


def test_resize_by_a_whole_factor_and_back_is_exact() -> None:
    trajectory = MaskTrajectory(random_ids(), fps=5)
    doubled = trajectory.resize(48, 96)
    np.testing.assert_array_equal(doubled.ids, trajectory.ids.repeat(2, axis=1).repeat(3, axis=2))
    assert doubled.resize(24, 32) == trajectory


def test_resize_keeps_small_objects() -> None:
    crowded = np.zeros((1, 90, 90), np.uint8)
    crowded[0, 40:42, 38:42] = 1  # covers two places of 10 x 10
    crowded[0, 42, 41] = 2  # lies in the second of them alone
    crowded[0, :, 7] = 3
    small = MaskTrajectory(crowded).resize(9, 9)
    assert (small.ids[0, 4, 3], small.ids[0, 4, 4]) == (1, 2)
    assert (small.ids[0] == 3).sum() == 1
    spread = np.zeros((1, 90, 90), np.uint8)
    for number in range(MAX_OBJECTS):
        spread[0, 2 + 7 * number, 88 - 7 * number] = number + 1
    assert MaskTrajectory(spread).resize(13, 13).object_ids == list(range(1, MAX_OBJECTS + 1))


def test_resample_keeps_the_ends_and_the_duration() -> None:
    trajectory = MaskTrajectory(np.arange(9)[:, None, None].repeat(2, axis=1).repeat(2, axis=2), fps=8)
    shorter = trajectory.resample(5)
    assert shorter.ids[:, 0, 0].tolist() == [0, 2, 4, 6, 8] and shorter.fps == 4
    longer = trajectory.resample(17)
    assert longer.ids[[0, -1], 0, 0].tolist() == [0, 8] and longer.fps == 16
    assert longer.resample(9) == trajectory and trajectory.resample(1).fps == 8


@pytest.mark.parametrize("suffix", [".npz", ".NPZ"])
def test_saved_and_loaded_it_is_equal(tmp_path: Path, suffix: str) -> None:
    trajectory = MaskTrajectory(random_ids(), fps=29.97)
    path = tmp_path / f"trajectory{suffix}"
    trajectory.save(path)
    assert MaskTrajectory.load(str(path)) == trajectory
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["format", "fps", "ids", "version"]


def test_a_failed_save_keeps_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trajectory.npz"
    first = MaskTrajectory(random_ids(0))
    first.save(path)

    def full_disk(stream: io.BufferedWriter, **arrays: np.ndarray) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left.*writable folder"):
        MaskTrajectory(random_ids(1)).save(path)
    assert MaskTrajectory.load(path) == first
    assert [item.name for item in tmp_path.iterdir()] == ["trajectory.npz"]


def test_saving_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        MaskTrajectory(random_ids()).save(tmp_path / "missing" / "trajectory.npz")
    with pytest.raises(ValueError, match=r"\.npz"):
        MaskTrajectory(random_ids()).save(tmp_path / "trajectory.mp4")


def write(path: Path, **changes: object) -> Path:
    arrays = {"format": "ttm-mask-trajectory", "version": 1, "ids": random_ids(), "fps": 8.0} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "expected the arrays"),
        ({"fps": None}, "expected the arrays"),
        ({"version": 2}, "version 2"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": 8}, "fps"),
        ({"ids": random_ids() + 1}, "0..12"),
        ({"ids": random_ids()[0]}, r"\[T, H, W\]"),
        ({"ids": random_ids().astype(float)}, "dtype"),
        ({"ids": np.array([{"a": 1}], dtype=object)}, "pickle|damaged"),
    ],
)
def test_other_archives_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskTrajectory.load(write(tmp_path / "x.npz", **changes))


def test_every_truncation_and_most_flips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.npz"
    MaskTrajectory(random_ids()).save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="trajectory"):
            MaskTrajectory.load(path)
    rng = np.random.default_rng(5)
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            loaded = MaskTrajectory.load(path)
        except ValueError:
            continue
        assert loaded == MaskTrajectory(random_ids())  # a flip in a field that the archive does not need


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.save(tmp_path / "x.npy", random_ids())
    (tmp_path / "x.npy").rename(path)
    with pytest.raises(ValueError, match="expected .npz") as caught:
        MaskTrajectory.load(path)
    assert "pickle" not in str(caught.value)  # numpy's advice, were it asked
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", b"no array")
    with pytest.raises(ValueError, match="x.npz"):
        MaskTrajectory.load(path)
    with pytest.raises(FileNotFoundError, match="missing.npz"):
        MaskTrajectory.load(tmp_path / "missing.npz")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), True, "8"])
def test_bad_fps(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        MaskTrajectory(random_ids(), fps)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"\[T, H, W, 3\]"),
        (np.zeros((1, 4, 4, 4), np.uint8), r"\[T, H, W, 3\]"),
        (np.zeros((0, 4, 4, 3), np.uint8), "empty axis"),
        (np.zeros((1, 4, 4, 3), np.uint16), "uint16"),
        (np.full((1, 4, 4, 3), np.nan), "nan"),
        (np.full((1, 4, 4, 3), 255.0), "0..1"),
        (np.full((1, 4, 4, 3), -1.0), "0..1"),
        ([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], "one size"),
    ],
)
def test_frames_that_cannot_be_decoded(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskTrajectory.from_video(frames)


def test_other_bad_arguments() -> None:
    trajectory = MaskTrajectory(random_ids())
    video = trajectory.to_video()
    with pytest.raises(ValueError, match="0..12"):
        MaskTrajectory.from_video(video, ids=[13])
    with pytest.raises(ValueError, match="expected \\[5, 24, 32, 3\\]"):
        trajectory.overlay(video[:4])
    with pytest.raises(ValueError, match="alpha"):
        trajectory.overlay(video, alpha=1.5)
    for size in [(0, 4), (4, -1), (4.0, 4), (True, 4)]:
        with pytest.raises(ValueError, match="whole number"):
            trajectory.resize(*size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_frames"):
        trajectory.resample(0)
    with pytest.raises(TypeError, match="unhashable"):
        hash(trajectory)
