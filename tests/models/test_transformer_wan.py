"""The masked Wan transformer: equal to its host before training, everything moves in training, regions act."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from ttm.models.masked_attention import DENSE_UP_TO, cross_mask
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.wan_block import MaskedCrossAttention, MaskedSelfAttention

HOST: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "rope_max_seq_len": 32,
}
EXTRA: dict[str, Any] = {"condition_channels": 8, "num_masked_blocks": 2}
GRID = (3, 4, 4)


def make_host(**changes: Any) -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(**{**HOST, **changes}).eval()


def make_model(**changes: Any) -> MaskedWanTransformer3DModel:
    """A model in which every new parameter acts, as after training."""
    model = MaskedWanTransformer3DModel.from_host(make_host(), **{**EXTRA, **changes})
    generator = torch.Generator().manual_seed(7)
    for value in model.adapter_state_dict().values():
        value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return model


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    coverage = torch.zeros(2, 2, *GRID)
    coverage[:, 0, :, :2, :2] = 1.0
    coverage[:, 1, :, 3, 3] = 1.0
    words = torch.ones(2, 2, 6, dtype=torch.bool)
    words[:, 0, 4:], words[:, 1, 3:] = False, False
    return {
        "hidden_states": torch.randn(2, 4, 3, 8, 8, generator=generator),
        "timestep": torch.tensor([10.0, 900.0]),
        "encoder_hidden_states": torch.randn(2, 5, 8, generator=generator),
        "condition_latents": torch.randn(2, 8, 3, 8, 8, generator=generator),
        "object_coverage": coverage,
        "local_encoder_hidden_states": torch.randn(2, 2, 6, 8, generator=generator),
        "local_attention_mask": words,
    }


def plain(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[name] for name in ("hidden_states", "timestep", "encoder_hidden_states")}


@torch.no_grad()
def run(model: torch.nn.Module, values: dict[str, Tensor]) -> Tensor:
    return model(**values, return_dict=False)[0]


@pytest.mark.parametrize("region", ["mask", "box", "none"])
@pytest.mark.parametrize("changes", [{}, {"cross_attn_norm": False}])
def test_before_training_it_computes_what_the_host_computes(region: str, changes: dict[str, Any]) -> None:
    host = make_host(**changes)
    model = MaskedWanTransformer3DModel.from_host(host, **EXTRA, region=region)
    assert torch.equal(run(model, inputs()), run(host, plain(inputs())))


def test_a_model_made_from_nothing_computes_what_its_host_part_computes() -> None:
    torch.manual_seed(4)
    model, host = MaskedWanTransformer3DModel(**HOST, **EXTRA).eval(), make_host()
    host.load_state_dict({name: model.state_dict()[name] for name in host.state_dict()})
    assert torch.equal(run(model, inputs()), run(host, plain(inputs())))


def test_timesteps_of_each_token_go_through_as_in_the_host() -> None:
    host, values = make_host(), inputs()
    values["timestep"] = torch.linspace(0, 900, 2 * 48).view(2, 48)
    assert torch.equal(run(MaskedWanTransformer3DModel.from_host(host, **EXTRA), values), run(host, plain(values)))


def test_before_training_it_computes_what_the_host_computes_in_bf16() -> None:
    host = make_host().to(torch.bfloat16)
    values = {name: v.bfloat16() if v.is_floating_point() else v for name, v in inputs().items()}
    values["timestep"] = inputs()["timestep"]
    model = MaskedWanTransformer3DModel.from_host(host, **EXTRA)
    assert {value.dtype for value in model.adapter_state_dict().values()} == {torch.bfloat16}
    assert torch.equal(run(model, values), run(host, plain(values)))


def test_a_plain_hosts_folder_opens_unchanged(tmp_path: Path) -> None:
    host = make_host()
    host.save_pretrained(tmp_path / "host")
    model = MaskedWanTransformer3DModel.from_pretrained(tmp_path / "host", **EXTRA, region="box")
    assert model.config.num_masked_blocks == 2 and model.config.region == "box"
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in host.state_dict().items())
    assert torch.equal(run(model, inputs()), run(host, plain(inputs())))
    hosted = MaskedWanTransformer3DModel.from_host(host, **EXTRA).state_dict()
    assert all(torch.equal(value, hosted[name]) for name, value in model.state_dict().items())
    model = MaskedWanTransformer3DModel.from_pretrained(tmp_path / "host", torch_dtype=torch.bfloat16, **EXTRA)
    assert model.blocks[0].masked_attn1.to_q.weight.dtype == torch.bfloat16
    assert not any(value.is_meta for value in model.state_dict().values())


def test_a_saved_model_opens_equal(tmp_path: Path) -> None:
    model = make_model(region="box")
    model.save_pretrained(tmp_path)
    again = MaskedWanTransformer3DModel.from_pretrained(tmp_path)
    assert again.config.region == "box" and again.config.condition_channels == 8
    assert torch.equal(run(again, inputs()), run(model, inputs()))


def test_a_host_with_a_weight_missing_is_refused(tmp_path: Path) -> None:
    host = make_host()
    state = {name: value for name, value in host.state_dict().items() if name != "proj_out.weight"}
    host.save_pretrained(tmp_path, state_dict=state)
    from safetensors.torch import save_file

    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="proj_out.weight"):
        MaskedWanTransformer3DModel.from_pretrained(tmp_path, **EXTRA)


@pytest.mark.parametrize("region", ["mask", "box", "none"])
def test_three_steps_move_every_new_parameter(region: str) -> None:
    model = MaskedWanTransformer3DModel.from_host(make_host(), **EXTRA, region=region).train()
    begin = copy.deepcopy(model.adapter_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    target = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    for step in range(3):
        optimizer.zero_grad()
        (model(**inputs()).sample - target).square().mean().backward()
        new = {name: p for name, p in model.named_parameters() if name in begin}
        flowing = {name for name, p in new.items() if p.grad is not None and p.grad.abs().max() > 0}
        if step == 0:  # zero beyond the last projection, nothing before it learns yet
            assert flowing == {name for name in begin if "to_out" in name or "condition" in name}
        else:
            assert flowing == set(begin)
        optimizer.step()
    after = model.adapter_state_dict()
    assert len(begin) == 1 + 2 * 2 * 12
    assert [name for name in begin if torch.equal(begin[name], after[name])] == []


@pytest.mark.parametrize("region", ["mask", "box", "none"])
def test_gradient_checkpointing_gives_equal_gradients(region: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_model(region=region).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(**inputs()).sample.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("region", ["mask", "box", "none"])
def test_bf16_is_finite_and_near_fp32(region: str) -> None:
    model, values = make_model(region=region), inputs()
    exact = run(model, values)
    with torch.autocast("cpu", torch.bfloat16):
        model.train()
        sample = model(**values).sample
        sample.float().square().mean().backward()
    assert (sample - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_packed_blocks_compute_what_dense_blocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model, values = make_model(), inputs()
    dense = run(model, values)
    assert DENSE_UP_TO > 0
    monkeypatch.setattr("ttm.models.regions.DENSE_UP_TO", 0)
    torch.testing.assert_close(run(model, values), dense, atol=1e-5, rtol=1e-5)


def test_masked_self_attention_turns_positions_as_the_host_does() -> None:
    """With the host's weights and no region, the branch's attention is the host's."""
    host, model = make_host(), MaskedWanTransformer3DModel.from_host(make_host(), **EXTRA)
    branch, attention = model.blocks[0].masked_attn1, host.blocks[0].attn1
    assert isinstance(branch, MaskedSelfAttention)
    branch.to_out.load_state_dict(attention.to_out[0].state_dict())
    rotary = host.rope(inputs()["hidden_states"])
    tokens = torch.randn(2, 48, 24, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        branch(tokens, rotary, None), attention(tokens, None, None, rotary), atol=1e-6, rtol=1e-5
    )


