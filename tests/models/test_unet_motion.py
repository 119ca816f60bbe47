"""The masked U-Net: public layouts of checkpoints, levels of the grid, attention over space and time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from ttm.models.unet_block import SpatialBlock
from ttm.models.unet_motion import MaskedUNetMotionModel

SWITCHES: dict[str, Any] = {"condition_channels": 3, "num_masked_blocks": 6, "mask_cross_attention": True}

# The settings of the public files, key by key; only the sizes are smaller.
STABLE_DIFFUSION: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,  # the number of heads: the name is wrong in the public files
    "block_out_channels": [16, 16, 32, 32],
    "center_input_sample": False,
    "cross_attention_dim": 12,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 8,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
ANIMATEDIFF_2: dict[str, Any] = {
    "_class_name": "MotionAdapter",
    "_diffusers_version": "0.22.0.dev0",
    "block_out_channels": [16, 16, 32, 32],
    "motion_layers_per_block": 2,
    "motion_max_seq_length": 32,
    "motion_mid_block_layers_per_block": 1,
    "motion_norm_num_groups": 8,
    "motion_num_attention_heads": 8,
    "use_motion_mid_block": True,
}
ANIMATEDIFF_3 = {**ANIMATEDIFF_2, "conv_in_channels": None, "use_motion_mid_block": False}


def written(kind: Any, config: dict[str, Any], folder: Path) -> Path:
    """A model of random weights in its folder, with the very settings of the public one."""
    torch.manual_seed(2)
    kind.from_config(config).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def inputs(height: int = 8, width: int = 8, text: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    coverage = torch.zeros(2, 2, 3, height, width)
    coverage[:, 0, :, : height // 2, : width // 2] = 1.0
    coverage[:, 1, 1, height - 1, width - 1] = 1.0
    return {
        "sample": torch.randn(2, 4, 3, height, width, generator=generator),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(2, 5, text, generator=generator),
        "condition_latents": torch.randn(2, 3, 3, height, width, generator=generator),
        "object_coverage": coverage,
        "local_encoder_hidden_states": torch.randn(2, 2, 7, text, generator=generator),
    }


@pytest.fixture(scope="module")
def image_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Stable Diffusion 1.x's U-Net."""
    return written(UNet2DConditionModel, STABLE_DIFFUSION, tmp_path_factory.mktemp("stable-diffusion") / "unet")


@pytest.mark.parametrize("layout", [ANIMATEDIFF_2, ANIMATEDIFF_3], ids=["v2", "v3"])
@torch.no_grad()
def test_public_layouts_open_and_compute_what_diffusers_does(
    image_unet: Path, layout: dict[str, Any], tmp_path: Path
) -> None:
    motion = written(MotionAdapter, layout, tmp_path / "motion")
    unet, adapter = UNet2DConditionModel.from_pretrained(image_unet), MotionAdapter.from_pretrained(motion)
    host = UNetMotionModel.from_unet2d(unet, adapter).eval()
    values = inputs()
    first = (values["sample"], values["timestep"])
    expected = host(*first, values["encoder_hidden_states"].repeat_interleave(3, dim=0), return_dict=False)[0]

    made = MaskedUNetMotionModel.from_unet2d(unet, adapter, **SWITCHES)
    opened = MaskedUNetMotionModel.from_pretrained(
        image_unet.parent, subfolder="unet", motion_adapter=motion, **SWITCHES
    )
    assert opened.config.use_motion_mid_block is layout["use_motion_mid_block"]
    for model in (made, opened):
        assert torch.equal(model(**values, return_dict=False)[0], expected)
    assert torch.equal(made(*first, values["encoder_hidden_states"]).sample, expected)
    assert host.state_dict().keys() == made.state_dict().keys() - made.adapter_state_dict().keys()


@torch.no_grad()
def test_without_a_motion_adapter_each_frame_is_the_image_models(image_unet: Path) -> None:
    model = MaskedUNetMotionModel.from_pretrained(image_unet, **SWITCHES)
    unet, values = UNet2DConditionModel.from_pretrained(image_unet), inputs()
    sample = model(**values).sample
    for frame in range(3):
        image = unet(values["sample"][:, :, frame], values["timestep"], values["encoder_hidden_states"]).sample
        torch.testing.assert_close(sample[:, :, frame], image, atol=1e-5, rtol=1e-4)


