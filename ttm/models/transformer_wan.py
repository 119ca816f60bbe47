"""Wan's video transformer with visual conditions and the masked attention block of Through-The-Mask.

Letters: B batch, C channels of the latents, Cc of the conditions, Ci of the host's own image condition, T H W
the latent grid, T' H' W' the token grid, N tokens (time, row, column), L objects, S places of a prompt, D width.

What the paper does not state, and the choice made here:
- Residual and initialisation: each masked branch is x + out(attention(norm(x))), like the host's
  cross-attention; `out` alone starts at zero, so that the untrained model computes what the host computes,
  and its gradient is not zero, so that from the second step on everything before it learns. On a host with
  weights a branch begins with the queries, keys and values of the host's own attention.
- Conditions enter through a convolution of their own, added to the host's patch embedding: the sum is the
  wider input convolution of the paper, but the host's weights stay whole. It has no bias (the host's has
  one), so that a condition of zeros is no condition.
- Local prompts pass through the host's own text projection; rotary positions act in masked self-attention
  too.

Hosts that take an image by themselves keep their own way of taking it, beside ours: Wan 2.1 image-to-video beside
the noisy latents (in_channels 36 = 16 + 20), Wan 2.2 TI2V in the place of the first latent frame, whose tokens are
told timestep 0 (``known_first_frame``). The velocity of a frame that is known is known, (z - x0) / sigma: the model
returns it, so that training sees no error there and sampling arrives at that frame.
"""

from __future__ import annotations

from typing import Any

import torch

# ModelMixin: a pipeline that loads this class by its module's name looks for its base class there.
from diffusers import ModelMixin, WanTransformer3DModel  # noqa: F401
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.utils import apply_lora_scale
from einops import rearrange
from torch import Tensor, nn

from ttm.models.adapter import AdapterMixin
from ttm.models.host import Grid, check_objects, check_switches, token_grid
from ttm.models.image_input import image_or_nothing, token_timesteps, with_first_frame, with_known_velocity
from ttm.models.regions import Regions, make_regions, used_words
from ttm.models.wan_block import MaskedWanTransformerBlock


