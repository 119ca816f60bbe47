from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stages.attention_kernel import MatmulAttention, attention_kernel


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
    for context in (MatmulAttention(), torch.enable_grad()):
        with context:
            out = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        outputs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for mine, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_other_kinds_of_attention_are_left_alone() -> None:
    q = torch.randn(1, 2, 6, 8)
    expected = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    with MatmulAttention():
        torch.testing.assert_close(F.scaled_dot_product_attention(q, q, q, is_causal=True), expected)
        torch.testing.assert_close(
            F.scaled_dot_product_attention(q, q, q, scale=0.5), F.scaled_dot_product_attention(q * 0.5 * 8**0.5, q, q)
        )


def test_auto_chooses_matmul_only_on_a_cpu_in_bf16() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    chosen = [attention_kernel("auto", *case) for case in ((cpu, "bf16"), (cpu, "no"), (cuda, "bf16"))]
    assert [isinstance(item, MatmulAttention) for item in chosen] == [True, False, False]
    assert isinstance(attention_kernel("matmul", cuda, "no"), MatmulAttention)
