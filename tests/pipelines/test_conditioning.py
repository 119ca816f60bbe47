"""Conditions and guidance as functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook

from ttm.pipelines.conditioning import (
    Conditions,
    encode_text,
    guidance_passes,
    guided,
    image_to_motion_condition,
    motion_to_video_condition,
    stack_passes,
    trajectory_coverage,
)
from ttm.pipelines.image_to_video import Pipeline

S, D = 12, 16


def _conditions(batch: int = 1) -> tuple[Any, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    ids = torch.zeros(batch, 5, 32, 32, dtype=torch.uint8)
    ids[:, :, 4:14, 4:14], ids[:, :, 18:28, 16:30] = 1, 2
    conditions = Conditions(
        latents=draw(batch, 8, 2, 4, 4),
        text=draw(batch, S, D),
        coverage=trajectory_coverage(ids, 2, (2, 4, 4), (1, 2, 2)),
        local_text=draw(batch, 2, S, D),
        local_mask=torch.arange(S).expand(batch, 2, S) < 5,
    )
    return conditions, draw(1, S, D), torch.arange(S)[None] < 1


@pytest.mark.parametrize(
    ("text", "visual", "expected"),
    [
        (1.0, 1.0, [(1.0, True, True)]),
        (3.0, 3.0, [(-2.0, False, False), (3.0, True, True)]),
        (3.0, 1.0, [(-2.0, True, False), (3.0, True, True)]),
        (1.0, 2.0, [(-1.0, False, False), (1.0, True, False), (1.0, True, True)]),
        (0.0, 1.0, [(1.0, True, False)]),
        (0.0, 0.0, [(1.0, False, False)]),
    ],
)
def test_only_passes_with_a_weight_run(text: float, visual: float, expected: list[tuple[float, bool, bool]]) -> None:
    assert guidance_passes(text, visual) == tuple(expected)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("text", "visual"), [(1.0, 1.0), (4.0, 1.0), (2.5, 2.5), (5.0, 1.7)])
def test_guidance_is_the_formula_of_instructpix2pix(pipe: Pipeline, batch: int, text: float, visual: float) -> None:
    conditions, nothing, nothing_mask = _conditions(batch)
    latents = torch.randn(batch, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    timestep = torch.tensor(500.0)

    def alone(with_visual: bool, with_text: bool) -> torch.Tensor:
        """One prediction, with the dropping written out by hand."""
        keep_text = with_text
        return pipe.transformer(
            hidden_states=latents,
            timestep=timestep.expand(batch),
            encoder_hidden_states=conditions.text if keep_text else nothing.expand(batch, -1, -1),
            condition_latents=conditions.latents * with_visual,
            object_coverage=conditions.coverage * with_visual,
            local_encoder_hidden_states=(
                conditions.local_text if keep_text else nothing[None].expand(batch, 2, -1, -1)
            ),
            local_attention_mask=conditions.local_mask if keep_text else nothing_mask.expand(batch, 2, -1),
        ).sample

    with torch.no_grad():
        neither, seen, told = alone(False, False), alone(True, False), alone(True, True)
        expected = neither + visual * (seen - neither) + text * (told - seen)
        passes = guidance_passes(text, visual)
        stacked = stack_passes(conditions, passes, nothing, nothing_mask)
        found = guided(pipe.transformer, latents, timestep, stacked, passes)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(seen, neither, atol=1e-3) and not torch.allclose(told, seen, atol=1e-3)


def test_scales_of_one_run_the_batch_once(pipe: Pipeline) -> None:
    conditions, nothing, nothing_mask = _conditions()
    batches = []
    pipe.transformer.register_forward_pre_hook(lambda module, arguments: batches.append(len(arguments[0])))
    for scales in ((1.0, 1.0), (2.0, 2.0), (2.0, 1.5)):
        passes = guidance_passes(*scales)
        stacked = stack_passes(conditions, passes, nothing, nothing_mask)
        with torch.no_grad():
            guided(pipe.transformer, torch.zeros(1, 4, 2, 4, 4), torch.tensor(1.0), stacked, passes)
    assert batches == [1, 2, 3]


def group_offload(transformer: Any, execution_device: torch.device) -> None:
    transformer.enable_group_offload(execution_device, execution_device, offload_type="leaf_level")


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("offload", [cpu_offload, cpu_offload_with_hook, group_offload])
def test_with_offload_the_passes_run_one_after_the_other(pipe: Pipeline, offload: Any, batch: int) -> None:
    conditions, nothing, nothing_mask = _conditions(batch)
    passes = guidance_passes(5.0, 1.7)
    stacked = stack_passes(conditions, passes, nothing, nothing_mask)
    latents = torch.randn(batch, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    batches: list[int] = []
    pipe.transformer.register_forward_pre_hook(lambda module, arguments: batches.append(len(arguments[0])))
    with torch.no_grad():
        at_once = guided(pipe.transformer, latents, torch.tensor(500.0), stacked, passes)
        offload(pipe.transformer, execution_device=torch.device("cpu"))
        in_turn = guided(pipe.transformer, latents, torch.tensor(500.0), stacked, passes)
    assert batches == [3 * batch, batch, batch, batch]
    torch.testing.assert_close(in_turn, at_once, atol=2e-5, rtol=1e-4)


def test_dropping_is_by_sample_and_takes_the_ids_with_the_picture() -> None:
    conditions, nothing, nothing_mask = _conditions(3)
    visual, text = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    kept = conditions.keep(visual, text, nothing, nothing_mask)
    for index, (see, hear) in enumerate(zip(visual.tolist(), text.tolist(), strict=True)):
        assert torch.equal(kept.latents[index], conditions.latents[index] * see)
        assert torch.equal(kept.coverage[index], conditions.coverage[index] * see)
        assert torch.equal(kept.text[index], conditions.text[index] if hear else nothing[0])
        for place in range(2):
            wanted = conditions.local_text[index, place] if hear else nothing[0]
            assert torch.equal(kept.local_text[index, place], wanted)
            wanted_mask = conditions.local_mask[index, place] if hear else nothing_mask[0]
            assert torch.equal(kept.local_mask[index, place], wanted_mask)


def test_dropping_survives_values_that_are_not_finite() -> None:
    conditions, nothing, nothing_mask = _conditions()
    broken = Conditions(conditions.latents * float("nan"), conditions.text * float("inf"))
    none = torch.tensor([False])
    kept = broken.keep(none, none, nothing, nothing_mask)
    assert not kept.latents.any() and torch.equal(kept.text, nothing)


def test_text_is_zero_beyond_its_own_tokens_and_does_not_depend_on_its_neighbours(pipe: Pipeline) -> None:
    texts = ["the red ball moves left", "", "the " * 40]
    with torch.no_grad():
        embeds, mask = encode_text(pipe.tokenizer, pipe.text_encoder, texts, 12)
        alone, alone_mask = encode_text(pipe.tokenizer, pipe.text_encoder, texts[:1], 12)
    assert embeds.shape == (3, 12, 16) and mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [6, 1, 12]  # the words and the end; the end alone; cut off
    assert not embeds[~mask].any() and embeds[mask].abs().sum(dim=-1).gt(0).all()
    torch.testing.assert_close(embeds[:1], alone)
    assert torch.equal(mask[:1], alone_mask)


@pytest.mark.parametrize("host", ["unet"])
def test_clips_padding_is_kept_and_its_mask_is_the_text_with_its_ends(pipe: Pipeline) -> None:
    texts = ["the red ball moves left", "", "the " * 40]
    with torch.no_grad():
        embeds, mask = encode_text(pipe.tokenizer, pipe.text_encoder, texts, 12)
        shorter, _ = encode_text(pipe.tokenizer, pipe.text_encoder, texts[:1], 7)
        ids = pipe.tokenizer(texts, padding="max_length", max_length=12, truncation=True, return_tensors="pt").input_ids
        plain = pipe.text_encoder(ids).last_hidden_state
    assert torch.equal(embeds, plain)  # as Stable Diffusion calls it: no mask
    assert mask.sum(dim=1).tolist() == [7, 2, 12]  # beginning, words and end
    assert embeds[~mask].abs().sum(dim=-1).gt(0).all()
    torch.testing.assert_close(embeds[:1, :7], shorter)  # causal: a text does not depend on its padding
    with pytest.raises(ValueError, match="max_sequence_length is 13; expected at most 12"):
        encode_text(pipe.tokenizer, pipe.text_encoder, texts, 13)


def test_the_conditions_of_both_stages() -> None:
    x0, s0, clip = (torch.randn(2, 4, frames, 3, 5) for frames in (1, 1, 6))
    first = image_to_motion_condition(x0, s0, 6)
    second = motion_to_video_condition(x0, clip)
    assert first.shape == second.shape == (2, 8, 6, 3, 5)
    for frame in range(6):
        assert torch.equal(first[:, :, frame], torch.cat([x0, s0], dim=1)[:, :, 0])
        assert torch.equal(second[:, :4, frame], x0[:, :, 0])
    assert torch.equal(second[:, 4:], clip)
    with pytest.raises(ValueError, match="one latent frame"):
        image_to_motion_condition(clip, s0, 6)
    carried = torch.randn_like(clip)
    assert torch.equal(motion_to_video_condition(carried, clip), torch.cat([carried, clip], dim=1))
    with pytest.raises(ValueError, match="one latent frame"):
        motion_to_video_condition(carried[:, :, :3], clip)


def test_stage_one_has_no_objects_in_its_inputs() -> None:
    conditions, *_ = _conditions()
    inputs: dict[str, Any] = Conditions(conditions.latents, conditions.text).inputs(torch.bfloat16)
    assert inputs["object_coverage"] is None and inputs["local_attention_mask"] is None
    assert inputs["condition_latents"].dtype == torch.bfloat16
