"""Stable Diffusion's U-Net with AnimateDiff's motion modules, visual conditions and masked attention.

Letters: B batch, C channels of the latents, Cc of the conditions, T frames, h w the latent grid, L objects, S
places of a prompt, D width of the text.

What the papers do not state, and the choice made here:
- The first K spatial attention blocks are those of the down blocks, in order: in SD 1.x two in each of the
  three that have attention, which makes the paper's K = 6 the whole encoder.
- Residual and initialisation are those of the Wan host: x + out(attention(norm(x))), `out` alone zero at first,
  queries, keys and values begun with the host's own attention's; see :mod:`ttm.models.unet_block` for
  positions.
- Conditions enter through a convolution of their own without bias, added to the host's input convolution: the
  wider input convolution of the paper, with the host's weights whole.
- Ids live on the latent grid and are pooled to every level's grid: the mean of 2 x 2 places for each halving,
  the last row or column alone where a size is odd, so that the sizes are those that the host's convolutions of
  stride 2 give. An object that is visible keeps a token on every level.
- Local prompts are CLIP's text as it is: the host has no projection of the text before its attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

# ModelMixin: a pipeline that loads this class by its module's name looks for its base class there.
from diffusers import ModelMixin, MotionAdapter, UNet2DConditionModel, UNetMotionModel  # noqa: F401
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import Tensor, nn

from ttm.models.adapter import AdapterMixin
from ttm.models.first_frame_attention import foreground
from ttm.models.host import Grid, check_objects, check_switches, token_grid
from ttm.models.regions import Regions, make_regions, used_words
from ttm.models.unet_block import CLIP, Clip, SpatialBlock, TemporalBlock

_HOST_SETTINGS = tuple(inspect.signature(UNetMotionModel.__init__).parameters)[1:]
_WHERE = ("subfolder", "revision", "cache_dir", "token", "local_files_only", "force_download", "proxies")
_SHARED_ARGUMENTS = ("torch_dtype", "use_safetensors", "cache_dir", "token", "local_files_only", "proxies")


class ConditionedConv2d(nn.Conv2d):
    """The host's input convolution, and one for the conditions that lie behind its channels."""

    def __init__(self, host: nn.Conv2d, condition_channels: int) -> None:
        sizes: dict[str, Any] = {"kernel_size": host.kernel_size, "padding": host.padding}
        super().__init__(host.in_channels, host.out_channels, **sizes)
        self.condition_embedding = nn.Conv2d(condition_channels, host.out_channels, bias=False, **sizes)
        nn.init.zeros_(self.condition_embedding.weight)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents, or latents and conditions on the channel axis, [B * T, C or C + Cc, h, w]."""
        noisy, condition = latents.tensor_split([self.in_channels], dim=1)
        x = super().forward(noisy)
        return x + self.condition_embedding(condition) if condition.shape[1] else x


class MaskedUNetMotionModel(AdapterMixin, UNetMotionModel):
    """A motion U-Net for both stages and for the few-shot variant.

    The host's weights load unchanged (``from_pretrained`` of a plain ``UNetMotionModel``, ``from_unet2d`` of
    Stable Diffusion's and a motion adapter, or ``from_host``), and the untrained model computes exactly what
    the host does, but for ``first_frame_attention``, which changes what the host's layers see. What was trained
    saves apart (``save_adapter``).

    Args:
        condition_channels: Cc, channels of the visual conditions; 0: none.
        num_masked_blocks: K, how many of the encoder's spatial attention blocks from the first on get the
            masked branches (paper: 6).
        masked_self: these blocks have masked self-attention (Eq. 3 of Through-The-Mask), over space and time.
        masked_cross: these blocks have masked cross-attention (Eq. 1-2).
        region: where an object is: "mask" its tokens; "box" their bounding box in each frame (a mask of tokens
            by tokens: for small grids); "none" the unmasked twin of equal parameter count.
        first_frame_attention: keys and values of every spatial self-attention come from frame 1, see
            :mod:`ttm.models.first_frame_attention`.
        mask_cross_attention: the objects' coverage acts in the scores of every spatial cross-attention.
        carried_first_frame: stage 2 is conditioned on the image carried along the masks
            (:mod:`ttm.motion.carried_frame`), not on the image repeated over time.
        base: which public weights it extends, see :mod:`ttm.models.base`; None: nobody said.
        others: the host's, see ``diffusers.UNetMotionModel``.

    Raises:
        ValueError: a setting is out of its range.
    """

    _adapter_beginnings = {"masked_attn1": "attn1", "masked_attn2": "attn2"}
    _adapter_modules = (
        "condition_embedding", "masked_norm1", "masked_norm2", "mask_projection", *_adapter_beginnings
    )  # fmt: skip
    _adapter_config = (
        "condition_channels", "num_masked_blocks", "masked_self", "masked_cross", "region", "first_frame_attention",
        "mask_cross_attention", "carried_first_frame",
    )  # fmt: skip
    _adapter_host = (
        "in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "num_attention_heads"
    )  # fmt: skip

    # The host's parts, which its own package does not type.
    conv_in: Any
    down_blocks: Any
    mid_block: Any
    up_blocks: Any
    config: Any

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (*["CrossAttnDownBlockMotion"] * 3, "DownBlockMotion"),
        up_block_types: tuple[str, ...] = ("UpBlockMotion", *["CrossAttnUpBlockMotion"] * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1280,
        transformer_layers_per_block: Any = 1,
        reverse_transformer_layers_per_block: Any = None,
        temporal_transformer_layers_per_block: Any = 1,
        reverse_temporal_transformer_layers_per_block: Any = None,
        transformer_layers_per_mid_block: Any = None,
        temporal_transformer_layers_per_mid_block: Any = 1,
        use_linear_projection: bool = False,
        num_attention_heads: int | tuple[int, ...] = 8,
        motion_max_seq_length: int = 32,
        motion_num_attention_heads: int | tuple[int, ...] = 8,
        reverse_motion_num_attention_heads: Any = None,
        use_motion_mid_block: bool = True,
        mid_block_layers: int = 1,
        encoder_hid_dim: int | None = None,
        encoder_hid_dim_type: str | None = None,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        time_cond_proj_dim: int | None = None,
        condition_channels: int = 0,
        num_masked_blocks: int = 0,
        masked_self: bool = True,
        masked_cross: bool = True,
        region: str = "mask",
        first_frame_attention: bool = False,
        mask_cross_attention: bool = False,
        carried_first_frame: bool = False,
        base: dict[str, Any] | None = None,
    ) -> None:
        host = {name: value for name, value in locals().items() if name in _HOST_SETTINGS}
        blocks = _encoder_blocks(down_block_types, layers_per_block, transformer_layers_per_block)
        limit = "the number of the encoder's spatial attention blocks"
        check_switches(condition_channels, num_masked_blocks, blocks, limit, region)
        super().__init__(**host)
        self._take_over_blocks()
        if condition_channels:
            self.conv_in = ConditionedConv2d(self.conv_in, condition_channels)

    def _take_over_blocks(self) -> None:
        """Put blocks of ours around the host's layers."""
        config = self.config
        for index, (level, siblings, place) in enumerate(self._spatial_blocks()):
            masked = index < config.num_masked_blocks
            siblings[place] = SpatialBlock(
                siblings[place],
                level,
                masked_self=masked and config.masked_self,
                masked_cross=masked and config.masked_cross,
                first_frame_attention=config.first_frame_attention,
                mask_cross_attention=config.mask_cross_attention,
            )
        for module in list(self.modules()):
            if isinstance(module, AnimateDiffTransformer3D):
                module.transformer_blocks = nn.ModuleList(map(TemporalBlock, module.transformer_blocks))

    def _spatial_blocks(self) -> Iterator[tuple[int, nn.ModuleList, int]]:
        """Level, list and place in it of every spatial transformer block: encoder, middle, decoder, in order."""
        last = len(self.down_blocks) - 1
        parts = [
            *enumerate(self.down_blocks),
            (last, self.mid_block),
            *((last - index, part) for index, part in enumerate(self.up_blocks)),
        ]
        for level, part in parts:
            for attention in getattr(part, "attentions", ()):
                blocks = attention.transformer_blocks
                yield from ((level, blocks, place) for place in range(len(blocks)))

    @classmethod
    def from_unet2d(
        cls, unet: UNet2DConditionModel, motion_adapter: MotionAdapter | None = None, **switches: Any
    ) -> MaskedUNetMotionModel:
        """Stable Diffusion's U-Net and AnimateDiff's motion modules, copied, with new modules that add nothing yet.

        Args:
            unet: of SD 1.x.
            motion_adapter: of the same sizes. None: motion modules at random whose last projection is zero, so
                that every frame is what the image model makes of it.
            switches: the keys of the configuration that this class adds.

        Raises:
            ValueError: the motion adapter does not fit the U-Net, or a switch is unknown or out of range.
        """
        _check_motion_adapter(unet, motion_adapter)
        host = UNetMotionModel.from_unet2d(unet, motion_adapter)
        if motion_adapter is None:
            for name, value in host.named_parameters():
                if "motion_modules" in name and ".proj_out." in name:
                    nn.init.zeros_(value)
        return cls.from_host(host.train(unet.training), copy=False, **switches)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        motion_adapter: MotionAdapter | str | Path | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a saved model of this class, a plain motion U-Net, or an image U-Net with a motion adapter.

        Args:
            pretrained_model_name_or_path: folder or Hub id; ``subfolder`` may be among the arguments.
            motion_adapter: of an image U-Net (``UNet2DConditionModel``): the adapter, its folder or Hub id; None as in
                :meth:`from_unet2d`.
            kwargs: as diffusers' ``from_pretrained`` takes them; keys of the configuration may be among them.

        Raises:
            ValueError: a weight of the host is missing, or a motion adapter is given for a model that has its own.
        """
        where = {key: kwargs[key] for key in _WHERE if key in kwargs}
        config = cls.load_config(pretrained_model_name_or_path, **where)
        if config.get("_class_name") == UNet2DConditionModel.__name__:
            switches = {key: kwargs.pop(key) for key in cls._adapter_config if key in kwargs}
            kwargs.setdefault("use_safetensors", True)
            unet = UNet2DConditionModel.from_pretrained(pretrained_model_name_or_path, **kwargs)
            if isinstance(motion_adapter, (str, Path)):
                motion_adapter = MotionAdapter.from_pretrained(
                    motion_adapter, **{key: kwargs[key] for key in _SHARED_ARGUMENTS if key in kwargs}
                )
            return cls.from_unet2d(unet, motion_adapter, **switches)
        if motion_adapter is not None:
            raise ValueError(
                f"{pretrained_model_name_or_path} has motion modules of its own ({config.get('_class_name')}); expected"
                " no motion_adapter."
            )
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @property
    def token_patch(self) -> Grid:
        """Latent frames, rows and columns of one token: the coverage comes on the latent grid."""
        return 1, 1, 1

    @property
    def text_width(self) -> int:
        """Width of the text embeddings that the model takes."""
        width = self.config.cross_attention_dim
        return width if isinstance(width, int) else width[0]

    @property
    def latent_channels(self) -> int:
        """C: of the noisy latents."""
        return self.config.in_channels

    @property
    def image_channels(self) -> int:
        """It takes no image by itself."""
        return 0

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        condition_latents: Tensor | None = None,
        object_coverage: Tensor | None = None,
        local_encoder_hidden_states: Tensor | None = None,
        local_attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """Predict what the noise schedule's objective asks for (noise, or v).

        A visual condition is dropped for a sample by zeros in its condition latents and its coverage.

        Args:
            sample: noisy latents [B, C, T, h, w].
            timestep: [B] in 0..999.
            encoder_hidden_states: global prompt [B, S, D].
            condition_latents: [B, Cc, T, h, w]; None: zeros.
            object_coverage: [B, L, T, h, w] in 0..1; None: all background.
            local_encoder_hidden_states: local prompts [B, L, S, D]; None: no local prompts.
            local_attention_mask: bool [B, L, S], true for words; None: no padding.
            cross_attention_kwargs: "scale" scales LoRA layers; the rest goes to the spatial attentions.
            return_dict: False returns a tuple.
            others: the host's.

        Returns:
            sample [B, out_channels, T, h, w].

        Raises:
            ValueError: a shape does not fit the others or the configuration.
        """
        grid = self._check(sample, condition_latents, encoder_hidden_states)
        local, words = local_encoder_hidden_states, local_attention_mask
        check_objects(sample.shape[0], grid, self.text_width, object_coverage, local, words)
        clip = self._clip(sample.shape[0], grid, object_coverage, local, words)
        if condition_latents is not None:
            sample = torch.cat([sample, condition_latents.type_as(sample)], dim=1)
        return super().forward(
            sample,
            timestep,
            encoder_hidden_states.repeat_interleave(grid[0], dim=0),
            cross_attention_kwargs={**(cross_attention_kwargs or {}), CLIP: clip},
            return_dict=return_dict,
            **others,
        )

    def _check(self, sample: Tensor, condition: Tensor | None, text: Tensor) -> Grid:
        grid = token_grid(self, "sample", sample, condition)
        if grid[0] > self.config.motion_max_seq_length:
            raise ValueError(
                f"sample has {grid[0]} frames; the motion modules know at most {self.config.motion_max_seq_length}"
                " (motion_max_seq_length)."
            )
        if text.ndim != 3 or text.shape[::2] != (sample.shape[0], self.text_width):
            raise ValueError(
                f"encoder_hidden_states is {list(text.shape)}; expected [{sample.shape[0]}, S, {self.text_width}]."
            )
        return grid

    def _clip(
        self, batch: int, grid: Grid, coverage: Tensor | None, local: Tensor | None, words: Tensor | None
    ) -> Clip:
        if local is not None:
            local, words = used_words(local, words)
        regions: dict[int, Regions] = {}
        masks: dict[int, Tensor] = {}
        masked = {level for level, blocks, place in self._spatial_blocks() if blocks[place].masked}
        for level in range(len(self.down_blocks)):
            if level:
                grid = (grid[0], self._halved(grid[1]), self._halved(grid[2]))
                coverage = None if coverage is None else self._pooled(coverage)
            if level in masked:
                regions[level] = make_regions(self.config, batch, grid, coverage, local, words)
            if self.config.mask_cross_attention and coverage is not None:
                masks[level] = foreground(coverage)
        return Clip(grid[0], regions, masks)

    def _pooled(self, coverage: Tensor) -> Tensor:
        """Coverage [B, L, T, h, w] on the grid after the host's next convolution of stride 2."""
        planes = rearrange(coverage, "b l t h w -> (b l) t h w").float()
        # Padded, that convolution rounds the halved size up; unpadded (padding 0), it rounds it down.
        planes = F.avg_pool2d(planes, 2, ceil_mode=self.config.downsample_padding > 0)
        return rearrange(planes, "(b l) t h w -> b l t h w", b=coverage.shape[0])

    def _halved(self, size: int) -> int:
        return (size + 1) // 2 if self.config.downsample_padding > 0 else size // 2


