"""``python -m tools.prepare.measure``: how many clips a second are prepared, and does memory stay flat?

    python -m tools.prepare.measure                     # 10,000 clips of 17 frames of 64 x 64, known ids, no models
    python -m tools.prepare.measure --clips 200         # a quick look

Some small videos with their ids are made (``--distinct``), and as many links to them as there shall be clips; then
``tools.prepare`` itself runs on them, local Ray, as a user would start it. Memory is the proportional set size of the
program and all of Ray's processes together, which counts the pages of the object store that are in use once. It is
noted twice a second beside the number of clips whose shard is finished, and counts as flat when the peak over all
clips is less than ``FLAT`` above the peak over the first tenth (for 10,000 clips: the first 1,000).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ttm.data.clip_manifest import ClipFolderManifest
from ttm.data.video_writer import write_video
from ttm.motion.mask_trajectory import MaskTrajectory

FLAT = 0.1
CLIPS_A_SHARD = 100


def make_sources(folder: Path, clips: int, distinct: int, num_frames: int, size: int) -> None:
    """Videos of one clip each: a square that moves over noise, and its ids."""
    made = folder.parent / "made"
    made.mkdir()
    folder.mkdir()
    for number in range(min(distinct, clips)):
        rng = np.random.default_rng(number)
        frames = np.repeat(rng.integers(0, 200, (1, size, size, 3), np.uint8), num_frames, axis=0)
        ids = np.zeros((num_frames, size, size), np.uint8)
        for time_ in range(num_frames):
            left = (number + time_) % (size - size // 4)
            ids[time_, size // 4 : size // 2, left : left + size // 4] = 1
        frames[ids == 1] = 255
        write_video(made / f"{number}.mp4", frames, 8)
        MaskTrajectory(ids, 8).save(made / f"{number}.npz")
    for number in range(clips):
        for suffix in (".mp4", ".npz"):
            os.link(made / f"{number % distinct}{suffix}", folder / f"{number:06d}{suffix}")


def tree_megabytes(pid: int) -> float:
    """Proportional set size of a process and all below it, megabytes."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            own, rest = path.read_text().split(" ", 1)
            parents.setdefault(int(rest.rsplit(")", 1)[1].split()[1]), []).append(int(own))
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    total, waiting = 0.0, [pid]
    while waiting:
        process = waiting.pop()
        waiting += parents.get(process, [])
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) / 1000  # type: ignore[index]
        except (OSError, TypeError):
            continue
    return total


def watched_run(command: Sequence[str]) -> list[tuple[float, int, float]]:
    """Run ``tools.prepare``; (seconds, finished clips, megabytes) twice a second.

    Raises:
        RuntimeError: it failed.
    """
    begin, done = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    samples: list[tuple[float, int, float]] = []

    def sample() -> None:
        while process.poll() is None:
            samples.append((time.monotonic() - begin, done, tree_megabytes(process.pid)))
            time.sleep(0.5)

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    assert process.stdout is not None
    for line in process.stdout:
        done += CLIPS_A_SHARD * ("shard-" in line)
    watcher.join()
    samples.append((time.monotonic() - begin, done, 0.0))
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; its messages stand above.")
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 if memory is flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--distinct", type=int, default=64, help="videos that are really encoded (64)")
    parser.add_argument("--num-frames", type=int, default=17)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side (64)")
    parser.add_argument("--workers", type=int, default=2, help="as of tools.prepare (2)")
    parser.add_argument("--keep-video", action="store_true", help="encode an mp4 of each clip as well")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ttm-measure-") as place:
        folder, out = Path(place) / "videos", Path(place) / "out"
        make_sources(folder, chosen.clips, chosen.distinct, chosen.num_frames, chosen.size)
        command = [sys.executable, "-m", "tools.prepare", str(folder), str(out), "--workers", str(chosen.workers)]
        command += ["--size", f"{chosen.size}x{chosen.size}", "--num-frames", str(chosen.num_frames)]
        command += ["--clips-per-shard", str(CLIPS_A_SHARD), *([] if chosen.keep_video else ["--no-video"])]
        samples = watched_run(command)
        found = len(ClipFolderManifest.load(out))
    seconds = samples[-1][0]
    first = next((at for at, done, _ in samples if done), seconds)
    early = max(megabytes for _, done, megabytes in samples if done <= chosen.clips / 10)
    peak = max(megabytes for _, _, megabytes in samples)
    print(f"{found} clips of {chosen.num_frames} frames of {chosen.size} x {chosen.size} in {seconds:.1f} s:")
    print(f"{found / seconds:.1f} clips/s in all, {found / max(seconds - first, 1e-3):.1f} after the first shard")
    print(f"peak memory {early:.0f} MB over the first tenth, {peak:.0f} MB over all: {peak / early - 1:+.1%}")
    return 0 if found == chosen.clips and peak <= early * (1 + FLAT) else 1


if __name__ == "__main__":
    sys.exit(main())
