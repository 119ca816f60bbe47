"""What a run may go on with, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.host import build_transformer, weights_digest
from stages.settings import Settings
from stages.train import run

Build = Callable[..., Settings]


def test_a_checkpoint_of_another_model_is_refused(settings: Build) -> None:
    run(settings("max_steps=1"))
    with pytest.raises(ValueError, match="holds a run of another model.*another output_dir"):
        run(settings("max_steps=2", "host.transformer.num_layers=1"))


@pytest.mark.parametrize(
    "change",
    ["batch_size=2", "seed=7", "objective=v_prediction", "optimizer.name=muon", "host.region=box", "data.seed=1",
     "data.num_objects=[1,1]", "data.appearance=0.5", "data.pieces=0.5"],
)  # fmt: skip
def test_a_run_keeps_what_decides_its_samples(settings: Build, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    run(settings("max_steps=1"))
    monkeypatch.setattr("stages.train.build_model", None)  # told before slow work
    with pytest.raises(ValueError, match=f"holds a run with {change.split('=')[0]}.*another output_dir"):
        run(settings("max_steps=2", change))


def test_a_run_keeps_how_it_sees_the_first_frame(settings: Build) -> None:
    words = "stage=motion_to_video", "host.carried_first_frame=true"
    run(settings(*words, "max_steps=1"))
    with pytest.raises(ValueError, match="begun with another carried_first_frame: True, not False; expected the same"):
        run(settings("stage=motion_to_video", "max_steps=2"))
    assert run(settings(*words, "max_steps=2")).step == 2


def test_a_run_keeps_its_base_wherever_that_lies(settings: Build, pipeline_folder: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        build_transformer(settings(f"seed={seed}")).save_pretrained(tmp_path / f"base {seed}")
    words = "stage=motion_to_video", "host.trainable=adapter"
    run(settings(*words, f"host.init_from={tmp_path / 'base 1'}", "max_steps=1"))
    with pytest.raises(ValueError, match="another base: .*another folder"):
        run(settings(*words, f"host.init_from={tmp_path / 'base 2'}", "max_steps=2"))
    with pytest.raises(ValueError, match="another base.*not random weights"):
        run(settings(*words, "max_steps=2"))
    (tmp_path / "base 1").rename(tmp_path / "moved")
    shutil.copytree(pipeline_folder, tmp_path / "host")
    moved = [*words, f"host.init_from={tmp_path / 'moved'}", f"host.pipeline={tmp_path / 'host'}", "max_steps=2"]
    assert run(settings(*moved)).step == 2
    text_encoder = tmp_path / "host" / "text_encoder" / "model.safetensors"
    kept = text_encoder.read_bytes()
    save_file({name: 1.5 * value for name, value in load_file(text_encoder).items()}, text_encoder, {"format": "pt"})
    with pytest.raises(ValueError, match="another text_encoder"):
        run(settings(*moved, "max_steps=3"))
    text_encoder.write_bytes(kept)
    (tmp_path / "run" / "begun_with.json").unlink()  # as of a run of an older release
    assert run(settings(*moved, "max_steps=3")).step == 3


def test_a_run_of_all_weights_goes_on_when_its_base_is_another(settings: Build, tmp_path: Path) -> None:
    """As that of a recipe whose last step puts what was trained where it began: nothing of the base is left in it."""
    words = "stage=motion_to_video", f"host.init_from={tmp_path / 'base'}"
    for seed in (1, 2):
        build_transformer(settings(f"seed={seed}")).save_pretrained(tmp_path / "base")
        assert run(settings(*words, f"max_steps={seed}")).step == seed


def test_weights_are_the_same_in_either_precision() -> None:
    weights = [torch.randn(70, 90), torch.randn(())]
    assert weights_digest(weights) == weights_digest([value.bfloat16() for value in weights])
    assert weights_digest(weights) != weights_digest([weights[0] * 1.1, weights[1]])