def _encoder_blocks(kinds: tuple[str, ...], layers: Any, depths: Any) -> int:
    """How many spatial transformer blocks the down blocks hold; layers and depths are one for all, or one each."""

    def each(value: Any, count: int) -> list[Any]:
        return list(value) if isinstance(value, (list, tuple)) else [value] * count

    per_block = zip(kinds, each(layers, len(kinds)), each(depths, len(kinds)), strict=False)
    return sum(sum(each(depth, count)) for kind, count, depth in per_block if kind == "CrossAttnDownBlockMotion")


def _check_motion_adapter(unet: UNet2DConditionModel, adapter: MotionAdapter | None) -> None:
    if adapter is None:
        return
    count = len(unet.config.block_out_channels)
    layers = unet.config.layers_per_block
    wanted = {
        "block_out_channels": list(unet.config.block_out_channels),
        "motion_layers_per_block": [layers] * count if isinstance(layers, int) else list(layers),
        # Weights of any grouping load, but diffusers builds the modules with the U-Net's.
        "motion_norm_num_groups": [unet.config.norm_num_groups],
    }
    for key, expected in wanted.items():
        found = adapter.config[key]
        found = [found] * len(expected) if isinstance(found, int) else list(found)
        if found != expected:
            raise ValueError(f"The motion adapter does not fit the U-Net: its {key} is {found}; expected {expected}.")
