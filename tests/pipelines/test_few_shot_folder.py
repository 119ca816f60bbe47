"""Folders that a few-shot pipeline can't be opened from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter

from ttm.pipelines.few_shot import FewShotPipeline
from ttm.pipelines.few_shot_base import Base, host_sizes
from ttm.pipelines.few_shot_folder import FewShotRecord, write_few_shot


@pytest.fixture(scope="module")
def base(save_stable_diffusion: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_diffusion(tmp_path_factory.mktemp("base"))


def test_parts_of_another_base(base: Path, tmp_path: Path, save_stable_diffusion: Callable[..., Path]) -> None:
    other = save_stable_diffusion(tmp_path / "other", cross_attention_dim=12)
    with pytest.raises(ValueError, match="ControlNet is of another base: its cross_attention_dim is 12; expected 16"):
        FewShotPipeline.from_base(str(base), controlnet=str(other / "controlnet"))
    narrow = MotionAdapter(block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=4,
                           motion_num_attention_heads=2)  # fmt: skip
    narrow.save_pretrained(tmp_path / "narrow")
    with pytest.raises(ValueError, match="motion adapter does not fit"):
        FewShotPipeline.from_base(str(base), motion_adapter=str(tmp_path / "narrow"))
    with pytest.raises(ValueError, match="no folder 'unet'"):
        FewShotPipeline.from_base(str(base / "unet"))
    with pytest.raises(ValueError, match="There is no folder"):
        FewShotPipeline.from_base(str(tmp_path / "nowhere"))


def test_a_trained_folder_that_does_not_fit_or_is_damaged(base: Path, tmp_path: Path) -> None:
    sizes = host_sizes(FewShotPipeline.from_base(str(base)).unet)
    record = FewShotRecord(Base(str(base)), {}, sizes)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    for weights, changed, words in (
        ({name: torch.zeros(3, 3)}, record, r"is \[3, 3\]; expected \[8, 8\]"),
        ({"strange": torch.zeros(1)}, record, "it has no 'strange'"),
        ({}, FewShotRecord(Base(str(base)), {}, {**sizes, "cross_attention_dim": 768}), "cross_attention_dim is 768"),
        ({}, FewShotRecord(Base(str(tmp_path / "gone")), {}, sizes), "There is no folder"),
    ):
        write_few_shot(tmp_path / "trained", weights, changed)
        with pytest.raises(ValueError, match=words):
            FewShotPipeline.from_pretrained(tmp_path / "trained")
    (tmp_path / "trained/few_shot.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="few_shot.safetensors can't be read"):
        FewShotPipeline.from_pretrained(tmp_path / "trained")
    (tmp_path / "trained/few_shot.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="describes no few-shot training"):
        FewShotPipeline.from_pretrained(tmp_path / "trained")


def test_a_training_that_has_not_ended(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds neither few_shot.json nor model_index.json; expected what"):
        FewShotPipeline.from_pretrained(tmp_path)
