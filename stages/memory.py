"""What a preset of ``configs/memory`` does to a model and an autoencoder before training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stages.settings import Settings
from ttm.models.lora import add_lora, merge_lora

_ATTENTION = {"attn1", "attn2", "motion_modules"}
_HEAVY = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


def prepare_model(model: Any, settings: Settings) -> None:
    """Mark what is trained, add LoRA, keep the rest of the weights as ``memory.weights`` says, switch checkpointing on.

    ``host.trainable`` is "all"; "adapter", the new branches alone; "attention", they, every self- and cross-attention
    and the motion modules (what the few-shot paper trains); or "lora", the new branches and low-rank matrices beside
    the host's attentions.

    Raises:
        ValueError: LoRA without peft, or on a host without attention.
    """
    trainable = settings.host.trainable
    new = set(model.adapter_state_dict())
    for name, parameter in model.named_parameters():
        attends = trainable == "attention" and not _ATTENTION.isdisjoint(name.split("."))
        parameter.requires_grad_(trainable == "all" or name in new or attends)
    if trainable == "lora":
        torch.manual_seed(settings.seed)
        add_lora(model, settings.host.lora_rank)  # what is new and not LoRA's goes on being trained
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in new or ".lora_" in name)
    keep_frozen_as(model, getattr(torch, settings.memory.weights))
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()


def keep_frozen_as(model: nn.Module, dtype: torch.dtype) -> None:
    """Bring the frozen weights of linear and convolutional layers to a dtype; autocast computes with them as with the
    others. Norms stay as they are: they are small, and what is lost there is lost everywhere."""
    for layer in model.modules():
        if isinstance(layer, _HEAVY):
            for parameter in layer.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def prepare_vae(vae: Any, settings: Settings) -> None:
    """Let an autoencoder encode sample by sample, where the preset says so; what it encodes is the same.

    Tiles are for decoding alone (:func:`decode_in_tiles`).
    """
    if settings.memory.vae_slicing:
        vae.enable_slicing()


def decode_in_tiles(vae: Any) -> None:
    """Let an autoencoder decode frames that are larger than its tile (256 pixels of Wan's) in tiles, for
    ``memory.vae_tiling``. It encodes them whole: latents would differ at the seams from those in the cache."""
    decode = vae.decode

    def in_tiles(*arguments: Any, **told: Any) -> Any:
        vae.use_tiling = True
        try:
            return decode(*arguments, **told)
        finally:
            vae.use_tiling = False

    vae.decode = in_tiles


def finish_model(model: Any) -> None:
    """Leave a plain model: 32-bit weights, with LoRA added to those that it lies beside."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    merge_lora(model)