class MaskedWanTransformer3DModel(AdapterMixin, WanTransformer3DModel):
    """Wan's transformer for both stages: visual conditions, and masked attention in the first blocks.

    The host's weights load unchanged (``from_pretrained`` of a plain ``WanTransformer3DModel``, or
    ``from_host``), and the untrained model computes exactly what the host does. What was trained saves apart
    (``save_adapter``).

    Args:
        condition_channels: Cc, channels of the visual conditions; 0: none.
        num_masked_blocks: K, how many blocks from the first on get the masked branches (paper: 10 of 40).
        masked_self: these blocks have masked self-attention (Eq. 3).
        masked_cross: these blocks have masked cross-attention (Eq. 1-2).
        region: where an object is: "mask" its tokens; "box" their bounding box in each token frame; "none"
            the unmasked twin of equal parameter count (every token attends to every token and to all local
            prompts).
        known_first_frame: the host takes a first frame in the place of the noisy one (Wan 2.2 TI2V).
        carried_first_frame: stage 2 is conditioned on the image carried along the masks
            (:mod:`ttm.motion.carried_frame`), not on the image repeated over time.
        base: which public weights it extends, see :mod:`ttm.models.base`; None: nobody said.
        others: the host's, see ``diffusers.WanTransformer3DModel``.

    Raises:
        ValueError: a setting is out of its range.
    """

    _no_split_modules = ["WanTransformerBlock", "MaskedWanTransformerBlock"]
    _repeated_blocks = ["WanTransformerBlock", "MaskedWanTransformerBlock"]
    # The host's plan splits the tokens over processes, and a token would no longer see its object's others.
    _cp_plan = None
    _adapter_beginnings = {"masked_attn1": "attn1", "masked_attn2": "attn2"}
    _adapter_modules = ("condition_patch_embedding", "masked_norm1", "masked_norm2", *_adapter_beginnings)
    _adapter_config = (
        "condition_channels", "num_masked_blocks", "masked_self", "masked_cross", "region", "known_first_frame",
        "carried_first_frame",
    )  # fmt: skip
    _adapter_host = ("patch_size", "num_attention_heads", "attention_head_dim", "in_channels", "text_dim")

    # The host's parts, which its own package does not type.
    rope: Any
    patch_embedding: Any
    condition_embedder: Any
    blocks: Any
    norm_out: Any
    proj_out: Any
    scale_shift_table: Tensor
    gradient_checkpointing: bool
    config: Any
    _gradient_checkpointing_func: Any

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        condition_channels: int = 0,
        num_masked_blocks: int = 0,
        masked_self: bool = True,
        masked_cross: bool = True,
        region: str = "mask",
        known_first_frame: bool = False,
        carried_first_frame: bool = False,
        base: dict[str, Any] | None = None,
    ) -> None:
        check_switches(condition_channels, num_masked_blocks, num_layers, "num_layers", region)
        if in_channels < out_channels or (known_first_frame and in_channels != out_channels):
            expected = f"{out_channels}" if known_first_frame else f"at least {out_channels}"
            raise ValueError(f"in_channels is {in_channels}; expected {expected}, for {out_channels} out_channels.")
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        dim = num_attention_heads * attention_head_dim
        for index in range(num_masked_blocks):
            host = (dim, ffn_dim, num_attention_heads, qk_norm, cross_attn_norm, eps, added_kv_proj_dim)
            self.blocks[index] = MaskedWanTransformerBlock(*host, masked_self, masked_cross)
        self.condition_patch_embedding: nn.Conv3d | None = None
        if condition_channels:
            kernel = (patch_size[0], patch_size[1], patch_size[2])
            self.condition_patch_embedding = nn.Conv3d(condition_channels, dim, kernel, kernel, bias=False)
            nn.init.zeros_(self.condition_patch_embedding.weight)

    @property
    def token_patch(self) -> Grid:
        """Latent frames, rows and columns of one token."""
        t, h, w = self.config.patch_size
        return t, h, w

    @property
    def text_width(self) -> int:
        """Width of the text embeddings that the model takes."""
        return self.config.text_dim

    @property
    def latent_channels(self) -> int:
        """C: of the noisy latents, and of the sample."""
        return self.config.out_channels

    @property
    def image_channels(self) -> int:
        """Ci: where the image is known, and its latents; 0 for a host that takes none."""
        if self.config.known_first_frame:
            return 1 + self.latent_channels
        return self.config.in_channels - self.latent_channels

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        condition_latents: Tensor | None = None,
        object_coverage: Tensor | None = None,
        local_encoder_hidden_states: Tensor | None = None,
        local_attention_mask: Tensor | None = None,
        encoder_hidden_states_image: Tensor | None = None,
        image_latents: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict noise - data, the sign of Wan.

        A visual condition is dropped for a sample by zeros in its condition latents and its coverage.

        Args:
            hidden_states: noisy latents [B, C, T, H, W].
            timestep: [B] in 0..1000, or [B, N] (Wan 2.2).
            encoder_hidden_states: global prompt [B, S, text_dim], zeros as padding.
            condition_latents: [B, Cc, T, H, W]; None: zeros.
            object_coverage: [B, L, T', H', W'] in 0..1, T' = T / patch and so on, see
                :func:`ttm.motion.token_grid.object_coverage`; None: all background.
            local_encoder_hidden_states: local prompts [B, L, S, text_dim]; None: no local prompts.
            local_attention_mask: bool [B, L, S], true for words; None: no padding.
            encoder_hidden_states_image: of hosts that have an image embedder, [B, places, image_dim].
            image_latents: the host's own image condition [B, Ci, T, H, W], see
                :mod:`ttm.pipelines.host_image`; zeros or None: no image.
            return_dict: False returns a tuple.
            attention_kwargs: "scale" scales LoRA layers.

        Returns:
            sample [B, out_channels, T, H, W].

        Raises:
            ValueError: a shape does not fit the others or the configuration.
        """
        grid = token_grid(self, "hidden_states", hidden_states, condition_latents)
        rotary_emb = self.rope(hidden_states)
        image = None
        if self.image_channels or image_latents is not None:
            image = image_or_nothing(hidden_states, image_latents, self.image_channels)
        seen, times = self._with_image(hidden_states, timestep, image)
        x = self.patch_embedding(seen)
        if self.condition_patch_embedding is not None and condition_latents is not None:
            x = x + self.condition_patch_embedding(condition_latents.type_as(hidden_states))
        x = rearrange(x, "b d t h w -> b (t h w) d").contiguous()

        temb, modulation, prompt, picture = self.condition_embedder(
            times.flatten(),
            encoder_hidden_states,
            encoder_hidden_states_image,
            timestep_seq_len=times.shape[1] if times.ndim == 2 else None,
        )
        modulation = modulation.unflatten(-1, (6, -1))
        prompt = prompt if picture is None else torch.cat([picture, prompt], dim=1)
        regions = self._regions(x.shape[0], grid, object_coverage, local_encoder_hidden_states, local_attention_mask)

        for block in self.blocks:
            inputs = [x, prompt, modulation, rotary_emb]
            if isinstance(block, MaskedWanTransformerBlock):
                inputs.append(regions)
            checkpointing = torch.is_grad_enabled() and self.gradient_checkpointing
            x = self._gradient_checkpointing_func(block, *inputs) if checkpointing else block(*inputs)

        temb = temb if temb.ndim == 3 else temb[:, None]
        last = self.scale_shift_table[None].to(x.device) + temb[:, :, None].to(x.device)
        shift, scale = last.unbind(dim=2)
        x = self.proj_out((self.norm_out(x.float()) * (1 + scale) + shift).type_as(x))
        sizes = dict(zip("thwijk", (*grid, *self.config.patch_size), strict=True))
        sample = rearrange(x, "b (t h w) (i j k c) -> b c (t i) (h j) (w k)", **sizes)
        if image is not None and self.config.known_first_frame:
            sample = with_known_velocity(sample, hidden_states, timestep, image)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _with_image(self, latents: Tensor, timestep: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the input convolution sees, and the timesteps, [B], or [B, N] where a first frame may be known."""
        if image is None:
            return latents, timestep
        if self.config.known_first_frame:
            return with_first_frame(latents, image), token_timesteps(timestep, image, self.token_patch)
        return torch.cat([latents, image], dim=1), timestep

    def _regions(
        self, batch: int, grid: Grid, coverage: Tensor | None, local: Tensor | None, words: Tensor | None
    ) -> Regions:
        check_objects(batch, grid, self.text_width, coverage, local, words)
        if not self.config.num_masked_blocks:
            return Regions(None, None, None)
        if local is not None and self.config.masked_cross:
            local, words = used_words(local, words)
            local = self.condition_embedder.text_embedder(local)
        return make_regions(self.config, batch, grid, coverage, local, words)
