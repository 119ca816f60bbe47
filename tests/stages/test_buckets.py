from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stages.buckets import BucketOrder


def _seen(order: BucketOrder, steps: range) -> Counter[tuple[int, int]]:
    batches = [order.batch(step) for step in steps]
    return Counter((bucket, int(clip)) for bucket, clips in batches for clip in clips)


def test_buckets_that_batches_divide_are_seen_once_an_epoch_in_another_order_each_time() -> None:
    order = BucketOrder([8, 12, 4], batch_size=4, seed=3)
    orders = []
    for epoch in range(3):
        steps = range(order.steps_before(epoch), order.steps_before(epoch + 1))
        assert len(steps) == 6 and {order.epoch(step) for step in steps} == {epoch}
        seen = _seen(order, steps)
        assert len(seen) == 24 and set(seen.values()) == {1}
        orders.append([(order.batch(step)[0], *order.batch(step)[1]) for step in steps])
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("sizes", [[7], [1, 1, 1], [5, 13, 2], [3, 100]])
def test_clips_that_fill_no_batch_come_first_in_the_next_epoch(sizes: list[int]) -> None:
    order = BucketOrder(sizes, batch_size=4, seed=0)
    for epoch in range(1, 9):
        seen = _seen(order, range(order.steps_before(epoch)))
        for bucket, n in enumerate(sizes):
            counts = [seen[bucket, clip] for clip in range(n)]
            assert sum(counts) == epoch * n // 4 * 4  # all but fewer than a batch
            assert max(counts) <= epoch and min(counts) >= epoch - -(-3 // n)
    assert _seen(order, range(order.steps_before(4))) == Counter(  # four epochs divide by 4 without rest
        {(bucket, clip): 4 for bucket, n in enumerate(sizes) for clip in range(n)}
    )


def test_an_epoch_is_where_its_steps_are() -> None:
    order = BucketOrder([5, 13, 2, 1], batch_size=8, seed=0)
    for step in range(400):
        epoch = order.epoch(step)
        assert order.steps_before(epoch) <= step < order.steps_before(epoch + 1)


def test_a_step_has_the_same_batch_in_a_fresh_order() -> None:
    first, second = (BucketOrder([6, 9], batch_size=2, seed=7) for _ in range(2))
    for step in (500, 3, 77):
        assert first.batch(step)[0] == second.batch(step)[0]
        np.testing.assert_array_equal(first.batch(step)[1], second.batch(step)[1])
    other = BucketOrder([6, 9], batch_size=2, seed=8)
    assert any(not np.array_equal(first.batch(step)[1], other.batch(step)[1]) for step in range(9))


def test_an_empty_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one bucket"):
        BucketOrder([3, 0], batch_size=2, seed=0)
    with pytest.raises(ValueError, match="at least one bucket"):
        BucketOrder([], batch_size=2, seed=0)
