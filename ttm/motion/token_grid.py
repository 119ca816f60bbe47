"""From ids on pixels to coverage on a model's token grid.

Letters: B batch, T frames, H W pixels, L objects; a prime (T' H' W') marks the token grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from ttm.objects import MAX_OBJECTS


def object_coverage(
    ids: Tensor, num_objects: int, grid: tuple[int, int, int], first_frame_alone: bool = True
) -> Tensor:
    """How much of each token's pixels and frames every object covers.

    A video autoencoder that packs g frames into one latent frame takes frame 0 alone and then groups of g, so
    T = 1 + g * (T' - 1); the grid is the one after the autoencoder and the patch embedding.

    Args:
        ids: object ids [B, T, H, W], integers in 0..num_objects, 0 = background; object ``l`` has
            id ``l + 1``.
        num_objects: L, how many objects to measure; one that is nowhere gets zeros.
        grid: (T', H', W') of the tokens. Where H' or W' does not divide H or W, neighbouring tokens share the
            pixels between them, so that none is lost.
        first_frame_alone: False packs all T frames in equal groups instead (T = g * T').

    Returns:
        float32 [B, L, T', H', W'] in 0..1; for ids on a dividing grid its sum over L is 1 minus the
        background.

    Raises:
        ValueError: ids are no integers of four axes or exceed num_objects; T does not fit T'; the grid has
            more places than the frames have pixels.
    """
    _check(ids, num_objects, grid, first_frame_alone)
    frames, height, width = grid
    planes = rearrange(ids, "b t h w -> (b t) 1 h w")
    coverage = []
    # One object at a time: a one-hot clip of all objects at once would be the largest tensor of the call.
    for number in range(1, num_objects + 1):
        places = F.adaptive_avg_pool2d((planes == number).float(), (height, width))
        places = rearrange(places, "(b t) 1 h w -> b t h w", b=ids.shape[0])
        if first_frame_alone and frames > 1:
            later = reduce(places[:, 1:], "b (t g) h w -> b t h w", "mean", t=frames - 1)
            places = torch.cat([places[:, :1], later], dim=1)
        else:
            places = reduce(places, "b (t g) h w -> b t h w", "mean", t=frames)
        coverage.append(places)
    return torch.stack(coverage, dim=1)


def _check(ids: Tensor, num_objects: int, grid: tuple[int, int, int], first_frame_alone: bool) -> None:
    whole = ids.dtype != torch.bool and not (ids.is_floating_point() or ids.is_complex())
    if ids.ndim != 4 or 0 in ids.shape or not whole:
        raise ValueError(f"ids is {ids.dtype} {list(ids.shape)}; expected integers [B, T, H, W] with no empty axis.")
    if not 1 <= num_objects <= MAX_OBJECTS:
        raise ValueError(f"num_objects is {num_objects}; expected 1 to {MAX_OBJECTS}.")
    if len(grid) != 3 or min(grid) < 1:
        raise ValueError(f"grid is {tuple(grid)}; expected three sizes (T', H', W') of at least 1.")
    low, high = (int(bound) for bound in torch.aminmax(ids))
    if low < 0 or high > num_objects:
        raise ValueError(f"ids holds values {low}..{high}; expected 0..{num_objects} for {num_objects} object(s).")
    length, height, width = ids.shape[1:]
    frames = grid[0]
    if first_frame_alone:
        fits = length == 1 if frames == 1 else length > 1 and (length - 1) % (frames - 1) == 0
        rule = "1 frame" if frames == 1 else f"1 + a multiple of {frames - 1} frames (frame 0 has a token alone)"
    else:
        fits = length % frames == 0
        rule = f"a multiple of {frames} frames"
    if not fits:
        raise ValueError(f"ids has {length} frames; expected {rule} for {frames} token frame(s).")
    if grid[1] > height or grid[2] > width:
        raise ValueError(
            f"ids has {height} x {width} pixels; expected at least one for each token of the"
            f" {grid[1]} x {grid[2]} grid."
        )
