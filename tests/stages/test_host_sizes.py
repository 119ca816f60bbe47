"""The public hosts at their full sizes, on the meta device: what they weigh, and what is new."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stages.settings_loading import load_settings
from ttm.models.lora import lora_shapes
from ttm.models.transformer_wan import MaskedWanTransformer3DModel

SIZES: dict[str, dict[str, Any]] = {
    "wan_1_3b": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
    "wan_14b": {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
    "wan_i2v_14b": {
        "num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824, "in_channels": 36, "image_dim": 1280,
        "added_kv_proj_dim": 5120,
    },
    "wan_ti2v_5b": {
        "num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48,
        "known_first_frame": True,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("host", "of_host", "of_stage_1", "of_stage_2", "of_lora"),
    [
        ("wan_1_3b", 1_418_996_800, 196_608, 151_388_160, 23_592_960),
        ("wan_ti2v_5b", 4_999_787_712, 1_179_648, 605_552_640, 47_185_920),
        ("wan_14b", 14_288_491_584, 655_360, 2_098_626_560, 104_857_600),
        ("wan_i2v_14b", 16_394_878_784, 655_360, 2_098_626_560, 104_857_600),
    ],
)
def test_parameters(host: str, of_host: int, of_stage_1: int, of_stage_2: int, of_lora: int) -> None:
    """The numbers that docs/own_weights.md computes memory and disk from."""
    settings = load_settings([f"host={host}"]).host
    channels = 2 * SIZES[host].get("out_channels", 16)
    with torch.device("meta"):
        blocks = settings.num_masked_blocks
        model = MaskedWanTransformer3DModel(**SIZES[host], condition_channels=channels, num_masked_blocks=blocks)
    new = {name: value.numel() for name, value in model.adapter_state_dict().items()}
    assert sum(p.numel() for p in model.parameters()) - sum(new.values()) == of_host
    assert new["condition_patch_embedding.weight"] == of_stage_1
    assert sum(new.values()) == of_stage_2
    assert sum(rows * columns for rows, columns in lora_shapes(model, 32).values()) == of_lora
