"""Masked attention against a slow reading of Eq. 1-3, key by key."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ttm.models import token_packing
from ttm.models.masked_attention import (
    masked_cross_attention,
    masked_self_attention,
    masked_self_attention_dense,
    object_token_mask,
    same_owner,
    same_region,
    token_owner,
)
from ttm.models.token_packing import pack_tokens


def read_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + log M) v in float64, one query and one key at a time; no key gives zeros."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for b in range(q.shape[0]):
        for head in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = [j for j in range(k.shape[2]) if mask[b, i, j]]
                scores = [float(q[b, head, i].double() @ k[b, head, j].double()) / math.sqrt(q.shape[-1]) for j in seen]
                weights = [math.exp(score - max(scores)) for score in scores]
                for weight, j in zip(weights, seen, strict=True):
                    out[b, head, i] += weight / sum(weights) * v[b, head, j].double()
    return out


def qkv(batch: int, tokens: int, keys: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys = tokens if keys is None else keys
    q, k, v = (torch.randn(batch, 2, n, 8, generator=generator) for n in (tokens, keys, keys))
    return q, k, v


def owners(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    owner = torch.randint(0, 4, (3, 24), generator=generator)
    if kind == "empty objects":
        owner[owner == 2] = 0
        owner[1] = 3
    elif kind == "one-token objects":
        owner[:] = 0
        owner[0, 5], owner[1, 0], owner[2, 23] = 1, 2, 3
    elif kind == "all background":
        owner[:] = 0
    elif kind == "every token alone":
        owner = torch.arange(24).expand(3, 24).contiguous()
    return owner


KINDS = ["random", "empty objects", "one-token objects", "all background", "every token alone"]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_and_dense_are_equation_3(kind: str) -> None:
    (q, k, v), owner = qkv(3, 24), owners(kind)
    mask = torch.tensor([[[int(a) == int(b) for b in row] for a in row] for row in owner])
    expected = read_out(q, k, v, mask)
    packed = masked_self_attention(q, k, v, owner, dense_up_to=0)
    torch.testing.assert_close(packed.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(masked_self_attention(q, k, v, owner).double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(masked_self_attention_dense(q, k, v, mask).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_packed_equals_dense_at_the_size_of_a_clip(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(0, 1 + 3 * seed, (2, 700), generator=generator)
    q, k, v = qkv(2, 700, seed=seed)
    dense = masked_self_attention_dense(q, k, v, same_owner(owner))
    assert (masked_self_attention(q, k, v, owner) - dense).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_packed_and_dense_have_equal_gradients(kind: str) -> None:
    gradients = []
    for dense_up_to in (0, 10_000):
        q, k, v = (x.requires_grad_() for x in qkv(3, 24))
        out = masked_self_attention(q, k, v, owners(kind), dense_up_to=dense_up_to)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        gradients.append((q.grad, k.grad, v.grad))
    for packed, dense in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, dense, atol=1e-5, rtol=1e-4)


def test_packing_describes_the_segments() -> None:
    packing = pack_tokens(torch.tensor([[2, 0, 2, 0, 2], [1, 1, 1, 1, 0]]))
    assert packing.lengths == (2, 3, 1, 4)
    assert packing.offsets.tolist() == [0, 2, 5, 6, 10]
    assert packing.order.tolist() == [1, 3, 0, 2, 4, 9, 5, 6, 7, 8]
    assert packing.order[packing.inverse].tolist() == list(range(10))


def test_a_variable_length_kernel_is_fed_as_its_interface_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the GPU's kernel: [tokens, heads, D], int32 offsets, and the longest segment."""
    calls = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> Tensor:
        calls.append((cu_q.dtype, max_q, max_k))
        out = torch.empty_like(q)
        for begin, end in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), strict=True):
            part = (x[None, :, begin:end] for x in (q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)))
            mask = torch.ones(1, end - begin, end - begin, dtype=torch.bool)
            out[begin:end] = read_out(*part, mask)[0].transpose(0, 1).to(q)
        return out

    (q, k, v), owner = qkv(3, 24), owners("random")
    dense = masked_self_attention(q, k, v, owner)
    monkeypatch.setattr(token_packing, "_varlen_kernel", lambda value: kernel)
    packed = masked_self_attention(q, k, v, owner, dense_up_to=0)
    torch.testing.assert_close(packed, dense, atol=1e-5, rtol=0)
    assert calls == [(torch.int32, max(pack_tokens(owner).lengths), max(pack_tokens(owner).lengths))]


