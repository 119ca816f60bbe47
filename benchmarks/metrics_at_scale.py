"""``python -m benchmarks.metrics_at_scale``: does scoring many videos keep its memory, and how many a second?

    python -m benchmarks.metrics_at_scale                            # 2,500 videos of 128 frames
    python -m benchmarks.metrics_at_scale --light                    # the same without networks: the stream alone
    python -m benchmarks.metrics_at_scale --videos 50 --size 32      # a quick look

The videos are made for the purpose: drifting patterns, H.264; `--distinct` of them are encoded, and the files are
those in turn (features stay in memory for fewer clips than that, so that none is found again). They pass through `ttm
evaluate`'s own stream: read ahead in threads, CF over all pairs and over adjacent frames with the embedded CLIP, and
FVD's whole path against as many references as `--references` says. FVD's network is a random TorchScript stand-in
(the published file is not needed to see whether memory grows), so its value means nothing and is not printed.

Memory is the process's resident set after each tenth of the videos. It counts as flat when the second half adds less
than `FLAT` of what is in use.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from ttm.data.video_writer import write_video
from ttm.evaluation.inputs import VIDEO_SUFFIXES, find_files, pair
from ttm.evaluation.streaming import score_videos
from ttm.evaluation.tiny_features import TinyClipFeatures, tiny_segmenter
from ttm.metrics.clip import FrameConsistency
from ttm.metrics.features import KeptFeatures
from ttm.metrics.fvd import FVD, I3D_FILE, I3DFeatures
from ttm.metrics.scoring import Clip, Metric

FLAT = 0.05
FPS = 16.0


class StandInI3D(nn.Module):
    """A random network that is called as the published I3D is and gives as many features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 16, kernel_size=(4, 32, 32), stride=(4, 32, 32))
        self.head = nn.Linear(16, 400)

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        """[B, 3, T, 224, 224] -> [B, 400]."""
        logits: Tensor = self.head(torch.relu(self.conv(x)).mean(dim=[2, 3, 4]))
        return logits


def drifting_pattern(seed: int, frames: int, size: int) -> NDArray[np.uint8]:
    """A clip of its own: blurred noise that drifts, uint8 [T, size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size // 8 + 1, size // 8 + 1, 3)).astype(np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:size, :size]
    steps = rng.integers(-2, 3, size=2)
    return np.stack([np.roll(picture, tuple(steps * t), axis=(0, 1)) for t in range(frames)])


def make_videos(folder: Path, count: int, distinct: int, frames: int, size: int, first_seed: int) -> None:
    """``count`` files of ``distinct`` contents, in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05d}.mp4"
        if path.exists():
            continue
        if number < distinct:
            write_video(path, drifting_pattern(first_seed + number, frames, size), FPS)
        else:
            os.link(folder / f"{number % distinct:05d}.mp4", path)


def build(folder: Path, device: str) -> list[Metric]:
    """CF twice over one network, and FVD."""
    torch.manual_seed(0)
    torch.jit.script(StandInI3D().eval()).save(str(folder / I3D_FILE))
    frames = KeptFeatures(TinyClipFeatures(*tiny_segmenter(), device), None)
    return [
        FrameConsistency(frames, "all pairs", suffix="-tiny"),
        FrameConsistency(frames, "adjacent", suffix="-tiny"),
        FVD(KeptFeatures(I3DFeatures(folder / I3D_FILE, device), None), name="FVD-stand-in"),
    ]


class ColourGrid:
    """No network: the colours of a 12 x 12 grid, 432 numbers, of every frame or of their mean."""

    weights: Mapping[str, str] = {}

    def __init__(self, of_frames: bool) -> None:
        self._of_frames = of_frames
        self.convention = {"features": "colours of a 12 x 12 grid"}

    def extract(self, clips: Sequence[Clip]) -> list[NDArray[np.float32]]:
        """Float32 [T, 432], or [432], a clip."""
        grids = [np.stack([cv2.resize(frame, (12, 12)) for frame in clip.frames]) for clip in clips]
        flat = [rearrange(grid, "t h w c -> t (h w c)").astype(np.float32) for grid in grids]
        return flat if self._of_frames else [frames.mean(axis=0) for frames in flat]


