"""Both hosts: equal to diffusers' model before training, everything moves in training, bad input is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

REGIONS = pytest.mark.parametrize("region", ["mask", "box", "none"])


@REGIONS
def test_before_training_it_computes_what_the_host_computes(host: Any, region: str) -> None:
    plain, values = host.make(), host.inputs()
    model = host.masked.from_host(plain, **host.switches, region=region)
    assert torch.equal(host.run(model, values), host.run_plain(plain, values))


def test_a_model_made_from_nothing_computes_what_its_host_part_computes(host: Any) -> None:
    torch.manual_seed(4)
    model, plain = host.masked(**host.config, **host.switches).eval(), host.make()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    assert torch.equal(host.run(model, host.inputs()), host.run_plain(plain, host.inputs()))


def test_before_training_it_computes_what_the_host_computes_in_bf16(host: Any) -> None:
    plain = host.make().to(torch.bfloat16)
    values = {name: v.bfloat16() if v.is_floating_point() else v for name, v in host.inputs().items()}
    values["timestep"] = host.inputs()["timestep"]
    model = host.masked.from_host(plain, **host.switches)
    assert {value.dtype for value in model.adapter_state_dict().values()} == {torch.bfloat16}
    assert torch.equal(host.run(model, values), host.run_plain(plain, values))


def test_a_plain_hosts_folder_opens_unchanged(host: Any, tmp_path: Path) -> None:
    plain, values = host.make(), host.inputs()
    plain.save_pretrained(tmp_path / "host")
    model = host.masked.from_pretrained(tmp_path / "host", **host.switches, region="box")
    assert model.config.condition_channels == 8 and model.config.region == "box"
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert torch.equal(host.run(model, values), host.run_plain(plain, values))
    hosted = host.masked.from_host(plain, **host.switches).state_dict()
    assert all(torch.equal(value, hosted[name]) for name, value in model.state_dict().items())
    model = host.masked.from_pretrained(tmp_path / "host", torch_dtype=torch.bfloat16, **host.switches)
    assert next(host.masked_blocks(model)).masked_attn1.to_q.weight.dtype == torch.bfloat16
    assert not any(value.is_meta for value in model.state_dict().values())


def test_a_saved_model_opens_equal(host: Any, tmp_path: Path) -> None:
    model = host.trained(region="box")
    model.save_pretrained(tmp_path)
    again = host.masked.from_pretrained(tmp_path)
    assert again.config.region == "box" and again.config.condition_channels == 8
    assert torch.equal(host.run(again, host.inputs()), host.run(model, host.inputs()))


def test_an_adapter_goes_onto_the_host_it_was_trained_on(host: Any, tmp_path: Path) -> None:
    model, fresh = host.trained(), host.fresh()
    model.save_adapter(tmp_path)
    fresh.load_adapter(tmp_path)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="does not fit this model: its config"):
        host.fresh(masked_cross=False).load_adapter(tmp_path)


def test_a_host_with_a_weight_missing_is_refused(host: Any, tmp_path: Path) -> None:
    plain = host.make()
    plain.save_pretrained(tmp_path)
    state = {name: value.clone() for name, value in plain.state_dict().items() if name != host.host_weight}
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=host.host_weight):
        host.masked.from_pretrained(tmp_path, **host.switches)


def is_last(name: str) -> bool:
    return "to_out" in name or "condition" in name


@REGIONS
def test_three_steps_move_every_new_parameter(host: Any, region: str) -> None:
    model = host.fresh(region=region).train()
    begin = copy.deepcopy(model.adapter_state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    target = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    for step in range(3):
        optimizer.zero_grad()
        (host.call(model, host.inputs()) - target).square().mean().backward()
        new = {name: p for name, p in model.named_parameters() if name in begin}
        flowing = {name for name, p in new.items() if p.grad is not None and p.grad.abs().max() > 0}
        # Zero beyond the last projection: in the first step nothing before it learns yet.
        assert flowing == {name for name in begin if step or is_last(name)}
        optimizer.step()
    after = model.adapter_state_dict()
    assert len(begin) == host.num_new
    assert [name for name in begin if torch.equal(begin[name], after[name])] == []


@REGIONS
def test_gradient_checkpointing_gives_equal_gradients(host: Any, region: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = host.trained(region=region).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        host.call(model, host.inputs()).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradient, gradients[1][name]), name


@REGIONS
def test_bf16_is_finite_and_near_fp32(host: Any, region: str) -> None:
    model, values = host.trained(region=region), host.inputs()
    exact = host.run(model, values)
    with torch.autocast("cpu", torch.bfloat16):
        sample = host.call(model.train(), values)
        sample.float().square().mean().backward()
    assert (sample - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_packed_blocks_compute_what_dense_blocks_do(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, values = host.trained(), host.inputs()
    dense = host.run(model, values)
    monkeypatch.setattr("ttm.models.regions.DENSE_UP_TO", 0)
    torch.testing.assert_close(host.run(model, values), dense, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("region", ["mask", "none"])
def test_an_objects_prompt_touches_its_own_tokens_alone(host: Any, region: str) -> None:
    model, values, outputs = host.trained(region=region), host.inputs(), []
    block = next(host.masked_blocks(model))
    block.masked_attn2.register_forward_hook(lambda module, args, out: outputs.append(out))
    host.run(model, values)
    values["local_encoder_hidden_states"][:, 0] += 1
    host.run(model, values)
    changed = (outputs[0] - outputs[1]).abs().amax(dim=-1)[0].unflatten(0, host.grid) > 0
    assert torch.equal(changed, (values["object_coverage"][0, 0] > 0) | (region == "none"))


@pytest.mark.parametrize(("index", "place"), [(0, 0), (0, 3), (1, 2)])
def test_every_word_of_a_local_prompt_counts(host: Any, index: int, place: int) -> None:
    model, values = host.trained(), host.inputs()
    before = host.run(model, values)
    values["local_encoder_hidden_states"][:, index, place] += 1
    assert (host.run(model, values) - before).abs().max() > 1e-4


def test_padding_of_a_local_prompt_changes_nothing(host: Any) -> None:
    model, values = host.trained(), host.inputs()
    before = host.run(model, values)
    values["local_encoder_hidden_states"][~values["local_attention_mask"]] = 1e3
    torch.testing.assert_close(host.run(model, values), before, atol=0, rtol=0)
    longer = torch.nn.functional.pad(values["local_encoder_hidden_states"], (0, 0, 0, 9), value=5.0)
    words = torch.nn.functional.pad(values["local_attention_mask"], (0, 9))
    wider = {**values, "local_encoder_hidden_states": longer, "local_attention_mask": words}
    torch.testing.assert_close(host.run(model, wider), before, atol=0, rtol=0)


def test_the_unmasked_twin_has_as_many_parameters_and_no_region(host: Any) -> None:
    models = {region: host.trained(region=region) for region in ("mask", "box", "none")}
    assert len({sum(p.numel() for p in model.parameters()) for model in models.values()}) == 1
    values = host.inputs()
    elsewhere = {**values, "object_coverage": values["object_coverage"].roll(1, dims=-1)}
    assert torch.equal(host.run(models["none"], elsewhere), host.run(models["none"], values))
    assert not torch.equal(host.run(models["mask"], elsewhere), host.run(models["mask"], values))


def test_a_dropped_condition_is_zeros_or_none_alike(host: Any) -> None:
    model, values = host.trained(), host.inputs()
    dropped = {**values, **{name: torch.zeros_like(values[name]) for name in ("condition_latents", "object_coverage")}}
    absent = {**values, "condition_latents": None, "object_coverage": None}
    torch.testing.assert_close(host.run(model, dropped), host.run(model, absent), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(host.run(model, dropped), host.run(model, values), atol=1e-3)


def test_samples_do_not_touch_each_other(host: Any) -> None:
    model, values = host.trained(), host.inputs()
    values["object_coverage"][1] = 0  # one sample's visual condition dropped, the other's not
    values["condition_latents"][1] = 0
    values["local_attention_mask"][1] = False
    both = host.run(model, values)
    for index in range(2):
        alone = host.run(model, {name: value[index : index + 1] for name, value in values.items()})
        torch.testing.assert_close(both[index : index + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("masked_self", "masked_cross"), [(True, False), (False, True), (False, False)])
def test_the_branches_can_be_switched_off(host: Any, masked_self: bool, masked_cross: bool) -> None:
    model, values = host.trained(masked_self=masked_self, masked_cross=masked_cross), host.inputs()
    names = " ".join(model.adapter_state_dict())
    assert ("masked_attn1" in names, "masked_attn2" in names) == (masked_self, masked_cross)
    before = host.run(model, values)
    values["local_encoder_hidden_states"] = values["local_encoder_hidden_states"] + 1
    assert torch.equal(host.run(model, values), before) is not masked_cross


def test_the_attributes_that_callers_read(host: Any) -> None:
    model, latents = host.fresh(), host.inputs()["latents"]
    grid = tuple(size // patch for size, patch in zip(latents.shape[2:], model.token_patch, strict=True))
    assert grid == host.grid and model.text_width == 8
    config = {"in_channels": 4, "condition_channels": 8, "masked_self": True, "masked_cross": True, "region": "mask"}
    assert {key: model.config[key] for key in config} == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": torch.zeros(2, 5, 3, 8, 8)}, r"is \[2, 5, 3, 8, 8\]; expected \[B, 4"),
        ({"latents": torch.zeros(2, 4, 0, 8, 8)}, r"is \[2, 4, 0, 8, 8\]; expected"),
        ({"condition_latents": torch.zeros(2, 8, 1, 8, 8)}, r"expected \[2, 8, 3, 8, 8\]"),
        ({"object_coverage": torch.zeros(2, 2, 3, 5, 5)}, r"object_coverage .* expected float \[2, L, 3, "),
        ({"object_coverage": torch.zeros(2, 2, 3, 8, 8, dtype=torch.long)}, "object_coverage is torch.int64"),
        ({"local_encoder_hidden_states": torch.zeros(2, 3, 6, 8)}, r"expected \[2, 2, S, 8\]"),
        ({"local_attention_mask": torch.ones(2, 2, 6)}, "local_attention_mask is torch.float32"),
        ({"local_attention_mask": torch.ones(2, 2, 5, dtype=torch.bool)}, r"expected bool \[2, 2, 6\]"),
        ({"local_encoder_hidden_states": None}, "expected None without local prompts"),
    ],
)
def test_shapes_that_do_not_fit_are_named(host: Any, change: dict[str, Tensor], message: str) -> None:
    model = host.fresh()
    with pytest.raises(ValueError, match=message):
        host.call(model, {**host.inputs(), **change})


def test_settings_out_of_range_are_named(host: Any) -> None:
    with pytest.raises(ValueError, match="region is 'circle'; expected one of mask, box, none"):
        host.masked(**host.config, region="circle")
    with pytest.raises(ValueError, match="condition_channels is -1"):
        host.masked(**host.config, condition_channels=-1)
    with pytest.raises(ValueError, match="'num_masked_block' is no setting"):
        host.masked.from_host(host.make(), num_masked_block=2)
    with pytest.raises(ValueError, match="condition_channels = 0"):
        host.call(host.masked.from_host(host.make()), host.inputs())