def test_a_motion_adapter_that_does_not_fit_is_named(image_unet: Path, unet: Any, tmp_path: Path) -> None:
    image = UNet2DConditionModel.from_pretrained(image_unet)
    changes = ({"block_out_channels": [16, 16, 32, 64]}, {"motion_layers_per_block": 1}, {"motion_norm_num_groups": 4})
    for change in changes:
        adapter = MotionAdapter.from_config({**ANIMATEDIFF_3, **change})
        with pytest.raises(ValueError, match=f"motion adapter does not fit the U-Net: its {next(iter(change))} is"):
            MaskedUNetMotionModel.from_unet2d(image, adapter)
    unet.make().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"motion modules of its own \(UNetMotionModel\); expected no motion_adapter"):
        MaskedUNetMotionModel.from_pretrained(tmp_path, motion_adapter=MotionAdapter.from_config(ANIMATEDIFF_3))


def test_the_size_of_stable_diffusion(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        model = MaskedUNetMotionModel(
            cross_attention_dim=768, use_motion_mid_block=False, condition_channels=8, num_masked_blocks=6
        )
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    new = sum(sizes[name] for name in model.adapter_state_dict())
    motion = sum(size for name, size in sizes.items() if "motion_modules" in name)
    with capsys.disabled():
        print(f"\nSD 1.4 with AnimateDiff v3's motion modules: {sum(sizes.values()):,} parameters, {new:,} of them new")
    assert sum(sizes.values()) - new - motion == 859_520_964  # the public U-Net
    assert new == 8 * 320 * 9 + 2 * sum(_branches(width) for width in (320, 640, 1280))


def _branches(width: int) -> int:
    """Parameters of the two branches of a block: four projections, a bias, a norm each."""
    projected_text = 2 * 768 * width
    return (4 * width**2 + 3 * width) + (2 * width**2 + projected_text + 3 * width)


def test_more_masked_blocks_than_the_encoder_has() -> None:
    with pytest.raises(ValueError, match="num_masked_blocks is 7; expected 0 to the number of the encoder.* = 6"):
        MaskedUNetMotionModel(num_masked_blocks=7)


def test_masked_blocks_are_the_encoders_first_and_follow_the_papers_order(unet: Any) -> None:
    model, order = unet.trained(num_masked_blocks=1), []
    for name, block in model.named_modules():
        for part in ("attn1", "masked_attn1", "attn2", "masked_attn2", "ff"):
            if isinstance(block, SpatialBlock) and getattr(block, part) is not None:
                tag = (name.partition(".attentions")[0], part)
                getattr(block, part).register_forward_hook(lambda *_, tag=tag: order.append(tag))
    unet.run(model, unet.inputs())
    assert order[:5] == [("down_blocks.0", n) for n in ("attn1", "masked_attn1", "attn2", "masked_attn2", "ff")]
    assert order[5:8] == [("down_blocks.1", n) for n in ("attn1", "attn2", "ff")]
    assert len(order) == 5 + 6 * 3  # down 1, middle 1, up 4: blocks without branches


def recorded(model: nn.Module, name: str) -> list[tuple[Tensor, Tensor]]:
    """First input and output of every masked block's part of that name, filled when the model runs."""
    calls: list[tuple[Tensor, Tensor]] = []
    for block in model.modules():
        if isinstance(block, SpatialBlock) and block.masked:
            getattr(block, name).register_forward_hook(lambda module, args, out: calls.append((args[0], out)))
    return calls


def slow_masked_self_attention(branch: Any, tokens: Tensor, owner: Tensor) -> Tensor:
    """Eq. 3 token by token in float64: tokens [B, N, D], owner [B, N]."""
    tokens, out = tokens.double(), torch.zeros(tokens.shape, dtype=torch.float64)
    weights = {name: getattr(branch, name).weight.double() for name in ("to_q", "to_k", "to_v", "to_out")}
    q, k, v = (tokens @ weights[name].T for name in ("to_q", "to_k", "to_v"))
    width = q.shape[-1] // branch.num_heads
    for sample, index in torch.cartesian_prod(*map(torch.arange, owner.shape)).tolist():
        own = owner[sample] == owner[sample, index]
        heads = []
        for start in range(0, q.shape[-1], width):
            channels = slice(start, start + width)
            scores = k[sample, own, channels] @ q[sample, index, channels] / width**0.5
            heads.append(scores.softmax(0) @ v[sample, own, channels])
        out[sample, index] = torch.cat(heads) @ weights["to_out"].T + branch.to_out.bias.double()
    return out


def test_masked_self_attention_spans_space_and_time_on_every_level(unet: Any) -> None:
    model, values = unet.trained(), unet.inputs()
    values["object_coverage"][:, 0, 1:] = values["object_coverage"][:, 0, 1:].roll(2, dims=-1)  # it moves
    values["object_coverage"][:, 1, :, 2:4, 2:4] = 1
    calls = recorded(model, "masked_attn1")
    unet.run(model, values)
    assert [tokens.shape[1] for tokens, _ in calls] == [3 * 8 * 8, 3 * 4 * 4]
    coverage = values["object_coverage"]
    for (tokens, out), block, step in zip(calls, unet.masked_blocks(model), (1, 2), strict=True):
        share = coverage[..., ::step, ::step]  # the objects' edges lie on those of the tokens
        owner = (share[:, 0] + 2 * share[:, 1]).long()
        expected = slow_masked_self_attention(block.masked_attn1, tokens, owner.flatten(1))
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)


