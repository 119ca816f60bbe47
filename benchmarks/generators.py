"""What makes a video of a sample: the library's own pipeline, or a folder of videos that somebody else made.

Public baselines are in :mod:`benchmarks.baselines`. Imported only after hydra has started: the pipeline imports sam2,
which puts hydra's global state to its own use.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.manifest import Sample
from benchmarks.true_clips import timed_trajectory
from ttm.data.video_reader import read_video
from ttm.motion.mask_trajectory import MaskTrajectory
from ttm.objects import PromptPlan

GIVE = ("plan", "masks", "trajectory")
"""What a manifest may know and a model may be given."""
GIVEN = ("plan", "masks")
"""What it is given unless it is said."""
SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi")
_WHOLE_UP_TO = 1 << 26
_END = 1 << 22


@dataclass(frozen=True)
class Made:
    """A video and how it came about.

    Attributes:
        frames: uint8 [T, H, W, 3].
        fps: frames a second.
        trajectory: the motion that it followed; None where the model has none.
        plan: the sentence, taken apart; None where the model takes it whole.
        trajectory_given: the motion was handed to the model, so there is nothing in it to score.
    """

    frames: NDArray[np.uint8]
    fps: float
    trajectory: MaskTrajectory | None = None
    plan: PromptPlan | None = None
    trajectory_given: bool = False


class Generator(Protocol):
    """A model, as the runner sees it.

    Attributes:
        name: what the report calls it.
        identity: plain JSON values; what it makes of a sample depends on these, the sample and the seed alone.
    """

    name: str
    identity: dict[str, Any]

    def generate(self, sample: Sample, seed: int) -> Made:
        """One video. Any error costs this sample alone."""
        ...

    def inputs(self, sample: Sample) -> list[Path]:
        """Files that the video depends on beside those of the manifest."""
        ...


class OwnPipeline:
    """A ``ttm.Pipeline`` on a suite.

    Args:
        pipe: the pipeline, on its device.
        name: what to call it.
        weights: hash of its files (:func:`weights_hash`).
        sampling: arguments of every call that are not the pipeline's own; None counts as not given.
        give: which of ``GIVE`` a model gets where the manifest has it; a trajectory at the times of its own video
            (:func:`~benchmarks.true_clips.timed_trajectory`).
    """

    def __init__(
        self, pipe: Any, name: str, weights: str, sampling: dict[str, Any], give: Sequence[str] = GIVEN
    ) -> None:
        if unknown := sorted(set(give) - set(GIVE)):
            raise ValueError(f"give={list(give)} names {unknown}; expected some of {list(GIVE)}.")
        self.name = name
        self._pipe, self._give = pipe, frozenset(give)
        self._sampling = {key: value for key, value in sampling.items() if value is not None}
        self.identity = {"pipeline": weights, "sampling": self._sampling, "give": sorted(self._give)}
        pipe.set_progress_bar_config(disable=True)

    def generate(self, sample: Sample, seed: int) -> Made:
        """One video, its trajectory and its plan."""
        import torch

        given = self._given(sample)
        out = self._pipe(
            first_frame(sample),
            sample.prompt,
            generator=torch.Generator().manual_seed(seed),
            **given,
            **self._sampling,
        )
        frames = np.stack([np.asarray(image.convert("RGB")) for image in out.frames[0]])
        return Made(frames, out.trajectory.fps, out.trajectory, out.plan, "trajectory" in given)

    def inputs(self, sample: Sample) -> list[Path]:
        """None."""
        return []

    def _given(self, sample: Sample) -> dict[str, Any]:
        """What the model gets of the manifest, by the names of the pipeline's arguments."""
        from ttm.pipelines.inputs import check_count

        given: dict[str, Any] = {}
        if "plan" in self._give:
            given["plan"] = sample.plan
        if "masks" in self._give:
            given["masks"] = first_masks(sample)
        if "trajectory" in self._give and sample.trajectory is not None:
            config = self._pipe.config
            num_frames = check_count(self._sampling.get("num_frames", config.num_frames), "num_frames")
            given["trajectory"] = timed_trajectory(sample.trajectory, num_frames, float(config.fps))
        return given


class VideoFolder:
    """Videos of any model: FOLDER/<id>.mp4 (or another container of ``SUFFIXES``), one for each sample.

    Args:
        folder: of the videos.
        name: what to call the model; "" = the folder's name.

    Raises:
        FileNotFoundError: no such folder.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; expected one with a video for each sample, <id>.mp4.")
        self._folder, self.name = folder, name or folder.resolve().name
        self.identity: dict[str, Any] = {"videos": "by content"}

    def file(self, sample: Sample) -> Path:
        """The sample's video. FileNotFoundError: there is none."""
        for suffix in SUFFIXES:
            if (path := self._folder / f"{sample.id}{suffix}").is_file():
                return path
        raise FileNotFoundError(f"There is no video {sample.id}.mp4 (nor {', '.join(SUFFIXES[1:])}) in the folder.")

    def generate(self, sample: Sample, seed: int) -> Made:
        """Read the sample's video."""
        video = read_video(self.file(sample))
        return Made(video.frames, video.fps)

    def inputs(self, sample: Sample) -> list[Path]:
        """The sample's video, where there is one."""
        try:
            return [self.file(sample)]
        except FileNotFoundError:
            return []


def first_frame(sample: Sample) -> NDArray[np.uint8]:
    """The sample's picture, uint8 [H, W, 3].

    Raises:
        ValueError: it names none, or one that can't be read. FileNotFoundError: its video is not there.
    """
    from ttm.pipelines.inputs import read_image

    if sample.image is not None:
        return read_image(sample.image)
    if sample.video is not None:
        return read_video(sample.video, num_frames=1).frames[0]
    raise ValueError("The sample has no picture, only a trajectory; expected one for a model that animates pictures.")


def first_masks(sample: Sample) -> NDArray[np.uint8] | None:
    """The sample's first-frame ids, uint8 [H, W]; None where it has none.

    Raises:
        ValueError: the file is no picture of one channel.
    """
    if sample.masks is None:
        return None
    try:
        with Image.open(sample.masks) as picture:
            ids = np.asarray(picture)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{sample.masks.name} can't be read as masks ({error}); expected a PNG.") from error
    if ids.ndim != 2:
        raise ValueError(f"{sample.masks.name} has shape {list(ids.shape)}; expected one channel of ids [H, W].")
    return ids


def weights_hash(files: Iterable[Path]) -> str:
    """A short name for the contents of files, 16 hex digits.

    Of a file above 64 MB its size and both ends count: the head of a safetensors file lists all its tensors, and
    reading 30 GB to name a run would take minutes.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as stream:
            if size <= _WHOLE_UP_TO:
                digest.update(stream.read())
            else:
                digest.update(stream.read(_END))
                stream.seek(-_END, os.SEEK_END)
                digest.update(stream.read())
    return digest.hexdigest()[:16]