def last_layers_are_local(model: MaskedWanTransformer3DModel) -> MaskedWanTransformer3DModel:
    """Silence what mixes tokens after the masked cross-attention, so that its reach can be read off."""
    for index, block in enumerate(model.blocks):
        block.attn1.to_out[0].weight.data.zero_()
        if index < model.config.num_masked_blocks and model.config.masked_self:
            block.masked_attn1.to_out.weight.data.zero_()
    return model


def tokens_that_differ(a: Tensor, b: Tensor) -> Tensor:
    """bool [T', H', W'] of sample 0: where two outputs [B, C, T, H, W] differ, patch by patch."""
    return torch.nn.functional.max_pool3d((a - b).abs().amax(dim=1)[:1], (1, 2, 2))[0] > 0


def test_object_as_prompt_touches_its_own_tokens_alone() -> None:
    model, values = last_layers_are_local(make_model()), inputs()
    before = run(model, values)
    values["local_encoder_hidden_states"][:, 0] += 1
    changed = tokens_that_differ(run(model, values), before)
    assert torch.equal(changed, values["object_coverage"][0, 0] > 0)


@pytest.mark.parametrize(("index", "place"), [(0, 0), (0, 3), (1, 2)])
def test_every_word_of_a_local_prompt_counts(index: int, place: int) -> None:
    model, values = make_model(), inputs()
    before = run(model, values)
    values["local_encoder_hidden_states"][:, index, place] += 1
    assert not torch.allclose(run(model, values), before, atol=1e-4)