def test_a_token_is_blind_to_what_others_own() -> None:
    q, k, v = qkv(1, 6)
    owner = torch.tensor([[0, 1, 0, 1, 2, 2]])
    before = masked_self_attention(q, k, v, owner, dense_up_to=0)
    k[:, :, [1, 3]], v[:, :, [1, 3]] = 5.0, -7.0
    after = masked_self_attention(q, k, v, owner, dense_up_to=0)
    assert torch.equal(before[:, :, [0, 2, 4, 5]], after[:, :, [0, 2, 4, 5]])
    assert not torch.equal(before[:, :, [1, 3]], after[:, :, [1, 3]])


def test_cross_attention_is_equations_1_and_2() -> None:
    generator = torch.Generator().manual_seed(2)
    occupancy = torch.rand(2, 10, 3, generator=generator) > 0.5
    occupancy[0, 0] = False
    words = torch.rand(2, 3, 5, generator=generator) > 0.3
    words[1, 2] = False  # a prompt of padding alone
    occupancy[1, 4] = torch.tensor([False, False, True])
    q, k, v = qkv(2, 10, 15)
    mask = torch.zeros(2, 10, 15, dtype=torch.bool)
    for b in range(2):
        for n in range(10):
            for place in range(15):
                mask[b, n, place] = occupancy[b, n, place // 5] and words[b, place // 5, place % 5]
    out, has_key = masked_cross_attention(q, k, v, occupancy, words)
    torch.testing.assert_close(out.double(), read_out(q, k, v, mask), atol=1e-5, rtol=0)
    assert torch.equal(has_key, mask.any(-1)) and not has_key[0, 0] and not has_key[1, 4]
    assert out[0, :, 0].eq(0).all() and out[1, :, 4].eq(0).all()


def test_a_prompt_touches_its_own_objects_tokens_alone() -> None:
    occupancy = torch.tensor([[[1, 0], [0, 1], [1, 1], [0, 0]]], dtype=torch.bool)
    words = torch.ones(1, 2, 4, dtype=torch.bool)
    q, k, v = qkv(1, 4, 8)
    before, _ = masked_cross_attention(q, k, v, occupancy, words)
    k[:, :, :4], v[:, :, :4] = 3.0, 9.0
    after, _ = masked_cross_attention(q, k, v, occupancy, words)
    changed = (before != after).any(dim=-1).any(dim=1)[0]
    assert changed.tolist() == [True, False, True, False]


def test_a_row_without_a_key_has_finite_gradients() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(1, 4, 6))
    nothing = torch.zeros(1, 4, 2, dtype=torch.bool)
    out, has_key = masked_cross_attention(q, k, v, nothing, torch.ones(1, 2, 3, dtype=torch.bool))
    out.sum().backward()
    assert not has_key.any() and out.eq(0).all()
    for x in (q, k, v):
        assert x.grad is not None and x.grad.eq(0).all()


def clip(*objects: list[tuple[int, int, int, float]], grid: tuple[int, int, int] = (2, 4, 4)) -> Tensor:
    """Coverage [1, L, T', H', W'] from each object's (t, y, x, share)."""
    coverage = torch.zeros(1, len(objects), *grid)
    for index, places in enumerate(objects):
        for t, y, x, share in places:
            coverage[0, index, t, y, x] = share
    return coverage


def test_occupancy_is_the_set_of_objects_present() -> None:
    coverage = clip([(0, 0, 0, 0.6), (0, 0, 1, 0.2), (0, 0, 2, 0.01)], [(0, 0, 1, 0.3)])
    present = object_token_mask(coverage)
    assert present.shape == (1, 32, 2) and present.dtype == torch.bool
    assert present[0].nonzero().tolist() == [[0, 0], [1, 0], [1, 1]]


