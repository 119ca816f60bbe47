"""The two hosts at a tiny size, called in the same way: what every test of a host is run on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import UNetMotionModel, WanTransformer3DModel
from torch import Tensor, nn

from ttm.models.transformer_wan import MaskedWanTransformer3DModel
from ttm.models.unet_motion import MaskedUNetMotionModel

WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 3,
    "rope_max_seq_len": 32,
}
UNET: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion"),
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "motion_max_seq_length": 8,
}


@dataclass(frozen=True)
class Host:
    """A host's classes at a tiny size.

    Attributes:
        plain: diffusers' class.
        masked: ours.
        config: of the plain model.
        switches: of the new modules.
        grid: the token grid of the inputs' latents, [2, 4, 3, 8, 8].
        num_new: how many new parameters the switches make.
        host_weight: a weight that a saved model can't do without.
    """

    plain: Any
    masked: Any
    config: dict[str, Any]
    switches: dict[str, Any]
    grid: tuple[int, int, int]
    num_new: int
    host_weight: str

    def make(self) -> Any:
        """A new plain model, the same each time."""
        return copy.deepcopy(_plain(self.plain, tuple(self.config.items())))

    def fresh(self, **changes: Any) -> Any:
        """A new model before training, on the plain model's weights."""
        switches = {**self.switches, **changes}
        return copy.deepcopy(_fresh(self.plain, self.masked, tuple(self.config.items()), tuple(switches.items())))

    def trained(self, **changes: Any) -> Any:
        """A new model in which every new parameter acts, as after training."""
        model = self.fresh(**changes)
        generator = torch.Generator().manual_seed(7)
        for value in model.adapter_state_dict().values():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
        return model

    def inputs(self) -> dict[str, Tensor]:
        """Two samples of two objects, the first in a corner, the second at one token of each frame."""
        generator = torch.Generator().manual_seed(1)
        coverage = torch.zeros(2, 2, *self.grid)
        coverage[:, 0, :, :2, :2] = 1.0
        coverage[:, 1, :, 3, 3] = 1.0
        words = torch.ones(2, 2, 6, dtype=torch.bool)
        words[:, 0, 4:], words[:, 1, 3:] = False, False
        return {
            "latents": torch.randn(2, 4, 3, 8, 8, generator=generator),
            "timestep": torch.tensor([10.0, 900.0]),
            "encoder_hidden_states": torch.randn(2, 5, 8, generator=generator),
            "condition_latents": torch.randn(2, 8, 3, 8, 8, generator=generator),
            "object_coverage": coverage,
            "local_encoder_hidden_states": torch.randn(2, 2, 6, 8, generator=generator),
            "local_attention_mask": words,
        }

    def call(self, model: nn.Module, values: dict[str, Any]) -> Tensor:
        """As everything calls a host: latents, timestep and text by their places, the rest by name."""
        values = dict(values)
        first = [values.pop(name) for name in ("latents", "timestep", "encoder_hidden_states")]
        return model(*first, **values, return_dict=False)[0]

    @torch.no_grad()
    def run(self, model: nn.Module, values: dict[str, Any]) -> Tensor:
        return self.call(model, values)

    @torch.no_grad()
    def run_plain(self, host: nn.Module, values: dict[str, Any]) -> Tensor:
        text = values["encoder_hidden_states"]
        if self.plain is UNetMotionModel:
            text = text.repeat_interleave(values["latents"].shape[2], dim=0)
        return host(values["latents"], values["timestep"], text, return_dict=False)[0]

    def masked_blocks(self, model: nn.Module) -> Iterator[Any]:
        """The blocks with masked branches, in their order."""
        for module in model.modules():
            if getattr(module, "masked_attn1", None) is not None or getattr(module, "masked_attn2", None) is not None:
                yield module


# Building costs several times what copying does: each model is built once for all tests, which get copies.
Settings = tuple[tuple[str, Any], ...]


@cache
def _plain(kind: Any, config: Settings) -> Any:
    torch.manual_seed(0)
    return kind(**dict(config)).eval()


@cache
def _fresh(plain: Any, masked: Any, config: Settings, switches: Settings) -> Any:
    return masked.from_host(_plain(plain, config), **dict(switches))


HOSTS = {
    "wan": Host(
        plain=WanTransformer3DModel,
        masked=MaskedWanTransformer3DModel,
        config=WAN,
        switches={"condition_channels": 8, "num_masked_blocks": 2},
        grid=(3, 4, 4),
        num_new=1 + 2 * 2 * 12,
        host_weight="proj_out.weight",
    ),
    "unet": Host(
        plain=UNetMotionModel,
        masked=MaskedUNetMotionModel,
        config=UNET,
        switches={"condition_channels": 8, "num_masked_blocks": 2},
        grid=(3, 8, 8),
        num_new=1 + 2 * 2 * 7,
        host_weight="conv_out.weight",
    ),
}


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> Host:
    """Each of the two hosts in turn."""
    return HOSTS[request.param]


@pytest.fixture
def unet() -> Host:
    """The U-Net alone."""
    return HOSTS["unet"]


@pytest.fixture
def wan() -> Host:
    """Wan alone."""
    return HOSTS["wan"]