def test_a_token_without_a_key_does_not_get_the_projections_bias() -> None:
    branch = MaskedCrossAttention(24, 2, 1e-6)
    branch.to_out.bias.data.fill_(3.0)
    occupancy = torch.tensor([[[True], [False]]])
    out = branch(torch.randn(1, 2, 24), torch.randn(1, 4, 24), cross_mask(occupancy, torch.ones(1, 1, 4).bool()))
    assert out[0, 0].eq(3).all() and out[0, 1].eq(0).all()


def test_padding_of_a_local_prompt_changes_nothing() -> None:
    model, values = make_model(), inputs()
    before = run(model, values)
    values["local_encoder_hidden_states"][~values["local_attention_mask"]] = 1e3
    torch.testing.assert_close(run(model, values), before, atol=0, rtol=0)
    longer = torch.nn.functional.pad(values["local_encoder_hidden_states"], (0, 0, 0, 9), value=5.0)
    words = torch.nn.functional.pad(values["local_attention_mask"], (0, 9))
    wider = {**values, "local_encoder_hidden_states": longer, "local_attention_mask": words}
    torch.testing.assert_close(run(model, wider), before, atol=0, rtol=0)


def test_the_unmasked_twin_has_as_many_parameters_and_lets_all_see_all() -> None:
    sizes = {
        region: sum(p.numel() for p in make_model(region=region).parameters()) for region in ("mask", "box", "none")
    }
    assert len(set(sizes.values())) == 1
    twin, values = last_layers_are_local(make_model(region="none")), inputs()
    before = run(twin, values)
    elsewhere = {**values, "object_coverage": values["object_coverage"].roll(1, dims=-1)}
    assert torch.equal(run(twin, elsewhere), before)
    values["local_encoder_hidden_states"][:, 0] += 1
    assert tokens_that_differ(run(twin, values), before).all()


@pytest.mark.parametrize("region", ["mask", "box", "none"])
def test_masked_self_attention_reaches_over_the_region_alone(region: str) -> None:
    model, values = make_model(region=region, masked_cross=False), inputs()
    for block in model.blocks:
        block.attn1.to_out[0].weight.data.zero_()
    model.blocks[1].masked_attn1.to_out.weight.data.zero_()
    # An L of three tokens in each frame, whose box holds a fourth; all else is background.
    coverage = torch.zeros(2, 1, *GRID)
    coverage[:, 0, :, 0, 0] = coverage[:, 0, :, 1, 0] = coverage[:, 0, :, 1, 1] = 1.0
    values["object_coverage"] = coverage
    del values["local_encoder_hidden_states"], values["local_attention_mask"]
    before = run(model, values)
    noisy = values["hidden_states"].clone()
    noisy[:, :, 0, :2, :2] += 1  # the token at (0, 0) of frame 0
    reached = tokens_that_differ(run(model, {**values, "hidden_states": noisy}), before)
    expected = coverage[0, 0] > 0
    expected[:, :2, :2] |= region == "box"
    assert torch.equal(reached, expected | (region == "none"))