def test_an_object_too_small_for_any_token_keeps_one_in_each_frame_it_is_seen_in() -> None:
    coverage = clip([(0, 1, 2, 0.001), (0, 1, 3, 0.002)], grid=(3, 4, 4))
    coverage[0, 0, 2, 0, 0] = 0.004
    present = object_token_mask(coverage).view(3, 4, 4)
    assert present.nonzero().tolist() == [[0, 1, 3], [2, 0, 0]]


def test_a_box_spans_the_objects_tokens_in_each_frame_alone() -> None:
    coverage = clip([(0, 0, 1, 0.9), (0, 2, 2, 0.9), (1, 3, 3, 0.9)])
    box = object_token_mask(coverage, "box").view(2, 4, 4)
    assert box[0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert box[1].nonzero().tolist() == [[3, 3]]


def test_boxes_overlap_and_tokens_in_both_see_both() -> None:
    # Tokens: in A, in A and B, in B, in none, in none.
    occupancy = torch.tensor([[[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]]], dtype=torch.bool)
    assert same_region(occupancy)[0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
    ]


def test_the_largest_coverage_owns_a_token() -> None:
    coverage = clip([(0, 0, 0, 0.6), (0, 0, 1, 0.3), (0, 0, 2, 0.5)], [(0, 0, 0, 0.4), (0, 0, 1, 0.5)])
    owner = token_owner(coverage)
    assert owner.shape == (1, 32) and owner.dtype == torch.int64
    # Object 1; object 2; a tie with the background, which the object wins; background.
    assert owner[0, :4].tolist() == [1, 2, 1, 0] and owner[0, 4:].eq(0).all()


def test_every_visible_object_owns_a_token_and_an_absent_one_none() -> None:
    small = [(1, 2, 2, 0.01)]
    owner = token_owner(clip([(0, 0, 0, 0.02), (1, 1, 1, 0.03)], small, [], [(1, 2, 2, 0.9), (1, 2, 3, 0.8)]))
    assert sorted(owner[0].unique().tolist()) == [0, 1, 2, 4]
    assert (owner[0] == 1).nonzero().tolist() == [[16 + 5]]
    # Object 2's only token is also object 4's, which has another one and gives it up.
    assert (owner[0] == 2).nonzero().tolist() == [[16 + 10]] and (owner[0] == 4).nonzero().tolist() == [[16 + 11]]


def test_two_objects_in_one_token_take_it_and_its_neighbour() -> None:
    owner = token_owner(clip([(1, 2, 2, 0.6)], [(1, 2, 2, 0.1)]))[0].view(2, 4, 4)
    assert (owner == 1).nonzero().tolist() == [[1, 2, 2]]
    (place,) = (owner == 2).nonzero().tolist()
    assert sum(abs(a - b) for a, b in zip(place, (1, 2, 2), strict=True)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_owners_of_random_clips_partition_the_tokens(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coverage = torch.rand(2, 6, 2, 3, 3, generator=generator)
    coverage = coverage * (torch.rand(2, 6, 2, 3, 3, generator=generator) > 0.8) / 6
    owner = token_owner(coverage)
    visible = coverage.flatten(2).amax(-1) > 0
    for sample in range(2):
        found = {int(number) for number in owner[sample].unique()} - {0}
        assert found == {int(index) + 1 for index in visible[sample].nonzero()}


@pytest.mark.parametrize("function", [object_token_mask, token_owner])
def test_coverage_of_another_shape_is_named(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=r"\[2, 4, 4\]; expected float \[B, L"):
        function(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="int64"):
        function(torch.zeros(1, 1, 2, 4, 4, dtype=torch.long))


def test_bad_input_is_named() -> None:
    q, k, v = qkv(1, 4)
    with pytest.raises(ValueError, match=r"\[1, 5\]; expected three times"):
        masked_self_attention(q, k, v, torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="float32"):
        pack_tokens(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="region is 'blob'"):
        object_token_mask(torch.zeros(1, 1, 1, 2, 2), "blob")
    present, words = torch.ones(1, 4, 2, dtype=torch.bool), torch.ones(1, 2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"twice \[1, heads, 6, D\]"):
        masked_cross_attention(q, k, v, present, words)
    with pytest.raises(ValueError, match=r"expected bool \[B, N, L\]"):
        masked_cross_attention(q, k, v, present, words[:, :1])
