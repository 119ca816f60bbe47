"""The masked Wan transformer: what it has beyond every host (test_hosts.py): rotary positions, a patch, its tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from ttm.models.masked_attention import cross_mask
from ttm.models.token_packing import pack_tokens
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.wan_block import MaskedCrossAttention, MaskedSelfAttention


def test_a_host_without_a_cross_attention_norm_is_one_too(wan: Any) -> None:
    torch.manual_seed(0)
    host = wan.plain(**wan.config, cross_attn_norm=False).eval()
    model = MaskedWanTransformer3DModel.from_host(host, **wan.switches)
    assert torch.equal(wan.run(model, wan.inputs()), wan.run_plain(host, wan.inputs()))


def test_timesteps_of_each_token_go_through_as_in_the_host(wan: Any) -> None:
    values = {**wan.inputs(), "timestep": torch.linspace(0, 900, 2 * 48).view(2, 48)}
    assert torch.equal(wan.run(wan.fresh(), values), wan.run_plain(wan.make(), values))


def test_masked_self_attention_turns_positions_as_the_host_does(wan: Any) -> None:
    """With the host's weights and no region, the branch's attention is the host's."""
    host, model = wan.make(), wan.fresh()
    branch, attention = model.blocks[0].masked_attn1, host.blocks[0].attn1
    assert isinstance(branch, MaskedSelfAttention)
    branch.to_out.load_state_dict(attention.to_out[0].state_dict())
    rotary = host.rope(wan.inputs()["latents"])
    tokens = torch.randn(2, 48, 24, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        branch(tokens, rotary, None), attention(tokens, None, None, rotary), atol=1e-6, rtol=1e-5
    )


def test_compiled_masked_self_attention_is_made_for_any_number_of_objects() -> None:
    torch.manual_seed(0)
    branch, tokens, counter = MaskedSelfAttention(24, 2, 1e-6), torch.randn(2, 48, 24), CompileCounter()
    branch.to_out.reset_parameters()
    rotary = torch.randn(1, 48, 1, 12), torch.randn(1, 48, 1, 12)
    compiled, compilations = torch.compile(branch, backend=counter), []
    for num_objects in range(1, 7):
        packing = pack_tokens(torch.randint(num_objects + 1, (2, 48)))
        torch.testing.assert_close(compiled(tokens, rotary, packing), branch(tokens, rotary, packing))
        compilations.append(counter.frame_count)
    assert 0 < compilations[0] == compilations[-1]


def last_layers_are_local(model: Any) -> Any:
    """Silence what mixes tokens after the masked cross-attention, so that its reach can be read off."""
    for index, block in enumerate(model.blocks):
        block.attn1.to_out[0].weight.data.zero_()
        if index < model.config.num_masked_blocks and model.config.masked_self:
            block.masked_attn1.to_out.weight.data.zero_()
    return model


def tokens_that_differ(a: Tensor, b: Tensor) -> Tensor:
    """bool [T', H', W'] of sample 0: where two outputs [B, C, T, H, W] differ, patch by patch."""
    return torch.nn.functional.max_pool3d((a - b).abs().amax(dim=1)[:1], (1, 2, 2))[0] > 0


def test_object_as_prompt_touches_its_own_tokens_alone(wan: Any) -> None:
    model, values = last_layers_are_local(wan.trained()), wan.inputs()
    before = wan.run(model, values)
    values["local_encoder_hidden_states"][:, 0] += 1
    changed = tokens_that_differ(wan.run(model, values), before)
    assert torch.equal(changed, values["object_coverage"][0, 0] > 0)


def test_a_token_without_a_key_does_not_get_the_projections_bias() -> None:
    branch = MaskedCrossAttention(24, 2, 1e-6)
    branch.to_out.bias.data.fill_(3.0)
    occupancy = torch.tensor([[[True], [False]]])
    out = branch(torch.randn(1, 2, 24), torch.randn(1, 4, 24), cross_mask(occupancy, torch.ones(1, 1, 4).bool()))
    assert out[0, 0].eq(3).all() and out[0, 1].eq(0).all()


