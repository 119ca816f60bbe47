"""Every random choice of training, as a function of (seed, global sample index) and of nothing else.

A sample keeps its noise, its timestep and its place in the data whatever the number of processes, the size of the
micro-batches, or how often the run was stopped; so no state of a generator has to be saved.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# One stream a purpose: a new draw in one of them leaves the others as they were.
_PURPOSES = (
    "noise",
    "level",
    "dropout",
    "variant",
    "corruption",
    "order",
    "motion",
    "colours",
    "sentence",
    "names",
    "frame",
)


def sample_rng(seed: int, index: int, purpose: str) -> np.random.Generator:
    """The generator of one sample for one purpose, one of ``_PURPOSES``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index, _PURPOSES.index(purpose)))))


def noise_like(seed: int, indices: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise [B, *shape] of the samples ``indices`` [B]."""
    noise = np.empty((len(indices), *shape), np.float32)
    for row, index in zip(noise, indices, strict=True):
        sample_rng(seed, int(index), "noise").standard_normal(dtype=np.float32, out=row)
    return noise


def clip_order(seed: int, indices: NDArray[np.int64], num_clips: int) -> NDArray[np.int64]:
    """Which clip each global sample index takes: every epoch runs once through all of them, shuffled anew."""
    return np.array([_epoch(seed, int(i) // num_clips, num_clips)[int(i) % num_clips] for i in indices], np.int64)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, num_clips: int) -> NDArray[np.int64]:
    return sample_rng(seed, epoch, "order").permutation(num_clips)


def dropped(
    seed: int, indices: NDArray[np.int64], drop_text: float, drop_visual: float, drop_both: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whose text and whose visual condition is dropped, two bool [B].

    The three events exclude each other; their rates are shares of all samples. Guidance with two scales
    (InstructPix2Pix) evaluates the model without both, without the text, and with all.
    """
    draw = np.array([sample_rng(seed, int(i), "dropout").random() for i in indices])
    both = draw < drop_both
    text = ~both & (draw < drop_both + drop_text)
    visual = ~both & ~text & (draw < drop_both + drop_text + drop_visual)
    return both | text, both | visual


def chosen_variants(seed: int, indices: NDArray[np.int64], share: float, num_variants: int) -> NDArray[np.int64]:
    """Which corrupted variant a sample's trajectory is, int [B]; -1 (with probability 1 - share) is the true one."""
    chosen = np.full(len(indices), -1, np.int64)
    if share > 0:
        for place, index in enumerate(indices):
            rng = sample_rng(seed, int(index), "variant")
            if rng.random() < share:
                chosen[place] = rng.integers(num_variants)
    return chosen


def chosen_colours(seed: int, indices: NDArray[np.int64], num_orders: int) -> NDArray[np.int64]:
    """Which of the colours that a clip is kept in each sample takes, int [B] below ``num_orders``."""
    if num_orders == 1:
        return np.zeros(len(indices), np.int64)
    return np.array([sample_rng(seed, int(index), "colours").integers(num_orders) for index in indices], np.int64)


def in_share(seed: int, indices: NDArray[np.int64], purpose: str, share: float) -> NDArray[np.bool_]:
    """Which samples belong to a share of all, bool [B]; purposes ("motion", "sentence", "names") are independent."""
    if share <= 0:
        return np.zeros(len(indices), bool)
    return np.array([sample_rng(seed, int(index), purpose).random() < share for index in indices])
