"""The pictures and clips of a report, beside it: made once, played by any browser.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from benchmarks.sample_run import REFERENCE, TRAJECTORY, VIDEO
from ttm.atomic_write import written_beside
from ttm.data.video_reader import read_video
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory

OVERLAY = "overlay.mp4"
_POSTER_SIDE = 320


def clips(place: Path) -> dict[str, Path]:
    """The clips of a sample, by what they show; an overlay of the trajectory is made if there is one.

    Args:
        place: the folder of the sample's results; its video is there.
    """
    found = {"made": place / VIDEO}
    if (place / TRAJECTORY).is_file():
        found["its trajectory"] = overlay(place)
    if (place / REFERENCE).is_file():
        found = {"true": place / REFERENCE, **found}
    return found


def overlay(place: Path) -> Path:
    """The video, darkened, under its trajectory; made unless it is there and newer than the video."""
    path = place / OVERLAY
    if not _fresh(path, place / VIDEO):
        video = read_video(place / VIDEO)
        trajectory = MaskTrajectory.load(place / TRAJECTORY)
        frames = video.frames[:, : trajectory.height, : trajectory.width]
        dimmed = (frames * 0.55).astype(np.uint8)
        write_video(path, trajectory.overlay(dimmed, alpha=0.65), video.fps)
    return path


def poster(video: Path) -> Path:
    """A still beside a video, which a page shows before the video plays: the middle frame, which says more."""
    path = video.with_name(f"{video.stem}.jpg")
    if not _fresh(path, video):
        frames = read_video(video).frames
        picture = Image.fromarray(frames[len(frames) // 2])
        picture.thumbnail((_POSTER_SIDE, _POSTER_SIDE))
        with written_beside(path) as beside:
            picture.save(beside, quality=82)
    return path


def brought(video: Path, folder: Path) -> Path:
    """A copy of another run's video within this run's folder, so that the folder is whole when it is moved.

    Args:
        video: where it lies now; its path names the copy, so that videos of two runs never take each other's place.
        folder: of the sample's results here.
    """
    path = folder / f"compare-{hashlib.sha256(str(video.resolve()).encode()).hexdigest()[:12]}.mp4"
    if not _fresh(path, video):
        with written_beside(path) as beside:
            shutil.copyfile(video, beside)
    return path


def link(path: Path, folder: Path) -> str:
    """The address of a file on a page in ``folder``, whatever characters its name has."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _fresh(path: Path, source: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= source.stat().st_mtime
