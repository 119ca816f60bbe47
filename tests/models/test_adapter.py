"""Adapters: what was trained, saved and loaded apart from the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from ttm.models.adapter import CONFIG_NAME, WEIGHTS_NAME
from ttm.models.lora import add_lora, has_lora, merge_lora
from ttm.models.transformer_wan import MaskedWanTransformer3DModel

HOST: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}


def make_host(**changes: Any) -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(**{**HOST, **changes})


def make_model(host: WanTransformer3DModel | None = None, **changes: Any) -> MaskedWanTransformer3DModel:
    extra = {"condition_channels": 4, "num_masked_blocks": 1, **changes}
    return MaskedWanTransformer3DModel.from_host(host or make_host(), **extra)


def trained(**changes: Any) -> MaskedWanTransformer3DModel:
    model = make_model(**changes)
    for value in model.adapter_state_dict().values():
        value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    return model


def test_an_adapter_goes_onto_the_host_it_was_trained_on(tmp_path: Path) -> None:
    model, fresh = trained(), make_model()
    model.save_adapter(tmp_path / "deep" / "adapter")
    assert sorted(file.name for file in (tmp_path / "deep" / "adapter").iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]
    fresh.load_adapter(tmp_path / "deep" / "adapter")
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_adapter_from_before_a_switch_has_it_off(tmp_path: Path) -> None:
    trained().save_adapter(tmp_path)
    described = json.loads((tmp_path / CONFIG_NAME).read_text())
    assert described["config"].pop("carried_first_frame") is False
    (tmp_path / CONFIG_NAME).write_text(json.dumps(described))
    make_model().load_adapter(tmp_path)
    with pytest.raises(ValueError, match="does not fit this model: its config is .*'carried_first_frame': False"):
        make_model(carried_first_frame=True).load_adapter(tmp_path)


def test_it_holds_no_weight_of_the_host(tmp_path: Path) -> None:
    trained().save_adapter(tmp_path)
    names = set(load_file(tmp_path / WEIGHTS_NAME))
    assert len(names) == 1 + 2 * 12 and names.isdisjoint(make_host().state_dict())
    assert names | set(make_host().state_dict()) == set(make_model().state_dict())


def test_a_host_that_holds_masked_blocks_already_gains_further_ones() -> None:
    model = trained()
    wider = MaskedWanTransformer3DModel.from_host(model, num_masked_blocks=2)
    assert all(torch.equal(value, wider.state_dict()[name]) for name, value in model.state_dict().items())
    assert wider.blocks[1].masked_attn1.to_out.weight.eq(0).all()
    assert torch.equal(wider.blocks[1].masked_attn1.to_q.weight, model.blocks[1].attn1.to_q.weight)


def test_from_host_copies() -> None:
    host = make_host()
    model = make_model(host)
    host.proj_out.weight.data.zero_()
    assert model.proj_out.weight.abs().max() > 0


def test_a_host_with_other_layers_is_refused() -> None:
    host = make_host()
    host.proj_out = torch.nn.Linear(24, 16, bias=False)
    with pytest.raises(ValueError, match=r"differ in 'proj_out\.bias' and 0 more"):
        make_model(host)


@pytest.mark.parametrize(
    ("host", "changes", "message"),
    [
        ({}, {"num_masked_blocks": 2}, "its config is .*'num_masked_blocks': 1.*expected .*'num_masked_blocks': 2"),
        ({}, {"condition_channels": 8}, "its config is"),
        ({}, {"region": "box"}, "its config is"),
        ({}, {"masked_cross": False}, "its config is"),
        ({"num_attention_heads": 3}, {}, "its host is"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    tmp_path: Path, host: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    trained().save_adapter(tmp_path)
    model = make_model(make_host(**host), **changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        model.load_adapter(tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_damage_is_named_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    trained().save_adapter(tmp_path)
    weights, description = tmp_path / WEIGHTS_NAME, tmp_path / CONFIG_NAME
    whole, text, model = weights.read_bytes(), description.read_text(), make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{WEIGHTS_NAME} is damaged"):
        model.load_adapter(tmp_path)
    tensors = load_file(_written(weights, whole))
    name = "blocks.0.masked_attn1.to_q.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, weights)
    with pytest.raises(ValueError, match=f"'{name}' is in the model but not the adapter"):
        model.load_adapter(tmp_path)
    save_file({**tensors, name: torch.zeros(3, 3)}, weights)
    with pytest.raises(ValueError, match=r"to_q.weight' is \[3, 3\]; expected \[24, 24\]"):
        model.load_adapter(tmp_path)
    description.write_text(text[:20])
    with pytest.raises(ValueError, match=f"{CONFIG_NAME} is damaged"):
        model.load_adapter(tmp_path)
    description.write_text(json.dumps({"format": "something else"}))
    with pytest.raises(ValueError, match="no description of an adapter"):
        model.load_adapter(tmp_path)
    description.unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no {CONFIG_NAME}"):
        model.load_adapter(tmp_path)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_without_new_modules_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapter to save"):
        make_model(condition_channels=0, num_masked_blocks=0).save_adapter(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_write_that_fails_leaves_the_old_adapter_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    model.save_adapter(tmp_path)
    before = (tmp_path / WEIGHTS_NAME).read_bytes()

    def full(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ttm.models.adapter.save_file", full)
    with pytest.raises(OSError, match="space"):
        make_model().save_adapter(tmp_path)
    assert (tmp_path / WEIGHTS_NAME).read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_an_adapter_with_lora_goes_onto_a_plain_model_and_leaves_it_plain(tmp_path: Path) -> None:
    model, fresh = trained(), make_model()
    add_lora(model, rank=2, alpha=4)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    model.save_adapter(tmp_path / "adapter")
    size = sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
    merge_lora(model)
    model.save_pretrained(tmp_path / "whole")
    assert size < (tmp_path / "whole" / "diffusion_pytorch_model.safetensors").stat().st_size
    fresh.load_adapter(tmp_path / "adapter")
    assert not has_lora(fresh) and set(fresh.state_dict()) == set(model.state_dict())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], value)
    assert not torch.equal(fresh.state_dict()["blocks.1.attn1.to_q.weight"], make_host().blocks[1].attn1.to_q.weight)


def test_lora_on_16_bit_weights_is_warned_of_and_rounding_after_the_sum_keeps_the_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, late, early = trained(), make_model(), make_model().bfloat16()
    before = {name: value.clone() for name, value in make_host().state_dict().items()}
    add_lora(model, rank=8)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.003 * torch.randn(parameter.shape, generator=generator)
    model.save_adapter(tmp_path)
    merge_lora(model)
    changes = {name: model.state_dict()[name] - value for name, value in before.items()}
    assert 0 < changes["blocks.0.attn1.to_q.weight"].std() < 0.001 * before["blocks.0.attn1.to_q.weight"].std()

    def arrived(loaded: MaskedWanTransformer3DModel) -> float:
        """Share of the changes, along their own direction."""
        rounded = loaded.bfloat16().state_dict()
        moved = {name: rounded[name].float() - value.bfloat16().float() for name, value in before.items()}
        along = sum((moved[name] * change).sum() for name, change in changes.items())
        return float(along / sum(change.square().sum() for change in changes.values()))

    late.load_adapter(tmp_path)
    assert not caplog.records
    early.load_adapter(tmp_path)
    assert "are in bfloat16: small changes are rounded off. Open the base in float32" in caplog.text
    assert arrived(early) < 0.3 and abs(arrived(late) - 1) < 0.3


def test_lora_that_does_not_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model, fresh = trained(), make_model()
    add_lora(model, rank=2)
    model.save_adapter(tmp_path)
    text = (tmp_path / CONFIG_NAME).read_text()
    (tmp_path / CONFIG_NAME).write_text(text.replace('"rank": 2', '"rank": 3'))
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ValueError, match=r"lora_A.lora.weight' is \[2, 24\]; expected \[3, 24\]"):
        fresh.load_adapter(tmp_path)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in before.items())
    (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises(ValueError, match="has LoRA and the model too"):
        model.load_adapter(tmp_path)


def test_an_adapter_of_other_public_weights_of_the_same_size_is_refused(tmp_path: Path) -> None:
    def of(source: str, fingerprint: str) -> MaskedWanTransformer3DModel:
        model = trained()
        model.register_to_config(base={"source": source, "revision": None, "fingerprint": fingerprint})
        return model

    of("Wan-AI/one", "aaaa").save_adapter(tmp_path)
    with pytest.raises(ValueError, match=r"was trained on Wan-AI/one \(aaaa\); this model extends Wan-AI/two \(bbbb\)"):
        of("Wan-AI/two", "bbbb").load_adapter(tmp_path)
    of("a copy under another name", "aaaa").load_adapter(tmp_path)
    trained().load_adapter(tmp_path)  # nobody said what this one extends
