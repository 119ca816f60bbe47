"""``python -m benchmarks.full_size``: a host of Wan 2.1 1.3B's size, 81 frames of 480 x 832, on a GPU.

    python -m benchmarks.full_size                                # everything; Markdown
    python -m benchmarks.full_size --output outputs/full_size.md  # the same, also as a file
    python -m benchmarks.full_size --parts inference attention    # only these
    python -m benchmarks.full_size --tiny                         # a tiny model, on the CPU too: proves that it runs

THIS HAS NOT BEEN RUN ON A GPU YET: only ``--tiny``, on a CPU, by its test.

- training: seconds a step and peak memory of stage 2, LoRA (frozen weights in bfloat16) and full (fp32 with averages),
  one clip, bf16 autocast, gradient checkpointing; latents and text given, as from the cache.
- inference: one forward pass in bfloat16, one sample, of diffusers' ``WanTransformer3DModel`` and of the same host with
  K = 10 masked blocks, conditions and two objects with local prompts; the two take turns, each one's least time counts.
  Goal: at most 1.25 times the plain host.
- attention: masked self-attention alone, packed against the dense mask, at the tokens, heads and width of the host
  (:mod:`benchmarks.masked_attention`).
How seconds and memory are taken: :mod:`benchmarks.device_cost`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.utils import logging
from torch import Tensor

from benchmarks.device_cost import command_line, device_to_measure, measured, training_cost, wait
from benchmarks.masked_attention import measure as measure_packing
from stages.settings_loading import load_settings
from ttm.atomic_write import written_beside
from ttm.models.transformer_wan import MaskedWanTransformer3DModel

GOAL = 1.25
"""Most times the plain host's step that a masked host's may take."""
PARTS = ("training", "inference", "attention")
OBJECTS, LOCAL_WORDS = 2, 24


@dataclass(frozen=True)
class Sizes:
    """Of the host and the clip.

    Attributes:
        host: arguments of ``WanTransformer3DModel``.
        masked_blocks: K.
        latents: of one clip, (Z, t, h, w).
        words: places of the global prompt, S.
        label: for people.
    """

    host: dict[str, Any]
    masked_blocks: int
    latents: tuple[int, int, int, int]
    words: int
    label: str

    @property
    def grid(self) -> tuple[int, int, int]:
        """The token grid: a patch is 1 x 2 x 2."""
        return self.latents[1], self.latents[2] // 2, self.latents[3] // 2


FULL = Sizes(
    host={"num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 30, "ffn_dim": 8960},
    masked_blocks=10,
    latents=(16, 21, 60, 104),
    words=512,
    label="Wan 2.1 1.3B's size, random weights; 81 frames of 480 x 832",
)
TINY = Sizes(
    host={
        "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 3, "ffn_dim": 16, "text_dim": 8,
        "freq_dim": 8, "in_channels": 4, "out_channels": 4,
    },
    masked_blocks=2,
    latents=(4, 2, 8, 8),
    words=6,
    label="a tiny model, whose figures mean nothing",
)  # fmt: skip


def training_rows(sizes: Sizes, device: torch.device, steps: int) -> Iterator[str]:
    """Seconds a step and peak memory of LoRA and of full training."""
    yield from ("| training | trained, M parameters | peak GB | s a step |", "| --- | --- | --- | --- |")
    for trainable, weights in (("lora", "bfloat16"), ("all", "float32")):
        words = [f"host.trainable={trainable}", f"memory.weights={weights}", "gradient_checkpointing=true"]
        settings = load_settings(["stage=motion_to_video", "host=wan_1_3b", *words])
        try:
            cost = training_cost(
                lambda: masked_host(sizes, device), lambda dtype: inputs(sizes, device, dtype), settings, device, steps
            )
        except torch.OutOfMemoryError:
            yield f"| {trainable} | - | out of memory | - |"
            continue
        yield f"| {trainable} | {cost.trained / 1e6:.3f} | {_gigabytes(cost.peak)} | {cost.step:.2f} |"


@torch.no_grad()
def inference_rows(sizes: Sizes, device: torch.device, steps: int) -> Iterator[str]:
    """One forward pass of the plain host and of the masked one, in turn."""
    with measured(device) as peak:
        with device:
            plain = WanTransformer3DModel(**sizes.host).to(torch.bfloat16).eval()
        masked = masked_host(sizes, device).to(torch.bfloat16).eval()
        latents, conditions = inputs(sizes, device, torch.bfloat16)
        noisy, timestep = latents.bfloat16(), torch.full((1,), 500.0, device=device)
        text = conditions["encoder_hidden_states"]
        forms: dict[str, Callable[[], Any]] = {
            "plain": lambda: plain(noisy, timestep, text, return_dict=False),
            "masked": lambda: masked(noisy, timestep, return_dict=False, **conditions),
        }
        least = _least_seconds(forms, steps, device)
        ratio = least["masked"] / least["plain"]
        yield from ("| inference, one sample | s a step | to the plain host |", "| --- | --- | --- |")
        yield f"| diffusers' WanTransformer3DModel | {least['plain']:.3f} | 1 |"
        verdict = f"goal {GOAL}: {'reached' if ratio <= GOAL else 'missed'}"
        yield f"| K = {sizes.masked_blocks}, {OBJECTS} objects | {least['masked']:.3f} | {ratio:.2f} ({verdict}) |"
        yield f"\nPeak memory with both hosts on the device: {_gigabytes(peak())} GB."


def attention_rows(sizes: Sizes, device: torch.device, steps: int) -> Iterator[str]:
    """Masked self-attention alone: packed against the dense mask."""
    t, h, w = sizes.grid
    heads, width = sizes.host["num_attention_heads"], sizes.host["attention_head_dim"]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    yield from ("| masked self-attention | s | gain | ideal gain |", "| --- | --- | --- | --- |")
    with measured(device) as peak:
        try:
            found = measure_packing(t * h * w, [0.6, 0.2, 0.12, 0.08], heads, width, dtype, device.type, steps)
        except torch.OutOfMemoryError:
            yield "| dense | out of memory | | |"
            return
        yield f"| dense mask, {found.tokens:,} tokens | {min(found.dense_seconds):.4f} | 1 | |"
        yield f"| packed | {min(found.packed_seconds):.4f} | {found.gain:.2f} | {found.ideal_gain:.2f} |"
        yield f"\nLargest difference {found.largest_difference:.1e}; peak memory {_gigabytes(peak())} GB."


def masked_host(sizes: Sizes, device: torch.device) -> Any:
    """The host with conditions and masked blocks, of random weights."""
    with device:
        return MaskedWanTransformer3DModel(
            **sizes.host, condition_channels=2 * sizes.latents[0], num_masked_blocks=sizes.masked_blocks
        )


def inputs(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """One clip's latents, and image, trajectory and texts of a host's call, at random; each object in a part of it."""
    latents = torch.randn(1, *sizes.latents, device=device)
    t, h, w = sizes.grid
    coverage = torch.zeros(1, OBJECTS, t, h, w, device=device)
    coverage[:, 0, :, : h // 2, : w // 3] = 1
    coverage[:, 1, :, h // 2 :, w // 2 :] = 1
    words, width = min(LOCAL_WORDS, sizes.words), sizes.host.get("text_dim", 4096)
    said = torch.zeros(1, OBJECTS, sizes.words, dtype=torch.bool, device=device)
    said[:, :, :words] = True
    return latents, {
        "encoder_hidden_states": torch.randn(1, sizes.words, width, device=device, dtype=dtype),
        "condition_latents": torch.cat([latents, latents], dim=1).to(dtype),
        "object_coverage": coverage,
        "local_encoder_hidden_states": torch.randn(1, OBJECTS, sizes.words, width, device=device, dtype=dtype),
        "local_attention_mask": said,
    }


def _least_seconds(forms: dict[str, Callable[[], Any]], steps: int, device: torch.device) -> dict[str, float]:
    """Each form's least time, of ``steps`` turns after one that warms up."""
    least = dict.fromkeys(forms, float("inf"))
    for turn in range(1 + steps):
        for name, form in forms.items():
            wait(device)
            begin = time.perf_counter()
            form()
            wait(device)
            if turn:
                least[name] = min(least[name], time.perf_counter() - begin)
    return least


def _gigabytes(peak: float | None) -> str:
    return "not told" if peak is None else f"{peak:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the head of this file."""
    parser = command_line("benchmarks.full_size", __doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which (default: all)")
    given = parser.parse_args(arguments)
    device = device_to_measure("benchmarks.full_size", parser, given)
    if device is None:
        return 1
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # rms_norm under autocast
    sizes = TINY if given.tiny else FULL
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [f"{name}; {sizes.label}; torch {torch.__version__}."]
    print(lines[0], flush=True)
    measures = {"training": training_rows, "inference": inference_rows, "attention": attention_rows}
    for part in given.parts:
        for line in ("", *measures[part](sizes, device, given.steps)):
            lines.append(line)
            print(line, flush=True)
        if given.output is not None:
            with written_beside(given.output) as beside:
                beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
