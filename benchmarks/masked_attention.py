"""``python -m benchmarks.masked_attention``: what packing saves in masked self-attention, against the dense mask.

    python -m benchmarks.masked_attention                                # 8,192 tokens, fp32, CPU
    python -m benchmarks.masked_attention --output outputs/packing.json  # the same, and the figures as JSON
    python -m benchmarks.masked_attention --device cuda --dtype bfloat16

Tokens split over the background and three objects (60/20/12/8 by default), in random order. Dense is one
scaled_dot_product_attention call with a boolean N x N mask that is there already; packed is the whole call, the
sorting of the tokens included. If attention cost exactly the number of pairs, the gain would be 1 / sum(share^2),
the ideal. The two take turns, and each one's least time counts: what else runs on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ttm.atomic_write import written_beside
from ttm.models.masked_attention import masked_self_attention, masked_self_attention_dense, same_owner

GOAL = 0.7
"""Least share of the ideal gain that packing should reach."""


@dataclass(frozen=True)
class PackingGain:
    """One run: seconds, gains, and what they were measured on."""

    tokens: int
    shares: tuple[float, ...]
    heads: int
    head_dim: int
    dtype: str
    device: str
    threads: int
    torch: str
    machine: str
    dense_seconds: tuple[float, ...]
    packed_seconds: tuple[float, ...]
    largest_difference: float
    ideal_gain: float
    gain: float
    share_of_ideal: float


def split_tokens(num_tokens: int, shares: Sequence[float], seed: int = 0) -> Tensor:
    """Owners [1, N] of a clip whose owner ``k`` has share ``shares[k]`` of the tokens, in random order.

    Raises:
        ValueError: the shares do not sum to 1, or one is not positive.
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"The shares are {list(shares)}; expected positive numbers that sum to 1.")
    bounds = torch.tensor(shares, dtype=torch.float64).cumsum(0)[:-1] * num_tokens
    owner = torch.bucketize(torch.arange(num_tokens, dtype=torch.float64), bounds.round(), right=True)
    return owner[torch.randperm(num_tokens, generator=torch.Generator().manual_seed(seed))][None]


def measure(
    num_tokens: int, shares: Sequence[float], heads: int, head_dim: int, dtype: torch.dtype, device: str, runs: int
) -> PackingGain:
    """Time both forms ``runs`` times in turn, after one call of each."""
    owner = split_tokens(num_tokens, shares).to(device)
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, heads, num_tokens, head_dim, generator=generator).to(device, dtype) for _ in range(3))
    mask = same_owner(owner)
    forms: dict[str, Callable[[], Tensor]] = {
        "dense": lambda: masked_self_attention_dense(q, k, v, mask),
        "packed": lambda: masked_self_attention(q, k, v, owner, dense_up_to=0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    with torch.inference_mode():
        outputs = {name: form() for name, form in forms.items()}
        difference = float((outputs["dense"] - outputs["packed"]).abs().max())
        for _ in range(runs):
            for name, form in forms.items():
                seconds[name].append(_timed(form, device))
    ideal = 1 / sum(share**2 for share in shares)
    gain = min(seconds["dense"]) / min(seconds["packed"])
    return PackingGain(
        tokens=num_tokens,
        shares=tuple(shares),
        heads=heads,
        head_dim=head_dim,
        dtype=str(dtype).removeprefix("torch."),
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        machine=platform.machine(),
        dense_seconds=tuple(seconds["dense"]),
        packed_seconds=tuple(seconds["packed"]),
        largest_difference=difference,
        ideal_gain=ideal,
        gain=gain,
        share_of_ideal=gain / ideal,
    )


def _timed(form: Callable[[], Tensor], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    form()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def format_gain(found: PackingGain) -> str:
    """The figures as lines to print."""
    shares = "/".join(f"{100 * share:g}" for share in found.shares)
    return "\n".join(
        [
            f"masked self-attention, {found.tokens:,} tokens split {shares}, {found.heads} heads x {found.head_dim},"
            f" {found.dtype}, {found.device}, {found.threads} thread(s), torch {found.torch}",
            f"  dense with mask     {1000 * min(found.dense_seconds):9.1f} ms (least of {len(found.dense_seconds)})",
            f"  packed              {1000 * min(found.packed_seconds):9.1f} ms (sorting included)",
            f"  largest difference  {found.largest_difference:9.1e}",
            f"  ideal gain          {found.ideal_gain:9.2f} x",
            f"  gain                {found.gain:9.2f} x",
            f"  share of the ideal  {100 * found.share_of_ideal:9.0f} % (goal {100 * GOAL:.0f} %:"
            f" {'reached' if found.share_of_ideal >= GOAL else 'missed'})",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON if asked to; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masked_attention", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.6, 0.2, 0.12, 0.08], help="background first")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the figures to this file as JSON")
    chosen = parser.parse_args(arguments)
    if min(chosen.tokens, chosen.heads, chosen.head_dim, chosen.runs) < 1:
        parser.error("--tokens, --heads, --head-dim and --runs must be at least 1")
    try:
        split_tokens(chosen.tokens, chosen.shares)
    except ValueError as error:
        parser.error(str(error))
    sizes = (chosen.tokens, chosen.shares, chosen.heads, chosen.head_dim)
    found = measure(*sizes, getattr(torch, chosen.dtype), chosen.device, chosen.runs)
    print(format_gain(found))
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(chosen.output) as path:
            path.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
