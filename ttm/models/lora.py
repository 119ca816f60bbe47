"""Low-rank matrices beside a host's attention weights (LoRA, Hu et al. 2021), through peft.

Training changes the small matrices alone; merged into the weights they leave a plain model of the same class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.utils import is_peft_available
from torch import Tensor, nn

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of the host's attentions, self and cross, in space and in time."""


def add_lora(model: Any, rank: int, alpha: int | None = None, name: str = "lora") -> None:
    """Give every attention of a host low-rank matrices that add nothing yet; they alone of these layers can be trained.

    The new branches of a masked host get none: they are new, and train whole. A model without peft's methods, or whose
    layers have other names, has nothing to give them to.

    Args:
        model: a masked host, or any diffusers model whose attentions have ``LORA_TARGETS``.
        rank: of the matrices.
        alpha: their product counts ``alpha / rank``; None = ``rank``, so that it counts as it is.
        name: of the adapter in peft.

    Raises:
        ValueError: peft is not installed, a rank below 1, or no layer to add them to.
    """
    if not is_peft_available():
        raise ValueError("LoRA needs the package peft; install it with `pip install 'through-the-mask[train]'`.")
    if rank < 1:
        raise ValueError(f"The rank of LoRA is {rank}; expected at least 1.")
    targets = _targets(model)
    if not targets:
        raise ValueError(f"{type(model).__name__} has no attention that LoRA knows; expected {LORA_TARGETS}.")
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=list(targets), init_lora_weights=True)
    model.add_adapter(config, adapter_name=name)


def _targets(model: Any) -> dict[str, nn.Linear]:
    """The linear layers of a host's attentions that low-rank matrices lie beside, by name."""
    is_new = getattr(model, "_is_adapter_key", lambda key: False)
    layers = [(key, layer) for key, layer in model.named_modules() if isinstance(layer, nn.Linear) and not is_new(key)]
    ends = tuple(f".{target}" for target in LORA_TARGETS)
    return {key: layer for key, layer in layers if key.endswith(ends)}


def lora_form(model: Any, name: str = "lora") -> dict[str, int] | None:
    """Arguments of :func:`add_lora` that give a model the low-rank matrices that it has; None without."""
    config = (getattr(model, "peft_config", None) or {}).get(name)
    return None if config is None else {"rank": int(config.r), "alpha": int(config.lora_alpha)}


def lora_shapes(model: Any, rank: int, name: str = "lora") -> dict[str, list[int]]:
    """Names and shapes of the matrices that :func:`add_lora` would give to a model without any."""
    shapes = {}
    for key, layer in _targets(model).items():
        shapes[f"{key}.lora_A.{name}.weight"] = [rank, layer.in_features]
        shapes[f"{key}.lora_B.{name}.weight"] = [layer.out_features, rank]
    return shapes


def lora_dtypes(model: Any) -> set[torch.dtype]:
    """Dtypes of the weights that :func:`add_lora` would put low-rank matrices beside."""
    return {layer.weight.dtype for layer in _targets(model).values()}


def lora_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The low-rank matrices of a model's state."""
    return {name: value for name, value in state.items() if ".lora_" in name}


def has_lora(model: Any) -> bool:
    """Whether :func:`add_lora` has been here, and :func:`merge_lora` not since."""
    return bool(getattr(model, "peft_config", None))


def merge_lora(model: Any) -> None:
    """Add the low-rank matrices to the weights that they lie beside, and take them away; nothing without them.

    The weights should be in 32 bits: what was learnt is small beside them, and a weight in 16 keeps its value where
    the change is below half a step.
    """
    if has_lora(model):
        model.fuse_lora()
        model.unload_lora()