def test_a_small_object_keeps_a_token_on_every_level_of_odd_sizes() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "cross_attention_dim": 12}
    model = MaskedUNetMotionModel(
        **sizes, layers_per_block=1, num_attention_heads=2, motion_num_attention_heads=2, num_masked_blocks=3
    ).eval()
    for block in model.modules():
        if isinstance(block, SpatialBlock) and block.masked:
            nn.init.normal_(block.masked_attn2.to_out.weight)
    values = inputs(9, 11)
    values["object_coverage"][:, 0] = 0  # what is left covers the last place of frame 1
    del values["condition_latents"]
    calls = recorded(model, "masked_attn2")
    with torch.no_grad():
        model(**values)
    for (_, out), (height, width) in zip(calls, [(9, 11), (5, 6), (3, 3)], strict=True):
        reached = out.abs().amax(dim=-1).unflatten(1, (3, height, width)) > 0
        assert reached.sum() == 2 and reached[:, 1, -1, -1].all()


def test_the_branches_begin_as_the_hosts_attention_spread_over_time(unet: Any) -> None:
    """With the host's weights, no region and one frame, the branch's attention is the host's."""
    block = next(unet.masked_blocks(unet.fresh()))
    block.masked_attn1.to_out.load_state_dict(block.attn1.to_out[0].state_dict())
    tokens = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(block.masked_attn1(tokens, None), block.attn1(tokens), atol=1e-6, rtol=1e-5)


def test_lora_and_other_processors_go_onto_it(unet: Any) -> None:
    from peft import LoraConfig

    model, values = unet.trained(), unet.inputs()
    before = unet.run(model, values)
    model.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(unet.run(model, values), before, atol=1e-5, rtol=1e-4)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    torch.testing.assert_close(unet.run(model, values), before, atol=1e-5, rtol=1e-4)
    unet.call(model.train(), {**values, "cross_attention_kwargs": {"scale": 0.5}}).square().mean().backward()
    learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert any("masked_attn1.to_q.lora_B" in name for name in learning)
    assert all("lora" in name for name in learning)
    assert all(grad is not None and grad.abs().max() > 0 for name, grad in learning.items() if "lora_B" in name)


def kept_for_backward(run: Callable[[], Any]) -> int:
    """Elements of what autograd keeps; what a checkpoint drops does not count."""
    sizes: list[int] = []

    def keep(value: Tensor) -> Tensor:
        sizes.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        run()
    return sum(sizes)


def test_gradient_checkpointing_drops_what_the_motion_modules_keep_too(unet: Any) -> None:
    host, model, values = unet.make().train(), unet.fresh(num_masked_blocks=0).train(), unet.inputs()
    host.enable_gradient_checkpointing()
    model.enable_gradient_checkpointing()
    first = (values["latents"], values["timestep"])
    text = values["encoder_hidden_states"]
    theirs = kept_for_backward(lambda: host(*first, text.repeat_interleave(3, dim=0)))
    ours = kept_for_backward(lambda: model(*first, text))
    assert ours < 0.75 * theirs


def test_chunked_feed_forward_computes_the_same(unet: Any) -> None:
    model, values = unet.trained(), unet.inputs()
    before = unet.run(model, values)
    model.enable_forward_chunking(chunk_size=1, dim=0)
    torch.testing.assert_close(unet.run(model, values), before, atol=1e-5, rtol=1e-4)


def test_more_frames_than_the_motion_modules_know_and_other_texts_are_named(unet: Any) -> None:
    model, values = unet.fresh(), unet.inputs()
    with pytest.raises(ValueError, match=r"sample has 9 frames; .* at most 8 \(motion_max_seq_length\)"):
        unet.call(model, {**values, "latents": torch.zeros(2, 4, 9, 8, 8), "condition_latents": None})
    with pytest.raises(ValueError, match=r"encoder_hidden_states is \[6, 5, 8\]; expected \[2, S, 8\]"):
        unet.call(model, {**values, "encoder_hidden_states": torch.zeros(6, 5, 8)})
