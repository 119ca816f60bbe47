"""Where a run's numbers and videos go: the console, log.jsonl, and TensorBoard or Weights & Biases."""

from __future__ import annotations

import io
import json
import resource
import sys
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


def gif_bytes(frames: NDArray[np.uint8], fps: float = 8.0) -> bytes:
    """uint8 [T, H, W, 3] as an animated GIF, TensorBoard's form of a video."""
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=int(1000 / fps), loop=0, disposal=1
    )
    return buffer.getvalue()


def clock(seconds: float) -> str:
    """Hours (as many as there are), minutes and seconds: 31:07:02."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def memory_in_use(device: torch.device) -> float:
    """Most memory this process has held so far, GB: the accelerator's where there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


class _TensorBoard:
    """Event files in the run's folder. Entries of an earlier, killed run after ``first_step`` are dropped."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def video(self, step: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=gif)
        self._writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Weights & Biases. A run that goes on is the same run there: its id is kept in the run's folder.

    Project, mode (WANDB_MODE=offline keeps all of it in the folder) and key are wandb's own environment variables.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        kept = folder / "wandb-id"
        if not kept.exists():
            kept.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
        self._folder, self._video = folder, wandb.Video
        name = kept.read_text(encoding="utf-8").strip()
        self._run = wandb.init(id=name, name=folder.name, dir=str(folder), config=dict(settings), resume="allow")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def video(self, step: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        path = self._folder / "samples" / f"step-{step:08d}-{name}.gif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gif)
        self._run.log({name: self._video(str(path), format="gif")}, step=step)

    def close(self) -> None:
        self._run.finish()


def check_tracker(kind: str) -> None:
    """Find out before slow work whether a tracker can be had here.

    Raises:
        ValueError: its package is missing.
    """
    package = {"tensorboard": "tensorboard", "wandb": "wandb"}.get(kind)
    if package is not None and find_spec(package) is None:
        raise ValueError(f"tracker={kind} needs the package {package} (pip install {package}); expected it, or none.")


class Tracker:
    """Writes for the main process; another process makes none.

    Args:
        folder: of the run; log.jsonl lies in it, and what the tracker writes.
        kind: "tensorboard", "wandb" or "none" (console and log.jsonl remain).
        first_step: a resumed run's.
        settings: of the run, for trackers that show them.
    """

    def __init__(self, folder: Path, kind: str, first_step: int, settings: Mapping[str, Any] | None = None) -> None:
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._board: _TensorBoard | _WandB | None = None
        if kind == "tensorboard":
            self._board = _TensorBoard(folder, first_step)
        elif kind == "wandb":
            self._board = _WandB(folder, settings or {})

    def say(self, line: str) -> None:
        """One line on the console."""
        print(line, flush=True)

    def numbers(self, step: int, values: Mapping[str, float], group: str = "train") -> None:
        """Scalars of one step."""
        named = values if group == "train" else {f"{group}/{name}": value for name, value in values.items()}
        self._log.write(json.dumps({"step": step, **{k: float(f"{v:.6g}") for k, v in named.items()}}) + "\n")
        self._log.flush()
        if self._board is not None:
            self._board.numbers(step, {f"{group}/{name}": value for name, value in values.items()})

    def videos(self, step: int, name: str, clips: Sequence[NDArray[np.uint8]], fps: float = 8.0) -> None:
        """Clips uint8 [T, H, W, 3], side by side; smaller ones are padded below, and shorter ones stand still."""
        if self._board is None or not clips:
            return
        frames, height = (max(clip.shape[axis] for clip in clips) for axis in (0, 1))
        padded = [
            np.pad(np.pad(clip, ((0, frames - len(clip)), (0, 0), (0, 0), (0, 0)), "edge"), _below(clip, height))
            for clip in clips
        ]
        sheet = np.concatenate(padded, axis=2)
        self._board.video(step, name, gif_bytes(sheet, fps), (sheet.shape[1], sheet.shape[2]))

    def close(self) -> None:
        """Flush and close."""
        self._log.close()
        if self._board is not None:
            self._board.close()


def _below(clip: NDArray[np.uint8], height: int) -> tuple[tuple[int, int], ...]:
    return (0, 0), (0, height - clip.shape[1]), (0, 0), (0, 0)
