"""A model that is shared out (FSDP2 on gloo) against the same model whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from stages.settings import Settings
from stages.train import run

Build = Callable[..., Settings]

# Every parameter is a DTensor with its rows alone in memory, and they are counted.
WATCHED = """
from torch.distributed.tensor import DTensor
from stages import train
from stages.trainer import Trainer

class Watched(Trainer):
    def train(self):
        parameters = list(self.model.parameters())
        assert all(isinstance(p, DTensor) for p in parameters), "not shared out"
        print("ROWS", sum(p.to_local().numel() for p in parameters), "OF", sum(p.numel() for p in parameters))
        return super().train()

train.Trainer = Watched
"""


def _losses(settings: Settings) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(settings.output_dir) / "log.jsonl").read_text().splitlines()]


def _average(settings: Settings) -> dict[str, torch.Tensor]:
    return load_file(Path(settings.output_dir) / "transformer" / "diffusion_pytorch_model.safetensors")


def test_shared_out_trains_as_whole_and_goes_on_on_any_number(
    settings: Build, overrides: list[str], several_processes: Any, tmp_path: Path
) -> None:
    changes = ["stage=motion_to_video", "sharding=full", "micro_batch_size=1", "max_steps=4"]
    one, two = (settings(*changes, f"output_dir={tmp_path / name}") for name in ("one", "two"))
    run(one)
    arguments = [*overrides, *changes, f"output_dir={two.output_dir}"]
    codes, outputs = several_processes.run(WATCHED + f"train.main({arguments!r})")
    assert codes == [0, 0], outputs
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    for name, tensor in _average(one).items():
        torch.testing.assert_close(_average(two)[name], tensor, rtol=2e-3, atol=2e-5)
