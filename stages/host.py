"""The components that a stage trains on, and the transformer that it trains."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import nn
from transformers import AutoTokenizer, UMT5EncoderModel

from stages.settings import Settings
from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.pipelines.autoencoders import LatentFormat


def expect_component(pipeline: str, name: str) -> None:
    """Say at once when a local pipeline folder lacks a component.

    Raises:
        ValueError: the folder is there, the component is not; or it looks like a path and is not there.
    """
    folder = Path(pipeline)
    looks_local = folder.exists() or pipeline.startswith((".", "/")) or pipeline.count("/") > 1
    if looks_local and not (folder / name).is_dir():
        raise ValueError(f"host.pipeline={pipeline} has no folder {name!r}; expected one in diffusers' layout.")


def load_vae(pipeline: str, device: torch.device | str = "cpu") -> AutoencoderKLWan:
    """The frozen video autoencoder of a pipeline folder (or Hub id), fp32."""
    expect_component(pipeline, "vae")
    vae = AutoencoderKLWan.from_pretrained(pipeline, subfolder="vae", torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False).to(device)


def load_text(pipeline: str, device: torch.device | str = "cpu") -> tuple[Any, UMT5EncoderModel]:
    """The tokenizer and the frozen text encoder of a pipeline folder (or Hub id), fp32."""
    for name in ("tokenizer", "text_encoder"):
        expect_component(pipeline, name)
    tokenizer = AutoTokenizer.from_pretrained(pipeline, subfolder="tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(pipeline, subfolder="text_encoder", dtype=torch.float32)
    return tokenizer, encoder.eval().requires_grad_(False).to(device)


def module_digest(module: nn.Module, length: int = 12) -> str:
    """A hash of a module's weights: their names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:length]


def encoder_digest(vae: Any) -> str:
    """A hash of what decides an autoencoder's latents: its decoder may go on learning, and a cache stays good."""
    parts = nn.ModuleDict({name: getattr(vae, name) for name in ("encoder", "quant_conv") if getattr(vae, name, None)})
    form = LatentFormat.of(vae)
    scale = (list(form.mean), list(form.std))
    return hashlib.sha256(f"{module_digest(parts)}{scale}".encode()).hexdigest()[:12]


def build_transformer(settings: Settings) -> MaskedWanTransformer3DModel:
    """The transformer to train: the host's weights (``host.init_from``), or random ones of the host's size.

    ``init_from`` may be a folder of transformer weights, a pipeline folder (its ``motion_transformer`` or
    ``transformer`` is taken, by stage), or a Hub id. New branches that it lacks start as the model defines.

    Raises:
        ValueError: no such folder, or no size to build from.
    """
    host, stage = settings.host, settings.stage.name
    first = stage == "image_to_motion"
    channels = int(host.transformer.get("in_channels", 16))
    extra = {
        "condition_channels": 2 * channels,
        "num_masked_blocks": 0 if first else host.num_masked_blocks,
        "masked_self": host.masked_self,
        "masked_cross": host.masked_cross,
        "region": host.region,
    }
    if host.init_from is None:
        if not host.transformer:
            raise ValueError("host.transformer is empty and host.init_from null; expected sizes or weights.")
        torch.manual_seed(settings.seed)
        sizes = {key: tuple(v) if isinstance(v, list) else v for key, v in host.transformer.items()}
        return MaskedWanTransformer3DModel(**sizes, **extra)
    folder, subfolder = Path(host.init_from), None
    if folder.exists():
        names = ("motion_transformer", "transformer") if first else ("transformer",)
        inner = [name for name in names if (folder / name / "config.json").is_file()]
        if not (folder / "config.json").is_file() and not inner:
            raise ValueError(f"host.init_from={folder} has no config.json; expected a folder of transformer weights.")
        subfolder = None if (folder / "config.json").is_file() else inner[0]
    elif host.init_from.startswith((".", "/")) or host.init_from.count("/") > 1:
        raise ValueError(f"host.init_from={host.init_from} does not exist; expected a folder or a Hub id.")
    else:
        subfolder = "transformer"
    return MaskedWanTransformer3DModel.from_pretrained(
        host.init_from, subfolder=subfolder, torch_dtype=torch.float32, **extra
    )


def trainable_parameters(model: MaskedWanTransformer3DModel, which: str) -> None:
    """Mark what is trained: "all", or "adapter" (the condition embedder and the masked branches)."""
    adapter = set(model.adapter_state_dict()) if which == "adapter" else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(adapter is None or name in adapter)
