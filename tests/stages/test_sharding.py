"""A model that is shared out (FSDP2 on gloo) against the same model whole; two processes against one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from stages.checkpoint import latest_checkpoint, list_checkpoints
from stages.settings import Settings
from stages.train import run

Build = Callable[..., Settings]

# Every parameter is a DTensor with its rows alone in memory, and they are counted.
WATCHED = """
import os, signal
from torch.distributed.tensor import DTensor
from stages import stored_tensors, train
from stages.trainer import Trainer

class Watched(Trainer):
    def train(self):
        parameters = list(self.model.parameters())
        assert all(isinstance(p, DTensor) for p in parameters), "not shared out"
        mine = sum(p.to_local().numel() for p in parameters)
        assert mine < 0.6 * sum(p.numel() for p in parameters), "more than its share"
        print("SHARED OUT")
        return super().train()

train.Trainer = Watched
"""


def _logged(settings: Settings, name: str) -> dict[int, float]:
    lines = (Path(settings.output_dir) / "log.jsonl").read_text().splitlines()
    return {entry["step"]: entry[name] for entry in map(json.loads, lines) if name in entry}


def _losses(settings: Settings) -> dict[int, float]:
    return _logged(settings, "loss")


def _exported(settings: Settings) -> dict[str, torch.Tensor]:
    return load_file(Path(settings.output_dir) / "transformer" / "diffusion_pytorch_model.safetensors")


def _assert_alike(one: Settings, other: Settings, rtol: float = 2e-3, atol: float = 2e-5) -> None:
    mine, expected = _exported(one), _exported(other)
    assert mine.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(mine[name], tensor, rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def _begin_from(made: Settings, other: Settings, step: int) -> None:
    """Give a run the checkpoint that another run wrote at a step."""
    name = f"checkpoints/step-{step:08d}"
    shutil.copytree(Path(other.output_dir) / name, Path(made.output_dir) / name)


@pytest.fixture
def prepared(settings: Build, overrides: list[str], prepared_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Settings of a run over prepared clips of four shapes, and the arguments that make them."""

    def build(name: str, *changes: str) -> tuple[Settings, list[str]]:
        data = ["data=prepared", f"data.folder={prepared_folder}", "data.held_out=3"]
        kind = ["stage=motion_to_video", "sharding=full", "keep_checkpoints=9", "max_steps=4"]
        changes = (*kind, *data, *changes, f"output_dir={tmp_path / name}")
        return settings(*changes), [*overrides, *changes]

    return build


def test_two_processes_that_share_a_model_train_what_one_does_alone(
    prepared: Callable[..., Any], several_processes: Any
) -> None:
    parts = "micro_batch_size=1", "gradient_checkpointing=true"
    lora = "max_steps=2", "host.trainable=lora", "memory.weights=bfloat16", "precision=bf16"
    shows = "sample_every=4", "sample_scenes=3", "sample_steps=1"  # an odd number: one process draws one in vain
    (one, _), (alone, _) = prepared("one", *parts, *shows), prepared("lora alone", *lora)
    runs = {"two": prepared("two", *parts, *shows), "one to two": prepared("one to two", *parts)}
    runs["lora"] = prepared("lora", *lora)
    run(one)
    _begin_from(runs["one to two"][0], one, 2)
    codes, outputs = several_processes.run(*[f"{WATCHED}train.main({arguments!r})" for _, arguments in runs.values()])
    assert codes == [0, 0], "\n".join(outputs)
    assert outputs[0].count("SHARED OUT") == outputs[1].count("SHARED OUT") == 3
    two, on_two, on_two_lora = (made for made, _ in runs.values())

    expected = _losses(one)
    assert list(expected) == [1, 2, 3, 4] == list(_losses(two)) and list(_losses(on_two)) == [3, 4]
    for made in (two, on_two):
        np.testing.assert_allclose(list(_losses(made).values()), [expected[s] for s in _losses(made)], rtol=1e-4)
        _assert_alike(made, one)
    for score in ("validation/psnr", "validation/psnr_objects"):
        assert list(_logged(one, score)) == [4]
        assert _logged(two, score)[4] == pytest.approx(_logged(one, score)[4], rel=1e-3)

    files = sorted(path.name for path in list_checkpoints(Path(two.output_dir) / "checkpoints")[0].iterdir())
    names = [f"{part}-0000{number}-of-00002.safetensors" for part in ("ema", "model", "optimizer") for number in (1, 2)]
    assert files == sorted([*names, "state.json"])
    back, _ = prepared("two to one", *parts)
    _begin_from(back, two, 2)
    run(back)
    np.testing.assert_allclose(list(_losses(back).values()), [expected[s] for s in (3, 4)], rtol=1e-4)
    _assert_alike(back, one)

    AcceleratorState._reset_state(True)  # this one has another precision
    run(alone)
    np.testing.assert_allclose(list(_losses(on_two_lora).values()), list(_losses(alone).values()), rtol=0.03)
    mine, whole = _exported(on_two_lora), _exported(alone)
    # AdamW's first steps are as long for a small gradient as for a large one, and bfloat16 rounds some to the other
    # side: a few weights differ by a step, all others hardly.
    assert max(float((mine[name] - tensor).abs().mean()) for name, tensor in whole.items()) < 1e-3


# Process 1's disk is full, or the process is killed, in the middle of a file of the second checkpoint.
HARMED = """
whole = stored_tensors.save_file

def harmed(tensors, path, metadata):
    whole(tensors, path, metadata)
    if path.name == "ema-00002-of-00002.safetensors" and "step-00000004" in path.parent.name:
        path.write_bytes(path.read_bytes()[:200])
        HARM

stored_tensors.save_file = harmed
"""
FULL = 'raise OSError(28, "No space left on device")'
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
CAUGHT = """
try:
    train.main({arguments!r})
except SystemExit as error:
    print("ENDED", error)
"""


def test_a_checkpoint_that_one_of_its_writers_can_not_finish_is_not_there(
    prepared: Callable[..., Any], several_processes: Any
) -> None:
    (full, full_arguments), (killed, killed_arguments) = prepared("full"), prepared("killed")
    first = WATCHED + HARMED.replace("HARM", FULL) + CAUGHT.format(arguments=full_arguments)
    second = HARMED.replace("HARM", KILLED) + f"train.main({killed_arguments!r})"
    codes, outputs = several_processes.run(first, "stored_tensors.save_file = whole\n" + second)
    assert codes[1] == -9 and codes[0] not in (0, None), "\n".join(outputs)
    for output in outputs:
        said = next(line for line in output.splitlines() if line.startswith("ENDED"))
        assert "Cannot write" in said and "No space left" in said and "expected a writable folder" in said
    for made in (full, killed):
        folder = Path(made.output_dir) / "checkpoints"
        assert [path.name for path in list_checkpoints(folder)] == ["step-00000002"]
        found = latest_checkpoint(folder)
        assert found is not None and all(found.ema[name].shape == found.ema.shape(name) for name in found.ema)
    assert not list((Path(full.output_dir) / "checkpoints").glob(".*"))
    run(full)
    run(killed)  # one process, from where the two were before
    assert list(_losses(killed)) == [1, 2, 3, 4] and _losses(killed) == _losses(full)
    assert not list((Path(killed.output_dir) / "checkpoints").glob(".*"))
    _assert_alike(killed, full, rtol=0, atol=0)
