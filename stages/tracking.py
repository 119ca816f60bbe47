"""Where a run's numbers and videos go: the console, log.jsonl, and TensorBoard."""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Sequence
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


def memory_in_use(device: torch.device) -> float:
    """Most memory this process has held so far, GB: the accelerator's where there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


class Tracker:
    """Writes for the main process; another process makes none.

    Args:
        folder: of the run; log.jsonl and tensorboard/ lie in it.
        kind: "tensorboard" or "none" (console and log.jsonl remain).
        first_step: a resumed run's; later entries of an earlier, killed run are dropped by TensorBoard.
    """

    def __init__(self, folder: Path, kind: str, first_step: int) -> None:
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._writer: Any = None
        if kind == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step or None)

    def say(self, line: str) -> None:
        """One line on the console."""
        print(line, flush=True)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """Scalars of one step."""
        self._log.write(json.dumps({"step": step, **{k: float(f"{v:.6g}") for k, v in values.items()}}) + "\n")
        self._log.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def videos(self, step: int, name: str, clips: Sequence[NDArray[np.uint8]], fps: float = 8.0) -> None:
        """Clips uint8 [T, H, W, 3], side by side."""
        if self._writer is None or not clips:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        sheet = np.concatenate(list(clips), axis=2)
        image = Summary.Image(
            height=sheet.shape[1], width=sheet.shape[2], colorspace=3, encoded_image_string=gif_bytes(sheet, fps)
        )
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer._get_file_writer().add_summary(summary, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._log.close()
        if self._writer is not None:
            self._writer.close()
