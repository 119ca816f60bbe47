"""Tiny random checkpoints in the very layout of the public ones: folders, file names, class names, keys.

Only the sizes differ. Each is written by diffusers' and transformers' own classes, as the public ones were.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    MotionAdapter,
    PNDMScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5TokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

WORDS = "the a red blue green ball square cat moves left right up down stays turns and".split()
TEXT_WIDTH = 16
WAN = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": TEXT_WIDTH, "freq_dim": 16,
    "ffn_dim": 32, "num_layers": 4, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 64,
}  # fmt: skip
WAN_INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.33.0.dev0",
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def write_wan(folder: Path, **changes: Any) -> Path:
    """Wan 2.1 text-to-video: 4 latent channels, /8 in space, /4 in time."""
    _wan_parts(folder, _wan_vae(), {"in_channels": 4, "out_channels": 4, **changes}, flow_shift=3.0)
    return _index(folder, WAN_INDEX)


def write_wan_ti2v(folder: Path) -> Path:
    """Wan 2.2 TI2V: an autoencoder with patches, /16 in space, and timesteps of each token."""
    patches = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
    vae = _wan_vae(z_dim=6, decoder_base_dim=8, **patches)
    _wan_parts(folder, vae, {"in_channels": 6, "out_channels": 6}, flow_shift=5.0)
    extra = {"boundary_ratio": None, "expand_timesteps": True, "transformer_2": [None, None]}
    return _index(folder, {**WAN_INDEX, **extra, "_diffusers_version": "0.35.0.dev0"})


def write_wan_i2v(folder: Path) -> Path:
    """Wan 2.1 image-to-video: 36 = 16 + 4 + 16 channels (here 12 = 4 + 4 + 4), and CLIP's image encoder."""
    image = {"in_channels": 12, "out_channels": 4, "image_dim": 8, "added_kv_proj_dim": 24}
    _wan_parts(folder, _wan_vae(), image, flow_shift=3.0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(image_size=8, patch_size=4, **sizes)).save_pretrained(folder / "image_encoder")
    CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(
        folder / "image_processor"
    )
    extra = {
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
    }
    return _index(folder, {**WAN_INDEX, **extra, "_class_name": "WanImageToVideoPipeline"})


def write_stable_diffusion(folder: Path) -> Path:
    """Stable Diffusion 1.5, without its safety checker."""
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
    ).save_pretrained(folder / "unet")
    special = ["<|startoftext|>", "<|endoftext|>"]
    letters = [chr(97 + index) for index in range(26)]
    vocabulary = {word: index for index, word in enumerate([*special, *letters, *(f"{x}</w>" for x in letters)])}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder / "tokenizer")
    sizes = {"hidden_size": TEXT_WIDTH, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(vocab_size=len(vocabulary), max_position_embeddings=77, **sizes, **ends)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    PNDMScheduler(**betas, steps_offset=1, skip_prk_steps=True).save_pretrained(folder / "scheduler")
    return _index(
        folder,
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.6.0",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def write_motion_adapter(folder: Path, widths: tuple[int, ...] = (8, 16)) -> Path:
    """AnimateDiff's motion modules, of v1.5.3's shape: none in the middle."""
    torch.manual_seed(1)
    MotionAdapter(
        block_out_channels=widths,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=16,
        use_motion_mid_block=False,
    ).save_pretrained(folder)
    return folder


def _wan_vae(**changes: Any) -> AutoencoderKLWan:
    torch.manual_seed(0)
    z = changes.get("z_dim", 4)
    sizes = {"base_dim": 4, "z_dim": z, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    scaling = {"latents_mean": [0.1] * z, "latents_std": [0.5] * z}
    return AutoencoderKLWan(**{**sizes, "temperal_downsample": [False, True, True], **scaling, **changes})


def _wan_parts(folder: Path, vae: AutoencoderKLWan, transformer: dict[str, Any], flow_shift: float) -> None:
    vae.save_pretrained(folder / "vae")
    torch.manual_seed(2)
    # Two shards, as the public files have.
    WanTransformer3DModel(**{**WAN, **transformer}).save_pretrained(folder / "transformer", max_shard_size="100KB")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *[(f"▁{word}", -3.0) for word in WORDS]]
    T5TokenizerFast(vocab=pieces, extra_ids=0).save_pretrained(folder / "tokenizer")
    sizes = {"d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    UMT5EncoderModel(UMT5Config(vocab_size=len(pieces), **sizes)).save_pretrained(folder / "text_encoder")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift
    ).save_pretrained(folder / "scheduler")


def _index(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "model_index.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return folder
