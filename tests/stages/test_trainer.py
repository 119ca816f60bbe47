from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from stages import whole_files
from stages.checkpoint import list_checkpoints
from stages.muon import has_muon
from stages.settings import Settings
from stages.train import main, run
from stages.trainer import Trainer
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel

Build = Callable[..., Settings]
STAGES = ["image_to_motion", "motion_to_video"]
NEEDS_MUON = pytest.mark.skipif(not has_muon(), reason="Muon came with torch 2.9")
BOTH_HOSTS = pytest.mark.parametrize("host", ["wan", "unet"])
HOSTS = {"wan": MaskedWanTransformer3DModel, "unet": MaskedUNetMotionModel}


def _last(settings: Settings) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint."""
    folder = list_checkpoints(Path(settings.output_dir) / "checkpoints")[-1]
    assert json.loads((folder / "state.json").read_text())["step"] == settings.max_steps
    return {
        f"{name}/{key}": tensor
        for name in ("model", "ema", "optimizer")
        for key, tensor in load_file(folder / f"{name}.safetensors").items()
    }


def _assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def _losses(settings: Settings) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(settings.output_dir) / "log.jsonl").read_text().splitlines()]


@BOTH_HOSTS
@pytest.mark.parametrize("stage", STAGES)
def test_training_learns_and_exports_its_average(settings: Build, stage: str, host: str) -> None:
    # The U-Net sees one noise level: the error of v differs more between levels than training changes it.
    steps, *others = {
        "wan": (40, "optimizer.lr=3e-2"),
        "unet": (14, "optimizer.lr=1e-2", "objective.sampling=logit_normal", "objective.mean=-1", "objective.std=0.01"),
    }[host]
    made = settings(f"stage={stage}", f"max_steps={steps}", "stage.object_weight=2", *others)
    finished = run(made)
    assert finished.complete and finished.step == steps
    losses = _losses(made)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    exported = HOSTS[host].from_pretrained(Path(made.output_dir) / "transformer")
    average = {k.split("/", 1)[1]: v for k, v in _last(made).items() if k.startswith("ema/")}
    _assert_same(dict(exported.named_parameters()), average)
    assert exported.config.num_masked_blocks == (0 if stage == STAGES[0] else 1)
    assert exported.config.condition_channels == 8
    scheduler = json.loads((Path(made.output_dir) / "scheduler" / "scheduler_config.json").read_text())
    kind = {"wan": "FlowMatchEulerDiscreteScheduler", "unet": "DDIMScheduler"}[host]
    assert scheduler["_class_name"] == kind and scheduler.get("prediction_type", "v_prediction") == "v_prediction"


@pytest.mark.parametrize(
    ("stage", "host", "optimizer"),
    [
        *((stage, "wan", "adamw") for stage in STAGES),
        (STAGES[1], "unet", "adamw"),
        pytest.param(STAGES[1], "unet", "muon", marks=NEEDS_MUON),
    ],
)
def test_resumed_equals_uninterrupted(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, optimizer: str
) -> None:
    words = [f"stage={stage}", f"optimizer.name={optimizer}"]
    straight = settings(*words, f"output_dir={tmp_path / 'straight'}")
    broken = settings(*words, f"output_dir={tmp_path / 'broken'}")
    run(straight)
    whole = Trainer._accumulate

    def fails_at_5(self: Trainer) -> torch.Tensor:
        if self.step == 5:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(Trainer, "_accumulate", fails_at_5)
    with pytest.raises(KeyboardInterrupt):
        run(broken)
    assert [p.name for p in list_checkpoints(Path(broken.output_dir) / "checkpoints")] == [
        "step-00000002",
        "step-00000004",
    ]
    monkeypatch.setattr(Trainer, "_accumulate", whole)
    run(broken)
    _assert_same(_last(straight), _last(broken))
    assert run(broken).complete  # a finished run returns at once


def test_killed_process_resumes_to_the_same_weights(overrides: list[str], settings: Build, tmp_path: Path) -> None:
    changes = ["max_steps=120", "checkpoint_every=4", "num_threads=1", f"output_dir={tmp_path / 'killed'}"]
    killed = settings(*changes)
    run(settings("max_steps=1", f"output_dir={tmp_path / 'fills_the_cache'}"))
    command = [sys.executable, "-m", "stages.train", *overrides, *changes]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    folder = Path(killed.output_dir) / "checkpoints"
    deadline = time.monotonic() + 300
    while len(list_checkpoints(folder)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(list_checkpoints(folder)) and list_checkpoints(folder)[-1].name < "step-00000120"
    main([*overrides, *changes])
    straight = settings(*changes, f"output_dir={tmp_path / 'straight'}")
    run(straight)
    _assert_same(_last(straight), _last(killed))


def test_two_processes_train_what_one_does(overrides: list[str], settings: Build, tmp_path: Path) -> None:
    changes = ["stage=motion_to_video", "max_steps=4", "num_threads=1"]
    one = settings(*changes, f"output_dir={tmp_path / 'one'}")
    two = settings(*changes, f"output_dir={tmp_path / 'two'}")
    run(one)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "stages.train", *overrides, *changes, f"output_dir={two.output_dir}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 process(es) x 1 x 2 clips" in done.stdout
    first, second = _last(one), _last(two)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=2e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)


def test_micro_batches_add_up_to_the_batch(settings: Build, tmp_path: Path) -> None:
    whole = settings("max_steps=3", f"output_dir={tmp_path / 'whole'}")
    parts = settings("max_steps=3", "micro_batch_size=1", f"output_dir={tmp_path / 'parts'}")
    run(whole)
    run(parts)
    np.testing.assert_allclose(_losses(parts), _losses(whole), rtol=1e-4)
    for name, tensor in _last(whole).items():
        torch.testing.assert_close(_last(parts)[name], tensor, rtol=2e-3, atol=2e-5)


@BOTH_HOSTS
def test_bf16_gradient_checkpointing_and_matmul_attention_agree_with_plain(settings: Build, tmp_path: Path) -> None:
    losses = []
    other = ["gradient_checkpointing=true", "attention=matmul", "micro_batch_size=2"]
    for number, changes in enumerate(([], ["precision=bf16"], other)):
        made = settings("stage=motion_to_video", "max_steps=2", *changes, f"output_dir={tmp_path / str(number)}")
        run(made)
        losses.append(_losses(made))
        AcceleratorState._reset_state(True)  # the next run has another precision
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.03)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)


@BOTH_HOSTS
def test_adapter_training_leaves_the_host_alone(settings: Build, tmp_path: Path, host: str) -> None:
    start = settings("stage=motion_to_video", "max_steps=1", f"output_dir={tmp_path / 'start'}")
    run(start)
    weights = Path(start.output_dir) / "transformer"
    made = settings("stage=motion_to_video", f"host.init_from={weights}", "host.trainable=adapter", "stage.drop_text=0")
    run(made)
    before = HOSTS[host].from_pretrained(weights)
    after = HOSTS[host].from_pretrained(Path(made.output_dir) / "transformer").state_dict()
    adapter = set(before.adapter_state_dict())
    moved = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert moved and moved <= adapter
    assert {key.rsplit("|", 1)[0] for key in _optimizer_keys(made)} == adapter


def _optimizer_keys(settings: Settings) -> list[str]:
    return [key.split("/", 1)[1] for key in _last(settings) if key.startswith("optimizer/")]


def test_fine_tuning_starts_from_the_weights_it_is_given(settings: Build, tmp_path: Path) -> None:
    run(settings("max_steps=2", f"output_dir={tmp_path / 'start'}"))
    again = settings(f"host.init_from={tmp_path / 'start' / 'transformer'}", "optimizer.lr=1e-12", "max_steps=1")
    run(again)
    given = load_file(tmp_path / "start" / "transformer" / "diffusion_pytorch_model.safetensors")
    kept = {k.split("/", 1)[1]: v for k, v in _last(again).items() if k.startswith("model/")}
    assert max((given[name] - kept[name]).abs().max() for name in given) < 1e-10


def test_time_limit_stops_with_a_checkpoint_and_an_export(settings: Build) -> None:
    made = settings("max_steps=100000", "checkpoint_every=50000", "time_limit_minutes=1e-9")
    stopped = run(made)  # the time ran out during the set-up: not one step, and nothing to keep
    assert not stopped.complete and stopped.step == 0
    made.time_limit_minutes = None
    log = Path(made.output_dir) / "log.jsonl"  # its first line is written from within the loop, which then is told once

    def stop(*_: object) -> None:
        if log.exists() and log.stat().st_size:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        stopped = run(made)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < stopped.step < 100000
    assert list_checkpoints(Path(made.output_dir) / "checkpoints")[-1].name == f"step-{stopped.step:08d}"


def test_a_grown_cache_does_not_change_a_run_under_way(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = [f"data.cache_dir={tmp_path / 'cache'}", "max_steps=4"]
    straight = settings(*place, f"output_dir={tmp_path / 'straight'}")
    grown = settings(*place, f"output_dir={tmp_path / 'grown'}")
    run(straight)
    monkeypatch.setattr(Trainer, "_must_stop", lambda self: self.step == 2)
    run(grown)
    monkeypatch.undo()
    grown.data.encode_scenes = 12
    run(grown)
    _assert_same(_last(straight), _last(grown))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("batch_size=3 micro_batch_size=2", "expected a divisor of the 3 clips"),
        ("host.pipeline=/nowhere/at/all", "no folder 'vae'"),
        ("host.init_from=/nowhere/at/all", "expected a folder or a Hub id"),
        ("host.transformer.in_channels=6 host.transformer.out_channels=6", "takes 6 latent channels"),
        ("host.transformer.in_channels=6", "takes 2 channels of an image; expected 8"),
        ("data.encode_scenes=0 data.num_scenes=9999", "expected 9999"),
        ("data.num_frames=6", "frames"),
        ("output_dir=/proc/nowhere", "output_dir can't be written"),
        ("max_stepz=3", "did you mean 'max_steps'"),
    ],
)
def test_mistakes_end_with_one_sentence(overrides: list[str], change: str, said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*overrides, *change.split()])
    assert str(caught.value.code).startswith("stages.train: ") and said in str(caught.value.code)


def test_a_batch_that_can_not_be_divided_is_told_before_slow_work(
    settings: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.train.build_model", None)
    with pytest.raises(ValueError, match="micro_batch_size is 3; expected a divisor"):
        run(settings("micro_batch_size=3"))


def test_a_loss_that_is_no_number_ends_the_run_before_a_checkpoint(
    settings: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings()
    monkeypatch.setattr("stages.trainer.weighted_error", lambda p, *_: (p * float("nan")).mean())
    with pytest.raises(FloatingPointError, match="at step 1; expected finite"):
        run(made)
    assert not list_checkpoints(Path(made.output_dir) / "checkpoints")


def test_a_run_that_is_stopped_while_its_loss_is_no_number_keeps_its_last_checkpoint(
    settings: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings("max_steps=8", "checkpoint_every=4", "log_every=4")
    step = Trainer._accumulate

    def diverges(self: Trainer) -> torch.Tensor:
        self._stop = self.step == 5  # told to stop in the step after the next, between two logs
        return step(self) * (float("nan") if self.step >= 4 else 1)

    monkeypatch.setattr(Trainer, "_accumulate", diverges)
    with pytest.raises(FloatingPointError, match="at step 6; expected finite"):
        run(made)
    assert [p.name for p in list_checkpoints(Path(made.output_dir) / "checkpoints")] == ["step-00000004"]
    assert not (Path(made.output_dir) / "transformer").exists()


def test_a_disk_without_space_is_told_before_training(settings: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(whole_files.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(OSError, match="expected .* for 3 more checkpoint"):
        run(settings())


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=NEEDS_MUON)])
def test_the_space_asked_for_is_that_of_checkpoints_and_the_last_model(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    made = settings(f"optimizer.name={optimizer}", "max_steps=1", f"output_dir={tmp_path / 'whole'}")
    run(made)
    checkpoint = sum(tensor.nbytes for tensor in _last(made).values())
    (path,) = (tmp_path / "whole" / "transformer").glob("*.safetensors")
    export = sum(tensor.nbytes for tensor in load_file(path).values())
    free = 3 * checkpoint + export
    monkeypatch.setattr(whole_files.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert run(settings(f"optimizer.name={optimizer}")).complete
    free -= export // 2
    with pytest.raises(OSError, match="for 3 more checkpoint.* and what the run ends with"):
        run(settings(f"optimizer.name={optimizer}", f"output_dir={tmp_path / 'short'}"))


def test_a_run_that_goes_on_needs_the_space_that_it_does_not_have_yet(
    settings: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings("max_steps=4")
    run(made)
    sizes = {name: tensor.numel() for name, tensor in _last(made).items() if name.startswith("model/")}
    left_over = [
        tmp_path / "run" / name for name in ("checkpoints/.step-00000006.999999999.part", ".transformer.999999999.part")
    ]
    for folder in left_over:
        folder.mkdir()

    class Usage:
        free = 1.5 * 20 * sum(sizes.values())

    class Full:
        free = 0

    def usage(path: Path) -> type:
        return Full if any(folder.exists() for folder in left_over) else Usage

    monkeypatch.setattr(whole_files.shutil, "disk_usage", usage)
    assert run(settings("max_steps=8")).step == 8
    with pytest.raises(OSError, match="expected .* for 3 more checkpoint"):
        run(settings(f"output_dir={tmp_path / 'fresh'}"))
    assert run(settings(f"output_dir={tmp_path / 'short'}", "max_steps=1", "keep_checkpoints=9")).step == 1
