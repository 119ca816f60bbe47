"""Presets for memory: what they set, what is trained with them, and that a plain model comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages import optimization
from stages.checkpoint import latest_checkpoint, load_optimizer_tensors, optimizer_tensors
from stages.host import build_transformer
from stages.memory import finish_model, prepare_model
from stages.settings import Settings
from stages.settings_loading import load_settings
from stages.train import run
from stages.trainer import Trainer
from ttm.models.lora import has_lora

PRESETS = ("24gb", "16gb", "12gb", "8gb")


def _settings(overrides: list[str], *more: str) -> Settings:
    return load_settings([*overrides, "stage=motion_to_video", "precision=bf16", *more])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_one_override_and_the_command_line_has_the_last_word(overrides: list[str], name: str) -> None:
    settings = _settings(overrides, f"memory={name}", "host.lora_rank=3")
    assert (settings.memory.name, settings.gradient_checkpointing, settings.micro_batch_size) == (name, True, 1)
    assert settings.host.trainable == ("all" if name == "24gb" else "lora")
    assert settings.host.lora_rank == 3
    page = (Path(__file__).parents[2] / "configs" / "memory" / f"{name}.yaml").read_text(encoding="utf-8")
    assert "measured here" in page.partition("memory:")[0]


def test_settings_that_contradict_each_other_are_refused(overrides: list[str]) -> None:
    for more, message in (
        (["memory=10gb"], "10gb.*12gb"),
        (["memory=12gb", "precision=no"], "memory.weights is bfloat16 and precision no; expected precision=bf16"),
        (["host.lora_rank=0"], "host.lora_rank is 0; expected at least 1"),
        (["host.trainable=lore"], "host.trainable"),
        (["optimizer.name=adam"], "optimizer.name"),
    ):
        with pytest.raises(ValueError, match=message):
            _settings(overrides, *more)


def test_eight_bits_need_a_gpu_and_their_package(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="optimizer.name=adamw_8bit needs a CUDA device.*expected .*=adamw here"):
        run(_settings(overrides, "memory=12gb"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(optimization, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes"):
        optimization.check_optimizer("paged_adamw_8bit")


def test_what_is_trained_and_how_the_rest_is_kept(overrides: list[str]) -> None:
    for trainable, expected in (("all", "all"), ("adapter", "new"), ("lora", "new and lora")):
        model = build_transformer(_settings(overrides))
        new, count = set(model.adapter_state_dict()), len(list(model.parameters()))
        prepare_model(model, _settings(overrides, f"host.trainable={trainable}", "memory.weights=bfloat16"))
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert len(trained) == count if expected == "all" else new <= trained
        assert any(".lora_" in name for name in trained) == ("lora" in expected)
        assert {p.dtype for name, p in model.named_parameters() if name in trained} == {torch.float32}
        frozen = {p.dtype for name, p in model.named_parameters() if name not in trained and p.ndim > 1}
        assert expected == "all" or torch.bfloat16 in frozen
        finish_model(model)
        assert not has_lora(model) and {p.dtype for p in model.parameters()} == {torch.float32}


def test_training_with_lora_resumes_and_ends_with_a_plain_model(overrides: list[str], tmp_path: Path) -> None:
    words = ["host.trainable=lora", "host.lora_rank=2", "memory.weights=bfloat16", "gradient_checkpointing=true",
             "optimizer.lr=0.01", "checkpoint_every=2"]  # fmt: skip
    assert run(_settings(overrides, *words, "max_steps=2")).step == 2
    settings = _settings(overrides, *words, "max_steps=4")
    assert run(settings).step == 4
    begun = build_transformer(settings)
    trained = type(begun).from_pretrained(Path(settings.output_dir) / "transformer")
    assert set(trained.state_dict()) == set(begun.state_dict())
    moved = {
        name for name, p in trained.named_parameters()
        if (p - begun.get_parameter(name)).abs().max() > 0.01 * begun.get_parameter(name).abs().max() + 1e-6
    }  # fmt: skip
    assert moved & set(begun.adapter_state_dict())
    assert any(name.endswith("attn1.to_q.weight") and name not in begun.adapter_state_dict() for name in moved)
    assert not any("ffn" in name for name in moved)


@pytest.mark.parametrize("host", ["wan", "unet"])
def test_what_a_run_ends_with_is_a_copy_and_no_change_of_what_was_trained(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card with room for training has none for frozen weights in 32 bits beside average and moments."""
    trainers: list[Trainer] = []
    begin = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self: trainers.append(self) or begin(self))
    run(_settings(overrides, "host.trainable=lora", "host.lora_rank=2", "memory.weights=bfloat16", "max_steps=2"))
    (trainer,) = trainers
    assert has_lora(trainer.model) and torch.bfloat16 in {p.dtype for p in trainer.model.parameters()}
    checkpoint = latest_checkpoint(trainer.folder / "checkpoints")
    assert checkpoint is not None and all(torch.equal(p, checkpoint.model[name]) for name, p in trainer.named)


def test_the_state_of_an_8_bit_optimizer_makes_the_round_trip() -> None:
    """On the CPU, where bitsandbytes computes the same, slowly."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(80, 80)) for _ in range(2)]  # below 4,096 values it keeps 32 bits
    weights[1].data.copy_(weights[0].data)
    gradients = [torch.randn(80, 80) for _ in range(3)]
    first, second = (bitsandbytes.optim.AdamW8bit([weight], lr=0.1) for weight in weights)
    for gradient in gradients[:2]:
        weights[0].grad = gradient
        first.step()
    weights[1].data.copy_(weights[0].data)
    flat = optimizer_tensors(first, [("w", weights[0])])
    assert flat["w|state1"].dtype == torch.uint8
    load_optimizer_tensors(second, [("w", weights[1])], {name: value.clone() for name, value in flat.items()})
    for weight, optimizer in zip(weights, (first, second), strict=True):
        weight.grad = gradients[2]
        optimizer.step()
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0)
