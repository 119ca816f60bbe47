"""A deeper U-Net begins as the one that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tools.ttm_tiny_unet import deepen
from ttm.models.unet_motion import MaskedUNetMotionModel

SIZES: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "condition_channels": 2, "block_out_channels": (8, 12), "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlockMotion",) * 2, "up_block_types": ("CrossAttnUpBlockMotion",) * 2,
    "cross_attention_dim": 8, "num_attention_heads": 2, "motion_num_attention_heads": 2,
}  # fmt: skip


def model(layers: int, masked: int) -> MaskedUNetMotionModel:
    """With no weight at zero, so that whatever is put in the wrong place shows."""
    torch.manual_seed(0)
    made = MaskedUNetMotionModel(**SIZES, layers_per_block=layers, num_masked_blocks=masked).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return made


def inputs() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(1, 3, 3, 8, 8, generator=rng),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 5, 8, generator=rng),
        "condition_latents": torch.randn(1, 2, 3, 8, 8, generator=rng),
        "object_coverage": torch.rand(1, 2, 3, 8, 8, generator=rng).round(),
        "local_encoder_hidden_states": torch.randn(1, 2, 4, 8, generator=rng),
    }


@pytest.mark.parametrize(("layers", "masked"), [(1, 2), (2, 3), (2, 1), (1, 0)])
def test_it_computes_the_same_and_has_layers_that_can_learn(layers: int, masked: int) -> None:
    shallow, given = model(layers, masked), inputs()
    deeper = deepen.deepened(shallow)
    out = deeper(**given).sample
    with torch.no_grad():
        torch.testing.assert_close(out, shallow(**given).sample, atol=0, rtol=0)
    assert deeper.config.layers_per_block == [layers + 1, layers]
    assert sum(1 for *_, block in blocks(deeper) if block.masked) == masked + (masked >= layers)
    out.square().mean().backward()
    for block, place in ((deeper.down_blocks[0], layers), (deeper.up_blocks[-1], 1)):
        new = (block.resnets[place].conv2, block.attentions[place].proj_out, block.motion_modules[place].proj_out)
        assert all(
            weight.grad is not None and weight.grad.abs().sum() > 0 for part in new for weight in part.parameters()
        )


def blocks(deeper: MaskedUNetMotionModel) -> list[tuple[int, Any]]:
    return [(level, siblings[place]) for level, siblings, place in deeper._spatial_blocks()]


def test_the_program_writes_a_folder_and_never_over_one(tmp_path: Path) -> None:
    model(1, 2).save_pretrained(tmp_path / "shallow")
    words = [str(tmp_path / "shallow"), str(tmp_path / "deeper")]
    deepen.main(words)
    opened = MaskedUNetMotionModel.from_pretrained(tmp_path / "deeper").eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(**inputs()).sample, model(1, 2)(**inputs()).sample, atol=1e-6, rtol=1e-5)
    with pytest.raises(SystemExit, match="is there already; expected a folder that is not"):
        deepen.main(words)


def test_without_attention_on_the_finest_level_it_says_so() -> None:
    sizes = {**SIZES, "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion")}
    with pytest.raises(ValueError, match="first block is DownBlockMotion; expected CrossAttnDownBlockMotion"):
        deepen.deepened(MaskedUNetMotionModel(**sizes, layers_per_block=1))