def test_the_region_is_what_tells_mask_and_box_apart() -> None:
    values = inputs()
    values["object_coverage"][:, 0] = 0
    values["object_coverage"][:, 0, :, 0, 0] = 1
    values["object_coverage"][:, 0, :, 1, 2] = 1
    changed = {}
    for region in ("mask", "box"):
        model = last_layers_are_local(make_model(region=region))
        before = run(model, values)
        louder = values["local_encoder_hidden_states"].clone()
        louder[:, 0] += 1
        changed[region] = tokens_that_differ(run(model, {**values, "local_encoder_hidden_states": louder}), before)
    assert changed["mask"][0].int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert changed["box"][0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_dropped_condition_is_zeros_or_none_alike() -> None:
    model, values = make_model(), inputs()
    dropped = {
        **values,
        "condition_latents": torch.zeros_like(values["condition_latents"]),
        "object_coverage": torch.zeros_like(values["object_coverage"]),
    }
    absent = {**values}
    del absent["condition_latents"], absent["object_coverage"]
    torch.testing.assert_close(run(model, dropped), run(model, absent), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(run(model, dropped), run(model, values), atol=1e-3)


def test_samples_do_not_touch_each_other() -> None:
    model, values = make_model(), inputs()
    values["object_coverage"][1] = 0  # one sample's visual condition dropped, the other's not
    values["condition_latents"][1] = 0
    values["local_attention_mask"][1] = False
    both = run(model, values)
    for index in range(2):
        alone = run(model, {name: value[index : index + 1] for name, value in values.items()})
        torch.testing.assert_close(both[index : index + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("masked_self", "masked_cross"), [(True, False), (False, True), (False, False)])
def test_the_branches_can_be_switched_off(masked_self: bool, masked_cross: bool) -> None:
    model, values = make_model(masked_self=masked_self, masked_cross=masked_cross), inputs()
    names = " ".join(model.adapter_state_dict())
    assert ("masked_attn1" in names, "masked_attn2" in names) == (masked_self, masked_cross)
    before = run(model, values)
    values["local_encoder_hidden_states"] = values["local_encoder_hidden_states"] + 1
    assert torch.equal(run(model, values), before) is not masked_cross


def test_masked_blocks_are_the_first_and_follow_the_papers_order() -> None:
    model, order = make_model(), []
    for index, block in enumerate(model.blocks):
        for name in ("attn1", "masked_attn1", "attn2", "masked_attn2"):
            if hasattr(block, name):
                getattr(block, name).register_forward_hook(lambda *_, tag=(index, name): order.append(tag))
    run(model, inputs())
    masked = ["attn1", "masked_attn1", "attn2", "masked_attn2"]
    assert order == [(i, n) for i in (0, 1) for n in masked] + [(2, "attn1"), (2, "attn2")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_states": torch.zeros(2, 4, 3, 7, 8)}, r"hidden_states is \[2, 4, 3, 7, 8\]; expected"),
        ({"hidden_states": torch.zeros(2, 5, 3, 8, 8)}, "hidden_states"),
        ({"condition_latents": torch.zeros(2, 8, 1, 8, 8)}, r"expected \[2, 8, 3, 8, 8\]"),
        ({"object_coverage": torch.zeros(2, 2, 3, 8, 8)}, r"object_coverage .* \[2, L, 3, 4, 4\]"),
        ({"object_coverage": torch.zeros(2, 2, 3, 4, 4, dtype=torch.long)}, "object_coverage is torch.int64"),
        ({"local_encoder_hidden_states": torch.zeros(2, 3, 6, 8)}, r"expected \[2, 2, S, 8\]"),
        ({"local_attention_mask": torch.ones(2, 2, 6)}, "local_attention_mask is torch.float32"),
        ({"local_attention_mask": torch.ones(2, 2, 5, dtype=torch.bool)}, r"expected bool \[2, 2, 6\]"),
        ({"local_encoder_hidden_states": None}, "expected None without local prompts"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    model = make_model()
    with pytest.raises(ValueError, match=message):
        model(**{**inputs(), **change})


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="region is 'circle'; expected one of mask, box, none"):
        MaskedWanTransformer3DModel(**HOST, region="circle")
    with pytest.raises(ValueError, match="num_masked_blocks is 4; expected 0 to num_layers = 3"):
        MaskedWanTransformer3DModel(**HOST, num_masked_blocks=4)
    with pytest.raises(ValueError, match="condition_channels is -1"):
        MaskedWanTransformer3DModel(**HOST, condition_channels=-1)
    with pytest.raises(ValueError, match="'num_masked_block' is no setting"):
        MaskedWanTransformer3DModel.from_host(make_host(), num_masked_block=2)
    with pytest.raises(ValueError, match="condition_channels = 0"):
        MaskedWanTransformer3DModel.from_host(make_host())(**inputs())
