"""What both hosts have in common: how they are called, and what they refuse.

Letters: B batch, C channels of the latents, Cc of the conditions, T h w the latent grid, T' h' w' the token
grid (the latent grid divided by the patch), L objects, S places of a prompt, D width of the text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ttm.models.masked_attention import REGIONS

Grid = tuple[int, int, int]


class VideoHost(Protocol):
    """A video model that both stages can be trained on, called in the same way whatever is inside.

    Attributes:
        config: has condition_channels, num_masked_blocks, masked_self, masked_cross, region.
        token_patch: latent frames, rows and columns of one token: the coverage comes on that grid.
        text_width: D.
        latent_channels: C.
        image_channels: Ci, of the image condition that the host takes by itself; 0: it takes none.
    """

    config: Any

    @property
    def token_patch(self) -> Grid: ...

    @property
    def text_width(self) -> int: ...

    @property
    def latent_channels(self) -> int: ...

    @property
    def image_channels(self) -> int: ...

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        /,
        condition_latents: Tensor | None = None,
        object_coverage: Tensor | None = None,
        local_encoder_hidden_states: Tensor | None = None,
        local_attention_mask: Tensor | None = None,
        *,
        return_dict: bool = True,
    ) -> Any:
        """Latents [B, C, T, h, w], timestep [B], global prompt [B, S, D] -> a sample like the latents.

        Args:
            latents: noisy latents.
            timestep: [B].
            encoder_hidden_states: the global prompt.
            condition_latents: [B, Cc, T, h, w]; None: zeros.
            object_coverage: [B, L, T', h', w'] in 0..1; None: all background.
            local_encoder_hidden_states: local prompts [B, L, S, D]; None: no local prompts.
            local_attention_mask: bool [B, L, S], true for words; None: no padding.
            Hosts with image_channels also take image_latents [B, Ci, T, h, w], and those with an image embedder
            encoder_hidden_states_image; without an image both are zeros or None.
            return_dict: False returns a tuple whose first element is the sample.
        """
        ...

    def save_adapter(self, folder: str | Path) -> None: ...

    def load_adapter(self, folder: str | Path) -> None: ...


def check_switches(condition_channels: int, num_masked_blocks: int, limit: int, of: str, region: str) -> None:
    """Refuse settings of the new modules that are out of range; ``of`` says what the limit counts.

    Raises:
        ValueError: as said.
    """
    if region not in REGIONS:
        raise ValueError(f"region is {region!r}; expected one of {', '.join(REGIONS)}.")
    if not 0 <= num_masked_blocks <= limit:
        raise ValueError(f"num_masked_blocks is {num_masked_blocks}; expected 0 to {of} = {limit}.")
    if condition_channels < 0:
        raise ValueError(f"condition_channels is {condition_channels}; expected 0 or more.")


def token_grid(host: VideoHost, name: str, latents: Tensor, condition: Tensor | None) -> Grid:
    """The token grid (T', h', w') of latents [B, C, T, h, w], which ``name`` calls.

    Raises:
        ValueError: the latents do not fit the host, or the conditions [B, Cc, T, h, w] the latents.
    """
    patch, channels, wanted = host.token_patch, host.latent_channels, host.config.condition_channels
    fits = latents.ndim == 5 and latents.shape[1] == channels
    if not fits or any(size % p or not size for size, p in zip(latents.shape[2:], patch, strict=True)):
        raise ValueError(
            f"{name} is {list(latents.shape)}; expected [B, {channels}, T, H, W] with T, H, W"
            f" multiples of the patch {patch}."
        )
    expected = (latents.shape[0], wanted, *latents.shape[2:])
    if condition is not None and (not wanted or condition.shape != expected):
        raise ValueError(
            f"condition_latents is {list(condition.shape)}; expected "
            + (f"{list(expected)}." if wanted else "None: this model has condition_channels = 0.")
        )
    t, h, w = (size // p for size, p in zip(latents.shape[2:], patch, strict=True))
    return t, h, w


def check_objects(
    batch: int, grid: Grid, text_width: int, coverage: Tensor | None, local: Tensor | None, words: Tensor | None
) -> None:
    """Refuse coverage [B, L, T', h', w'] and local prompts [B, L, S, D] (words [B, L, S]) that don't fit.

    Raises:
        ValueError: as said.
    """
    fits = coverage is None or (coverage.ndim == 5 and coverage.is_floating_point() and coverage.shape[1] > 0)
    if coverage is not None and not (fits and (coverage.shape[0], *coverage.shape[2:]) == (batch, *grid)):
        raise ValueError(
            f"object_coverage is {coverage.dtype} {list(coverage.shape)}; expected float"
            f" [{batch}, L, {grid[0]}, {grid[1]}, {grid[2]}] (the latent grid divided by the patch)."
        )
    objects = "L" if coverage is None else coverage.shape[1]
    if local is not None:
        fits = local.ndim == 4 and local.shape[::3] == (batch, text_width) and 0 not in local.shape
        if not fits or (coverage is not None and local.shape[1] != objects):
            raise ValueError(
                f"local_encoder_hidden_states is {list(local.shape)}; expected [{batch}, {objects}, S,"
                f" {text_width}], one prompt for each object of the coverage."
            )
    if words is not None and (local is None or words.dtype != torch.bool or words.shape != local.shape[:3]):
        expected = "None without local prompts" if local is None else f"bool {list(local.shape[:3])}"
        raise ValueError(f"local_attention_mask is {words.dtype} {list(words.shape)}; expected {expected}.")
