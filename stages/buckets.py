"""Which clips make a step's batch, where clips have several sizes and lengths: those of one bucket.

Everything is a function of (seed, step): any number of processes, and a resumed run, see the same batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stages.draws import sample_rng


class BucketOrder:
    """Batches of one bucket each, in which every clip is seen once an epoch.

    A bucket of n clips is a stream: all of its clips, shuffled, then all of them shuffled anew, and so on; its k-th
    batch takes places k B to (k + 1) B. By the end of epoch e it has had floor(e n / B) batches: the clips that do
    not fill one, fewer than B, come first in the next epoch. Nothing is dropped, repeated or padded. The batches of an
    epoch are shuffled over the buckets.

    Args:
        sizes: clips in each bucket, 1 or more.
        batch_size: B.
        seed: of the order.

    Raises:
        ValueError: no bucket, or one without a clip.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"The buckets hold {list(sizes)} clips; expected at least one bucket, each with a clip.")
        self.sizes, self.batch_size, self.seed = tuple(sizes), batch_size, seed
        self._batches = lru_cache(maxsize=4)(self._batches_of)
        self._shuffled = lru_cache(maxsize=4 * len(sizes))(self._shuffled_clips)

    def batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """The bucket of a step, and its clips there, [B] of 0..n - 1."""
        epoch = self.epoch(step)
        bucket, number = self._batches(epoch)[step - self.steps_before(epoch)]
        n, places = self.sizes[bucket], np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        clips = [self._shuffled(bucket, int(place) // n)[int(place) % n] for place in places]
        return int(bucket), np.array(clips, np.int64)

    def steps_before(self, epoch: int) -> int:
        """Batches of all epochs before this one."""
        return sum(epoch * n // self.batch_size for n in self.sizes)

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to, from 0."""
        # An epoch falls short of N / B batches by less than one a bucket in all, however many have gone by.
        beyond = (step + len(self.sizes) + 1) * self.batch_size // sum(self.sizes) + 2
        return bisect_right(range(beyond), step, key=self.steps_before) - 1

    def _batches_of(self, epoch: int) -> NDArray[np.int64]:
        """(bucket, number of the batch in it) of an epoch's steps, [steps, 2]."""
        ends = [(epoch * n // self.batch_size, (epoch + 1) * n // self.batch_size) for n in self.sizes]
        pairs = [(bucket, number) for bucket, (low, high) in enumerate(ends) for number in range(low, high)]
        return np.array(pairs, np.int64).reshape(-1, 2)[self._rng(epoch, 0).permutation(len(pairs))]

    def _shuffled_clips(self, bucket: int, epoch: int) -> NDArray[np.int64]:
        return self._rng(epoch, 1 + bucket).permutation(self.sizes[bucket])

    def _rng(self, epoch: int, stream: int) -> np.random.Generator:
        return sample_rng(self.seed, epoch * (1 + len(self.sizes)) + stream, "order")
