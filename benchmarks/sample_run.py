"""One video a sample, kept as they come: killed, resumed, shared between processes, nothing is lost or done twice.

A sample's results lie in a folder of its own; ``record.json`` is written last and says that they are complete and what
they belong to. A process takes a sample by a lock on that folder, which the system lets go of when the process dies. So
any number of processes may run the same command on the same folder; ``shard=`` only says which samples each looks at.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.generators import Generator, Made
from benchmarks.lock import held
from benchmarks.manifest import Sample
from benchmarks.progress import TimeLeft, format_seconds
from benchmarks.rows import fingerprint
from benchmarks.shard import Shard
from benchmarks.true_clips import true_trajectory, true_video
from benchmarks.versions import package_versions
from ttm.atomic_write import written_beside
from ttm.data.video_writer import write_video

RECORD = "record.json"
VIDEO, REFERENCE, TRAJECTORY, TRUTH, PLAN = (
    *("video.mp4", "reference.mp4"),
    *("trajectory.npz", "truth.npz", "plan.json"),
)


class SampleRun:
    """The results of one model on one suite.

    Args:
        folder: of the results; made if absent.
        samples: all of them, whatever part this process does.
        model: whose videos these are.
        seed: of all sampling.
    """

    def __init__(self, folder: Path, samples: Sequence[Sample], model: Generator, seed: int = 0) -> None:
        self.folder, self.samples, self.model, self.seed = folder, list(samples), model, seed
        self.versions = package_versions()
        self._fingerprints: dict[str, str] = {}

    def place(self, sample: Sample) -> Path:
        """The folder of a sample's results."""
        return self.folder / "samples" / sample.id

    def record(self, sample: Sample) -> dict[str, Any] | None:
        """A sample's record; None while there is none, or one of another model, seed or sample."""
        path = self.place(sample) / RECORD
        if not path.is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if record["belongs_to"] == self._belongs_to(sample) else None

    def records(self) -> dict[str, dict[str, Any]]:
        """Of all samples that are complete, by id, in the order of the suite."""
        found = {sample.id: self.record(sample) for sample in self.samples}
        return {name: record for name, record in found.items() if record is not None}

    def generate(
        self,
        shard: Shard | None = None,
        retry: bool = False,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> int:
        """Make what is missing of a part, and say how it goes.

        Args:
            shard: which part; None: all.
            retry: also what failed before.
            say: gets one line a sample.

        Returns:
            how many samples were made or failed now.
        """
        part = (shard or Shard()).of(self.samples)
        known = {sample.id: self.record(sample) for sample in part}
        waiting = [s for s in part if (record := known[s.id]) is None or (retry and record["error"])]
        clock, done = TimeLeft({"samples": len(waiting)}, {"samples": 1}), 0
        for number, sample in enumerate(waiting, start=len(part) - len(waiting) + 1):
            with held(self.place(sample) / ".lock") as mine:
                before = known[sample.id]
                if not mine or self.record(sample) != before:
                    clock.skip("samples")
                    continue  # another process has it, or had it since
                started = time.perf_counter()
                record = self._make(sample)
                seconds = time.perf_counter() - started
                self._write(sample, record | {"seconds": round(seconds, 3)})
            clock.done("samples", seconds)
            done += 1
            failed = f"  FAILED: {record['error'][:160]}" if record["error"] else ""
            say(f"{number}/{len(part)} {sample.id} {seconds:.1f} s, {format_seconds(clock.seconds())} left{failed}")
        return done

    def _make(self, sample: Sample) -> dict[str, Any]:
        """One sample's files, and its record without the time. Whatever goes wrong is the sample's error."""
        place = self.place(sample)
        for name in (RECORD, VIDEO, REFERENCE, TRAJECTORY, TRUTH, PLAN):
            (place / name).unlink(missing_ok=True)
        record: dict[str, Any] = {
            "belongs_to": self._belongs_to(sample),
            "id": sample.id,
            "prompt": sample.prompt,
            "error": "",
        }
        record |= {"category": sample.category, "split": sample.split, "model": self.model.name, "warnings": []}
        record["versions"] = self.versions  # of this process: a run that goes on later may do so with others
        try:
            made = self.model.generate(sample, sample_seed(self.seed, sample.id))
            write_video(place / VIDEO, made.frames, made.fps)
        except Exception as caught:  # one sample, whatever it is: out of memory, a damaged picture, a phrase not found
            where = traceback.extract_tb(caught.__traceback__)[-1]
            at = f"{Path(where.filename).name}:{where.lineno}"
            return record | {"error": str(caught) or type(caught).__name__, "kind": type(caught).__name__, "at": at}
        return record | self._keep(sample, made)

    def _keep(self, sample: Sample, made: Made) -> dict[str, Any]:
        """What lies beside the video: motion, plan, and the truth brought to the video's size and frame rate."""
        place = self.place(sample)
        num_frames, height, width = made.frames.shape[:3]
        warnings = []
        if made.trajectory is not None:
            made.trajectory.save(place / TRAJECTORY)
        if made.plan is not None:
            made.plan.save(place / PLAN)
        for save, path in ((_save_reference, place / REFERENCE), (_save_truth, place / TRUTH)):
            try:
                save(sample, (num_frames, height, width), made.fps, path)
            except (ValueError, OSError) as caught:
                warnings.append(str(caught))
        clip = {"frames": num_frames, "height": height, "width": width, "fps": made.fps}
        return clip | {"trajectory_given": made.trajectory_given, "warnings": warnings}

    def _write(self, sample: Sample, record: dict[str, Any]) -> None:
        with written_beside(self.place(sample) / RECORD) as beside:
            beside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            with open(beside, "rb") as stream:
                os.fsync(stream.fileno())

    def _belongs_to(self, sample: Sample) -> str:
        if sample.id not in self._fingerprints:
            said = {"identity": self.model.identity, "seed": self.seed, "id": sample.id, "prompt": sample.prompt}
            said["plan"] = sample.plan.to_dict() if sample.plan else None
            files = [path for path in (*sample.files, *self.model.inputs(sample)) if path.is_file()]
            self._fingerprints[sample.id] = fingerprint(said, files)
        return self._fingerprints[sample.id]


def sample_seed(seed: int, name: str) -> int:
    """A sample's own seed: the same in every run and every part."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])


def _save_reference(sample: Sample, shape: tuple[int, int, int], fps: float, path: Path) -> None:
    source = sample.reference or sample.video
    if source is not None:
        frames: NDArray[np.uint8] = true_video(source, shape, fps)
        write_video(path, frames, fps)


def _save_truth(sample: Sample, shape: tuple[int, int, int], fps: float, path: Path) -> None:
    if sample.trajectory is not None:
        true_trajectory(sample.trajectory, shape, fps).save(path)
