"""The few-shot variant's attentions against slow references, and where they act in the U-Net."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ttm.models.first_frame_attention import attend_to_first_frame, foreground
from ttm.models.unet_block import SpatialBlock

FEW_SHOT: dict[str, Any] = {
    "condition_channels": 0,
    "num_masked_blocks": 0,
    "first_frame_attention": True,
    "mask_cross_attention": True,
}


def few_shot_inputs(unet: Any) -> dict[str, Tensor]:
    names = ("latents", "timestep", "encoder_hidden_states", "object_coverage")
    return {name: value for name, value in unet.inputs().items() if name in names}


def spatial_blocks(model: torch.nn.Module) -> list[SpatialBlock]:
    return [module for module in model.modules() if isinstance(module, SpatialBlock)]


def slow_attention(attention: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of one picture, query by query in float64: [n, D], [m, .] -> [n, D]."""
    weights = (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    to_q, to_k, to_v, to_out = (layer.weight.double() for layer in weights)
    q, k, v = queries.double() @ to_q.T, keys.double() @ to_k.T, keys.double() @ to_v.T
    width, rows = q.shape[-1] // attention.heads, []
    for query in q:
        heads = [slice(start, start + width) for start in range(0, len(query), width)]
        rows.append(torch.cat([(k[:, h] @ query[h] / width**0.5).softmax(0) @ v[:, h] for h in heads]))
    return torch.stack(rows) @ to_out.T + attention.to_out[0].bias.double()


@torch.no_grad()
def test_keys_and_values_come_from_the_first_frame(unet: Any) -> None:
    """Eq. 5, for two clips of three frames."""
    attention = spatial_blocks(unet.fresh())[1].attn1
    tokens = torch.randn(2 * 3, 10, 16, generator=torch.Generator().manual_seed(5))
    out = attend_to_first_frame(attention, tokens, num_frames=3)
    expected = torch.stack([slow_attention(attention, tokens[i], tokens[i // 3 * 3]) for i in range(6)])
    torch.testing.assert_close(out.double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out[::3], attention(tokens[::3]), atol=1e-6, rtol=1e-5)


def test_at_one_frame_the_model_is_the_host(unet: Any) -> None:
    values = {name: v[:, :, :1] if name == "latents" else v for name, v in few_shot_inputs(unet).items()}
    del values["object_coverage"]
    assert torch.equal(unet.run(unet.fresh(**FEW_SHOT), values), unet.run_plain(unet.make(), values))


def test_its_weights_are_the_hosts_and_it_acts_in_every_spatial_block(unet: Any) -> None:
    model = unet.fresh(**{**FEW_SHOT, "mask_cross_attention": False})
    assert model.state_dict().keys() == unet.make().state_dict().keys()
    calls: list[tuple[int, int]] = []
    for block in spatial_blocks(model):
        block.attn1.register_forward_hook(
            lambda module, args, kwargs, out: calls.append(
                (args[0].shape[1], kwargs["encoder_hidden_states"].shape[1])
            ),
            with_kwargs=True,
        )
    unet.run(model, few_shot_inputs(unet))
    places = [64, 16, 4, 16, 16, 64, 64]
    assert calls == [(3 * n, n) for n in places]


@torch.no_grad()
def test_only_the_first_frame_reaches_the_others(unet: Any) -> None:
    """Without motion modules, frames know of each other by Eq. 5 alone."""
    model, values = unet.fresh(**FEW_SHOT), few_shot_inputs(unet)
    for name, value in model.named_parameters():
        if "motion_modules" in name and ".proj_out." in name:
            value.zero_()
    before = unet.run(model, values)
    for frame, reached in ((0, [True, True, True]), (1, [False, True, False])):
        louder = values["latents"].clone()
        louder[:, :, frame] += 1
        moved = (unet.run(model, {**values, "latents": louder}) - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
        assert moved.tolist() == reached


@torch.no_grad()
def test_the_mask_acts_in_the_scores_of_cross_attention(unet: Any) -> None:
    """Eq. 6-7 in our reading: queries of features and mask, keys and values of the text."""
    model, values = unet.trained(**FEW_SHOT), few_shot_inputs(unet)
    values["object_coverage"][:, 1, :, 1, 1] = 0.5  # on top of the first object: the union stays 1
    values["object_coverage"][:, 0, :, 5, 5] = 0.25
    seen = []
    block = spatial_blocks(model)[1]  # 4 x 4 places of 2 x 2 each
    block.norm2.register_forward_hook(lambda module, args, out: seen.append(out))
    block.attn2.register_forward_hook(lambda module, args, out: seen.append(out))
    unet.run(model, values)
    features, out = seen
    mask = torch.zeros(4, 4)
    mask[0, 0], mask[1, 1], mask[2, 2] = 1, 1 / 4, 1 / 16
    asking = features + mask.flatten()[:, None] * block.mask_projection.weight[:, 0]
    for index in range(6):
        expected = slow_attention(block.attn2, asking[index], values["encoder_hidden_states"][index // 3])
        torch.testing.assert_close(out[index].double(), expected, atol=1e-5, rtol=1e-4)


def test_the_foreground_is_what_any_object_covers() -> None:
    coverage = torch.zeros(2, 3, 2, 1, 2)
    coverage[0, :, 0, 0, 0] = torch.tensor([0.5, 0.25, 0.0])
    coverage[0, :, 1, 0, 1] = torch.tensor([0.75, 0.75, 0.0])
    expected = torch.tensor([[0.75, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert torch.equal(foreground(coverage), expected[..., None])


def test_before_training_the_mask_does_nothing(unet: Any) -> None:
    model = unet.fresh(**{**FEW_SHOT, "first_frame_attention": False})
    values = few_shot_inputs(unet)
    assert torch.equal(unet.run(model, values), unet.run_plain(unet.make(), values))
    new = model.adapter_state_dict()
    assert len(new) == 7 and all(value.shape[1:] == (1,) and value.eq(0).all() for value in new.values())


def test_a_mask_of_zeros_is_none_and_without_the_switch_it_counts_for_nothing(unet: Any) -> None:
    model, values = unet.trained(**FEW_SHOT), few_shot_inputs(unet)
    with_mask = unet.run(model, values)
    absent = {name: value for name, value in values.items() if name != "object_coverage"}
    zeros = {**values, "object_coverage": torch.zeros_like(values["object_coverage"])}
    assert torch.equal(unet.run(model, zeros), unet.run(model, absent))
    assert (with_mask - unet.run(model, absent)).abs().max() > 1e-4
    without = unet.trained(**{**FEW_SHOT, "mask_cross_attention": False})
    assert torch.equal(unet.run(without, values), unet.run(without, absent))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_moves_every_mask_projection(unet: Any, checkpointing: bool) -> None:
    model = unet.fresh(**FEW_SHOT).train()
    if checkpointing:
        model.enable_gradient_checkpointing()
    unet.call(model, few_shot_inputs(unet)).square().mean().backward()
    gradients = [block.mask_projection.weight.grad for block in spatial_blocks(model)]
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients)


def test_both_variants_can_be_had_at_once(unet: Any) -> None:
    """The few-shot switches beside the masked blocks: all of the new parameters learn."""
    model = unet.trained(first_frame_attention=True, mask_cross_attention=True).train()
    names = model.adapter_state_dict().keys()
    assert len(names) == unet.num_new + 7
    unet.call(model, unet.inputs()).square().mean().backward()
    new = {name: p for name, p in model.named_parameters() if name in names}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in new.values())
