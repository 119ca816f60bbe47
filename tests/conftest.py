"""What every test shares: which tests wait to be asked for, where the time of a session went, and a tiny base model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ASKED_FOR = {"slow": "takes minutes; run with -m slow", "gpu": "needs a CUDA device; run with -m gpu"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with a reason, tests of a marker that ``-m`` does not ask for, and those without a device."""
    expression = config.option.markexpr or ""
    for item in items:
        for name, reason in ASKED_FOR.items():
            if item.get_closest_marker(name) and name not in expression:
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu") and "gpu" in expression and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seconds of every test file, longest first, and the five longest tests."""
    files: dict[str, float] = defaultdict(float)
    tests: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                files[report.nodeid.partition("::")[0]] += report.duration
                tests[report.nodeid] += report.duration
    if not files:
        return
    terminalreporter.section(f"seconds of this session ({sum(files.values()):.1f} in all, over all workers)")
    for table, count in ((files, 12), (tests, 5)):
        for name, seconds in sorted(table.items(), key=lambda entry: -entry[1])[:count]:
            terminalreporter.write_line(f"{seconds:8.2f}  {name}")
        terminalreporter.write_line("")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


UNET: dict[str, object] = {
    "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 16,
    "attention_head_dim": 2, "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip


@pytest.fixture(scope="session")
def save_stable_diffusion() -> Callable[..., Path]:
    """save_stable_diffusion(folder, **changes of the U-Net) -> the folder, filled with random weights of SD 1.x."""
    return _save_stable_diffusion


def _save_stable_diffusion(folder: Path, **unet_changes: object) -> Path:
    """vae (/2), tokenizer, text_encoder, unet, motion_adapter and controlnet, as diffusers lays them out."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, MotionAdapter, UNet2DConditionModel
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, scaling_factor=1.5,
    ).save_pretrained(folder / "vae")  # fmt: skip
    words = "<pad> </s> <unk> a red square moves left right dog runs".split()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=8
    ).save_pretrained(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, eos_token_id=1, pad_token_id=0, bos_token_id=2,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    unet = UNet2DConditionModel(**{**UNET, **unet_changes})
    unet.save_pretrained(folder / "unet")
    MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4,
        motion_max_seq_length=8,
    ).save_pretrained(folder / "motion_adapter")  # fmt: skip
    ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8)).save_pretrained(folder / "controlnet")
    return folder


@pytest.fixture
def ltx_autoencoder() -> Callable[..., Any]:
    """Makes a small autoencoder of LTX-Video's class, /8 in space and /4 in time, with statistics of its own;
    arguments change its config."""
    import torch
    from diffusers import AutoencoderKLLTXVideo

    small: dict[str, Any] = {
        "latent_channels": 4, "patch_size": 2, "block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8),
        "down_block_types": ("LTXVideoDownBlock3D",) * 2, "layers_per_block": (1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1), "spatio_temporal_scaling": (True, True),
        "decoder_spatio_temporal_scaling": (True, True), "decoder_inject_noise": (False,) * 3,
        "downsample_type": ("conv",) * 2, "upsample_residual": (False,) * 2, "upsample_factor": (1, 1),
    }  # fmt: skip

    def make(**changes: Any) -> AutoencoderKLLTXVideo:
        torch.manual_seed(0)
        vae = AutoencoderKLLTXVideo(**small, **changes).eval()
        vae.latents_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
        vae.latents_std.copy_(torch.tensor([0.5, 2.0, 1.0, 1.5]))
        return vae

    return make
