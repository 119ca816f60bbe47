from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from stages.attention_kernel import attention_kernel, matmul_attention


@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_equals_sdpa_forward_and_backward(masked: str | None) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, n, 8, dtype=torch.float64, requires_grad=True) for n in (7, 5, 5)]
    mask = None
    if masked:
        mask = torch.rand(2, 1, 7, 5) > 0.4
        mask[..., 0] = True
        mask = mask if masked == "bool" else torch.where(mask, 0.3, float("-inf")).double()
    outputs = []
    for context in (matmul_attention(), torch.enable_grad()):
        with context:
            out = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        outputs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for mine, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_other_kinds_of_attention_are_left_alone() -> None:
    q = torch.randn(1, 2, 6, 8)
    expected = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    with matmul_attention():
        torch.testing.assert_close(F.scaled_dot_product_attention(q, q, q, is_causal=True), expected)
        torch.testing.assert_close(
            F.scaled_dot_product_attention(q, q, q, scale=0.5), F.scaled_dot_product_attention(q * 0.5 * 8**0.5, q, q)
        )


def test_checkpointed_forward_is_repeated_by_the_same_kernel() -> None:
    q = torch.randn(1, 2, 6, 8, requires_grad=True)
    expected = torch.autograd.grad(F.scaled_dot_product_attention(q, q, q).square().sum(), q)[0]
    for weight in (None, torch.tensor(1.0)):
        q.grad = None
        with matmul_attention():
            out = checkpoint(lambda x: F.scaled_dot_product_attention(x, x, x), q, use_reentrant=False)
            out.square().sum().backward(weight)
        torch.testing.assert_close(q.grad, expected)


def test_auto_chooses_matmul_only_on_a_cpu_in_bf16() -> None:
    cpu, cuda, own = torch.device("cpu"), torch.device("cuda"), F.scaled_dot_product_attention
    cases = {("auto", cpu, "bf16"): True, ("auto", cpu, "no"): False, ("auto", cuda, "bf16"): False}
    for case, replaced in {**cases, ("matmul", cuda, "no"): True, ("sdpa", cpu, "bf16"): False}.items():
        with attention_kernel(*case):
            assert (F.scaled_dot_product_attention is not own) == replaced
        assert F.scaled_dot_product_attention is own
