from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from stages.decoded_error import DecodedError
from stages.host import build_transformer, load_vae
from stages.objectives import build_objective
from stages.settings import Settings
from stages.task import Batch
from stages.train import build_task, run
from stages.trainer import Trainer
from ttm.pipelines.autoencoders import decode_latents
from ttm.pipelines.conditioning import Conditions
from ttm.pipelines.embedded import EMBEDDED

INDICES = np.array([5, 9, 12])


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    return load_vae(str(EMBEDDED / "ttm-tiny-unet"))


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(3, 24, 4, 2, 2, generator=generator)
    covered = torch.zeros(3, 1, 4, 2, 2)
    covered[..., 0, 0] = 1
    return Batch(data, Conditions(data[:, :0], torch.zeros(3, 1, 8), None), covered)


def test_the_true_data_has_no_error_and_the_first_frame_no_part_in_it(vae: torch.nn.Module, batch: Batch) -> None:
    error = DecodedError(vae, 0, 3.0)
    assert error(batch.data.clone(), batch, INDICES) == 0
    other = batch.data.clone()
    other[:, :, 0] += 1
    assert error(other, batch, INDICES) == 0
    assert error(other.roll(1, dims=2), batch, INDICES) > 0


def test_it_is_the_mean_error_of_the_frames_shown(vae: torch.nn.Module, batch: Batch) -> None:
    error = DecodedError(vae, 0, 0.0)
    estimate = batch.data + 0.3
    made, true = (decode_latents(vae, clips, clamp=False) for clips in (estimate, batch.data))
    assert torch.equal(made.clamp(-1, 1), decode_latents(vae, estimate)) and made.abs().max() > 1
    shown = error.shown(INDICES, 4)
    expected = torch.stack([(made - true)[place, :, frame].abs().mean() for place, frame in enumerate(shown)]).mean()
    torch.testing.assert_close(error(estimate, batch, INDICES), expected)


def test_objects_weigh_more_and_a_gradient_reaches_the_shown_frames_alone(vae: torch.nn.Module, batch: Batch) -> None:
    plain, weighed = DecodedError(vae, 0, 0.0), DecodedError(vae, 0, 30.0)

    def spoilt(row: int, column: int) -> Tensor:
        estimate = batch.data.clone()
        estimate[..., row, column] += 1
        return estimate

    on_object = weighed(spoilt(0, 0), batch, INDICES) / plain(spoilt(0, 0), batch, INDICES)
    beside = weighed(spoilt(1, 1), batch, INDICES) / plain(spoilt(1, 1), batch, INDICES)
    assert on_object > 1.2 * beside

    estimate = spoilt(0, 0).requires_grad_()
    plain(estimate, batch, INDICES).backward()
    touched = estimate.grad.abs().sum(dim=(1, 3, 4)) > 0
    assert torch.equal(touched, torch.nn.functional.one_hot(plain.shown(INDICES, 4), 4).bool())


def test_every_frame_but_the_first_is_shown_and_each_sample_keeps_its_own(vae: torch.nn.Module) -> None:
    error, indices = DecodedError(vae, 0, 0.0), np.arange(300)
    shown = error.shown(indices, 4)
    assert set(shown.tolist()) == {1, 2, 3}
    assert torch.equal(error.shown(indices[40:50], 4), shown[40:50])
    assert error.shown(indices, 1).tolist() == [0] * 300


def test_an_autoencoder_of_clips_is_refused_before_anything_is_encoded(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    made = settings("stage=motion_to_video", "stage.decoded_weight=1", f"output_dir={tmp_path / 'run'}")
    with pytest.raises(
        ValueError, match="decoded_weight is above 0 and the autoencoder AutoencoderKLWan; expected Auto"
    ):
        run(made)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("host", ["unet"])
def test_the_trainer_adds_it_by_its_weight(settings: Callable[..., Settings]) -> None:
    losses = []
    for weight in (0, 1, 3):
        made = settings("stage=motion_to_video", f"stage.decoded_weight={weight}")
        torch.manual_seed(0)
        model, accelerator = build_transformer(made), Accelerator(cpu=True)
        error = DecodedError(load_vae(made.host.pipeline), made.seed, 0.0) if weight else None
        task, objective = build_task(made, accelerator, model), build_objective(made.objective)
        trainer = Trainer(made, accelerator, model, task, objective, decoded_error=error)
        losses.append(float(trainer._loss(np.array([3, 4])).detach()))
    plain, once, thrice = losses
    assert once > plain
    assert thrice - plain == pytest.approx(3 * (once - plain), rel=1e-3)


@pytest.mark.parametrize("host", ["unet"])
def test_a_run_with_it_is_written_as_any_other(settings: Callable[..., Settings], tmp_path: Path) -> None:
    made = settings("stage=motion_to_video", "stage.decoded_weight=1", "max_steps=2", f"output_dir={tmp_path / 'run'}")
    assert run(made).complete
    assert (tmp_path / "run" / "transformer").is_dir()