def test_the_unmasked_twin_lets_all_see_all(wan: Any) -> None:
    twin, values = last_layers_are_local(wan.trained(region="none")), wan.inputs()
    before = wan.run(twin, values)
    elsewhere = {**values, "object_coverage": values["object_coverage"].roll(1, dims=-1)}
    assert torch.equal(wan.run(twin, elsewhere), before)
    values["local_encoder_hidden_states"][:, 0] += 1
    assert tokens_that_differ(wan.run(twin, values), before).all()


@pytest.mark.parametrize("region", ["mask", "box", "none"])
def test_masked_self_attention_reaches_over_the_region_alone(wan: Any, region: str) -> None:
    model, values = wan.trained(region=region, masked_cross=False), wan.inputs()
    for block in model.blocks:
        block.attn1.to_out[0].weight.data.zero_()
    model.blocks[1].masked_attn1.to_out.weight.data.zero_()
    # An L of three tokens in each frame, whose box holds a fourth; all else is background.
    coverage = torch.zeros(2, 1, *wan.grid)
    coverage[:, 0, :, 0, 0] = coverage[:, 0, :, 1, 0] = coverage[:, 0, :, 1, 1] = 1.0
    values["object_coverage"] = coverage
    del values["local_encoder_hidden_states"], values["local_attention_mask"]
    before = wan.run(model, values)
    noisy = values["latents"].clone()
    noisy[:, :, 0, :2, :2] += 1  # the token at (0, 0) of frame 0
    reached = tokens_that_differ(wan.run(model, {**values, "latents": noisy}), before)
    expected = coverage[0, 0] > 0
    expected[:, :2, :2] |= region == "box"
    assert torch.equal(reached, expected | (region == "none"))


def test_the_region_is_what_tells_mask_and_box_apart(wan: Any) -> None:
    values = wan.inputs()
    values["object_coverage"][:, 0] = 0
    values["object_coverage"][:, 0, :, 0, 0] = 1
    values["object_coverage"][:, 0, :, 1, 2] = 1
    changed = {}
    for region in ("mask", "box"):
        model = last_layers_are_local(wan.trained(region=region))
        before = wan.run(model, values)
        louder = values["local_encoder_hidden_states"].clone()
        louder[:, 0] += 1
        changed[region] = tokens_that_differ(wan.run(model, {**values, "local_encoder_hidden_states": louder}), before)
    assert changed["mask"][0].int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert changed["box"][0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_masked_blocks_are_the_first_and_follow_the_papers_order(wan: Any) -> None:
    model, order = wan.trained(), []
    for index, block in enumerate(model.blocks):
        for name in ("attn1", "masked_attn1", "attn2", "masked_attn2"):
            if hasattr(block, name):
                getattr(block, name).register_forward_hook(lambda *_, tag=(index, name): order.append(tag))
    wan.run(model, wan.inputs())
    masked = ["attn1", "masked_attn1", "attn2", "masked_attn2"]
    assert order == [(i, n) for i in (0, 1) for n in masked] + [(2, "attn1"), (2, "attn2")]


def test_what_does_not_fit_the_patch_or_the_layers_is_named(wan: Any) -> None:
    model, values = wan.fresh(), wan.inputs()
    with pytest.raises(ValueError, match=r"hidden_states is \[2, 4, 3, 7, 8\]; expected .* multiples of the patch"):
        wan.call(model, {**values, "latents": torch.zeros(2, 4, 3, 7, 8)})
    with pytest.raises(ValueError, match=r"object_coverage .* \[2, L, 3, 4, 4\]"):
        wan.call(model, {**values, "object_coverage": torch.zeros(2, 2, 3, 8, 8)})
    with pytest.raises(ValueError, match="num_masked_blocks is 4; expected 0 to num_layers = 3"):
        MaskedWanTransformer3DModel(**wan.config, num_masked_blocks=4)