def build_light() -> list[Metric]:
    """The same three without networks."""
    frames = KeptFeatures(ColourGrid(of_frames=True), None)
    whole = KeptFeatures(ColourGrid(of_frames=False), None)
    pairs = [
        FrameConsistency(frames, "all pairs", suffix="-colours"),
        FrameConsistency(frames, "adjacent", suffix="-colours"),
    ]
    return [*pairs, FVD(whole, name="FVD-stand-in")]


class MemoryLog:
    """Prints videos a second and memory after each tenth of the items."""

    def __init__(self, items: int) -> None:
        self._items, self._begin = items, time.perf_counter()
        self.done, self.megabytes = 0, list[float]()

    def __call__(self, name: str) -> None:
        """One item is done."""
        self.done += 1
        if self.done % max(1, self._items // 10) == 0:
            self.megabytes.append(resident_megabytes())
            rate = self.done / (time.perf_counter() - self._begin)
            print(f"{self.done:>6} videos  {rate:6.2f} a second  {self.megabytes[-1]:8.1f} MB resident", flush=True)

    def growth(self) -> float:
        """What the second half added, as a share of what the first half ended with."""
        middle = self.megabytes[len(self.megabytes) // 2 - 1]
        return (self.megabytes[-1] - middle) / middle


def resident_megabytes() -> float:
    """Of this process, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the videos, score them, print; 1 where memory grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_at_scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--videos", type=int, default=2500)
    parser.add_argument("--references", type=int, default=250)
    parser.add_argument("--distinct", type=int, default=100, help="how many contents are encoded")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--size", type=int, default=64, help="side, pixels")
    parser.add_argument("--light", action="store_true", help="no networks: the stream alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="keep the videos here (default: a folder that is removed)")
    chosen = parser.parse_args(arguments)
    if min(chosen.videos, chosen.references, chosen.size) < 8 or chosen.frames < 10:
        parser.error("--videos, --references and --size must be at least 8, --frames at least 10")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        begin = time.perf_counter()
        kind = (chosen.distinct, chosen.frames, chosen.size)
        make_videos(folder / "videos", chosen.videos, *kind, first_seed=0)
        make_videos(folder / "references", chosen.references, *kind, first_seed=10**6)
        print(f"{chosen.videos} videos and {chosen.references} references in {time.perf_counter() - begin:.0f} s")
        videos, references = (find_files(folder / name, VIDEO_SUFFIXES, name) for name in ("videos", "references"))
        items = pair(videos, references)
        log = MemoryLog(len(items))
        begin = time.perf_counter()
        metrics = build_light() if chosen.light else build(Path(temporary), chosen.device)
        scores = score_videos(items, metrics, on_video=log)
    seconds = time.perf_counter() - begin
    for figure in scores.figures[:2]:
        print(f"{figure.metric} {figure.value:.4f}, N {figure.num_videos}")
    flat = log.growth() < FLAT
    what = f"{chosen.videos} videos of {chosen.frames} frames, {chosen.size} x {chosen.size}"
    what += ", without networks" if chosen.light else ""
    where = f"{chosen.device} with {torch.get_num_threads()} thread(s)"
    print(f"{what}: {chosen.videos / seconds:.2f} videos a second on {where}, {time.process_time():.0f} s of processor")
    verdict = "flat" if flat else "GREW"
    print(f"memory {verdict}: {log.growth():+.1%} over the second half, {log.megabytes[-1]:.0f} MB at the end")
    return 0 if flat and not scores.faulty else 1


if __name__ == "__main__":
    sys.exit(main())
