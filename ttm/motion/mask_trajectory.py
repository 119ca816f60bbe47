"""Mask trajectories: which object is where in every frame, as ids, as a colour video, and as a file.

Letters: T frames, H W pixels, L objects.

Through-The-Mask hands the motion of a clip from its first stage to its second as a video in which every
object keeps one flat colour. The paper does not state the colours. Here the colour of id ``k`` is
``PALETTE[k]`` in every clip, so that a model can learn which clause of the motion prompt moves which colour,
and the colours lie far apart in the RGB cube: at its eight corners, then at centres of its faces.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttm.atomic_write import written_beside
from ttm.motion.resize_ids import resize_ids
from ttm.objects import MAX_OBJECTS, validate_ids

PALETTE: NDArray[np.uint8] = np.array(
    [
        (0, 0, 0),  # the background
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 0),
        (255, 0, 255),
        (0, 255, 255),
        (255, 255, 255),
        # Centres of faces. The three whose faces do not touch black come first: the last two are what black
        # mixes to with yellow and with cyan, so that blurred edges of ids 4 and 6 look like ids 11 and 12.
        (255, 128, 128),
        (128, 255, 128),
        (128, 128, 255),
        (128, 128, 0),
        (0, 128, 128),
    ],
    np.uint8,
)
"""Colour of every id, uint8 [MAX_OBJECTS + 1, 3], RGB; ``PALETTE[0]`` is the background."""
PALETTE.setflags(write=False)

MIN_COLOUR_DISTANCE = 179.0
"""No two colours of the palette are closer than this (Euclidean, in units of 0..255). Ids 0-7 alone: 255."""

FORMAT = "ttm-mask-trajectory"
FORMAT_VERSION = 1
_FLOAT_TOLERANCE = 0.5  # how far a decoder may overshoot [0, 1] before the frames must be in another range
_UNREADABLE = (  # what numpy and zipfile raise on damaged files
    *(ValueError, EOFError, OSError, KeyError, AttributeError, TypeError, MemoryError, OverflowError),
    *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False, init=False)
class MaskTrajectory:
    """How every object of a clip moves: one id a pixel and frame.

    Object ``l`` of a plan (counted from 0) has id ``l + 1``; 0 is the background. Ids are in the order of the
    plan and need not be gapless: an object may leave, enter late, or be hidden in some or all frames.

    The first frame is special: stage 1 starts from it, so an object absent from ``ids[0]`` cannot be moved
    by stage 1. :meth:`resize` and :meth:`resample` keep it: frame 0 stays frame 0, and every object visible
    in it stays visible.

    Attributes:
        ids: uint8 [T, H, W], values 0..MAX_OBJECTS. A copy of what was handed in; it may be edited in place.
        fps: frames a second.

    Raises:
        ValueError: ids of another shape, dtype or range, or fps that is not a positive number.
    """

    ids: NDArray[np.uint8]
    fps: float = 8.0

    def __init__(self, ids: ArrayLike, fps: float = 8.0) -> None:
        object.__setattr__(self, "ids", validate_ids(ids, ndim=3))
        object.__setattr__(self, "fps", _validate_fps(fps))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskTrajectory):
            return NotImplemented
        return self.fps == other.fps and np.array_equal(self.ids, other.ids)

    __hash__ = None  # type: ignore[assignment]  # it holds an array that may be edited

    def __repr__(self) -> str:
        shape = f"{self.num_frames} frames of {self.height} x {self.width}"
        return f"MaskTrajectory({shape}, {self.fps:g} fps, object ids {self.object_ids})"

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.ids.shape[0])

    @property
    def height(self) -> int:
        """H, pixels."""
        return int(self.ids.shape[1])

    @property
    def width(self) -> int:
        """W, pixels."""
        return int(self.ids.shape[2])

    @property
    def object_ids(self) -> list[int]:
        """The ids (without 0) that are visible in any frame, rising."""
        return [int(number) for number in np.unique(self.ids) if number]

    def areas(self) -> NDArray[np.int64]:
        """Pixels of every id in every frame, int64 [T, MAX_OBJECTS + 1]; column 0 is the background."""
        counts = [np.bincount(frame.ravel(), minlength=MAX_OBJECTS + 1) for frame in self.ids]
        return np.stack(counts).astype(np.int64)

    def centroids(self, object_id: int) -> NDArray[np.float64]:
        """Mean place of an object in every frame, float64 [T, 2]: x, y in pixels; NaN where it is hidden."""
        mask = self.ids == object_id
        area = mask.sum(axis=(1, 2)).astype(np.float64)
        x = (mask.sum(axis=1) * np.arange(self.width)).sum(axis=1)
        y = (mask.sum(axis=2) * np.arange(self.height)).sum(axis=1)
        area[area == 0] = np.nan
        return np.stack([x / area, y / area], axis=1)

    def to_video(self) -> NDArray[np.uint8]:
        """The trajectory as a colour video, uint8 [T, H, W, 3]; :meth:`from_video` gives these ids back."""
        return PALETTE[self.ids]

    @classmethod
    def from_video(
        cls, frames: ArrayLike | Sequence[Any], fps: float = 8.0, ids: Iterable[int] | None = None
    ) -> MaskTrajectory:
        """Read ids out of a colour video: every pixel takes the id whose colour is nearest.

        Args:
            frames: [T, H, W, 3] RGB, uint8 in 0..255 or float in 0..1 (what an autoencoder decodes may
                overshoot a little), or a sequence of T PIL images.
            fps: frames a second.
            ids: allow only these ids and the background. Hand in the ids of the first frame where they are
                known: mixtures of two colours at an edge can then not become an object that was never there.

        Raises:
            ValueError: frames of another shape, dtype or range, NaN in them, or ids that are no ids.
        """
        video = _validate_frames(frames)
        allowed = np.arange(MAX_OBJECTS + 1, dtype=np.uint8)
        if ids is not None:
            listed = np.array([0, *ids])
            allowed = np.unique(validate_ids(listed[None], ndim=2, name="ids"))
        colours = PALETTE[allowed].astype(np.float32)
        # |x - c|^2 without |x|^2, which is the same for every colour; frame by frame, to need little memory.
        offsets = (colours**2).sum(axis=1)
        scale = np.float32(1 if video.dtype == np.uint8 else 255)
        decoded = np.empty(video.shape[:3], np.uint8)
        for index, frame in enumerate(video):
            distances = offsets - 2 * (frame.astype(np.float32) * scale) @ colours.T
            decoded[index] = allowed[distances.argmin(axis=-1)]
        return cls(decoded, fps)

    def overlay(self, frames: ArrayLike | Sequence[Any], alpha: float = 0.5) -> NDArray[np.uint8]:
        """Paint the objects' colours over a video; the background stays as it is.

        Args:
            frames: [T, H, W, 3] as in :meth:`from_video`, of this trajectory's size and number of frames.
            alpha: weight of the colour, 0 (invisible) to 1 (opaque).

        Returns:
            uint8 [T, H, W, 3].

        Raises:
            ValueError: another size or number of frames, or alpha outside 0..1.
        """
        video = _validate_frames(frames)
        if video.shape[:3] != self.ids.shape:
            expected = [*self.ids.shape, 3]
            raise ValueError(f"frames has shape {list(video.shape)}; expected {expected}, as the trajectory.")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; expected a weight from 0 to 1.")
        if video.dtype != np.uint8:
            video = (np.clip(video, 0, 1) * 255).round().astype(np.uint8)
        painted = video.copy()
        objects = self.ids > 0
        mixed = (1 - alpha) * video[objects] + alpha * PALETTE[self.ids[objects]]
        painted[objects] = mixed.round().astype(np.uint8)
        return painted

    def part(self, top: int, left: int, height: int, width: int) -> MaskTrajectory:
        """A rectangle of every frame, in pixels."""
        return MaskTrajectory(self.ids[:, top : top + height, left : left + width], self.fps)

    def resize(self, height: int, width: int) -> MaskTrajectory:
        """Another size in pixels, by the nearest pixel; the aspect ratio is not kept.

        An object too small to be hit by any sample keeps one pixel in every frame in which it was visible, as
        long as it covers a place that is not another object's last one.

        Raises:
            ValueError: a size below 1.
        """
        _validate_count(height, "height")
        _validate_count(width, "width")
        return MaskTrajectory(np.stack([resize_ids(frame, height, width) for frame in self.ids]), self.fps)

    def resample(self, num_frames: int) -> MaskTrajectory:
        """Another number of frames over the same time, by the nearest frame; the first and last frame stay.

        ``fps`` changes with it, so that the clip lasts as long as before (a single frame keeps its fps).

        Raises:
            ValueError: num_frames below 1.
        """
        _validate_count(num_frames, "num_frames")
        times = np.linspace(0, self.num_frames - 1, num_frames)
        fps = self.fps
        if num_frames > 1 and self.num_frames > 1:
            fps = self.fps * (num_frames - 1) / (self.num_frames - 1)
        return MaskTrajectory(self.ids[np.floor(times + 0.5).astype(np.int64)], fps)

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` file (whole or not at all).

        The file is a compressed NumPy archive without pickle, of four arrays: ``format`` (text,
        "ttm-mask-trajectory"), ``version`` (int64, 1), ``ids`` (uint8 [T, H, W], 0 = background, 1..12 =
        objects in the order of the plan), ``fps`` (float64).

        Raises:
            ValueError: the path does not end in ``.npz``, or ids were edited to something that is no id.
            OSError: the folder is missing or read-only, or the disk is full.
        """
        if Path(path).suffix.lower() != ".npz":
            raise ValueError(f"{path} cannot hold a trajectory; expected a path that ends in '.npz'.")
        with written_beside(path) as beside:
            beside.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """What :meth:`save` writes: the same bytes for the same trajectory.

        Raises:
            ValueError: ids were edited to something that is no id.
        """
        ids = validate_ids(self.ids, ndim=3)
        version, fps, stream = np.int64(FORMAT_VERSION), np.float64(self.fps), io.BytesIO()
        np.savez_compressed(stream, format=np.array(FORMAT), version=version, ids=ids, fps=fps)
        return stream.getvalue()

    @classmethod
    def load(cls, path: str | Path) -> MaskTrajectory:
        """Read what :meth:`save` wrote. Nothing in the file is executed (no pickle).

        Raises:
            FileNotFoundError: no such file.
            ValueError: a corrupt file, another kind of file or version, or values that are no trajectory.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is no file; expected a trajectory (.npz) that was saved before.")
        return cls.from_bytes(Path(path).read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, archive: bytes, name: str = "The archive") -> MaskTrajectory:
        """The inverse of :meth:`to_bytes`. Nothing in it is executed (no pickle).

        Args:
            archive: the file's content.
            name: what to call it in an error.

        Raises:
            ValueError: as :meth:`load`.
        """
        if not archive.startswith(b"PK"):
            raise ValueError(f"{name} is no trajectory, or is damaged; expected .npz, as `save` writes it.")
        try:
            with np.load(io.BytesIO(archive), allow_pickle=False) as loaded:
                arrays = {key: loaded[key] for key in loaded.files}
        except _UNREADABLE as error:
            raise ValueError(f"{name} is no trajectory, or is damaged ({error}); expected .npz.") from error
        if set(arrays) != {"format", "version", "ids", "fps"} or str(arrays["format"]) != FORMAT:
            raise ValueError(
                f"{name} holds {sorted(arrays)}; expected the arrays format, version, ids, fps of '{FORMAT}'."
            )
        if arrays["version"].shape != () or arrays["version"] != FORMAT_VERSION:
            raise ValueError(f"{name} has version {arrays['version']}; expected {FORMAT_VERSION}.")
        if arrays["fps"].shape != () or arrays["fps"].dtype.kind != "f":
            raise ValueError(f"{name} has fps {arrays['fps']!r}; expected one number.")
        return cls(validate_ids(arrays["ids"], ndim=3, name=f"ids of {name}"), float(arrays["fps"]))


def _validate_fps(fps: float) -> float:
    if isinstance(fps, (bool, str)) or not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"fps is {fps!r}; expected frames a second above 0.")
    return float(fps)


def _validate_count(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is {value!r}; expected a whole number from 1.")


def _validate_frames(frames: ArrayLike | Sequence[Any]) -> NDArray[Any]:
    """Frames as uint8 in 0..255 or as float in about 0..1, [T, H, W, 3]."""
    if not isinstance(frames, np.ndarray) and isinstance(frames, Sequence) and len(frames) > 0:
        images = [np.asarray(frame) for frame in frames]
        if len({image.shape for image in images}) > 1:
            shapes = sorted({image.shape for image in images})
            raise ValueError(f"frames have shapes {shapes}; expected one size.")
        frames = np.stack(images)
    video = np.asarray(frames)
    if video.ndim != 4 or video.shape[-1] != 3 or 0 in video.shape:
        raise ValueError(f"frames has shape {list(video.shape)}; expected [T, H, W, 3] with no empty axis.")
    if video.dtype == np.uint8:
        return video
    if video.dtype.kind != "f":
        raise ValueError(f"frames has dtype {video.dtype}; expected uint8 in 0..255 or float in 0..1.")
    low, high = float(video.min()), float(video.max())
    if not (-_FLOAT_TOLERANCE <= low and high <= 1 + _FLOAT_TOLERANCE):  # also true of NaN
        raise ValueError(f"frames holds values {low:.3g}..{high:.3g}; expected float in 0..1, or uint8.")
    return video
