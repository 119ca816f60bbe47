"""``python -m benchmarks.memory``: memory and seconds a step of the presets in ``configs/memory``, on a CUDA device.

    python -m benchmarks.memory                                      # every preset; a Markdown table
    python -m benchmarks.memory --presets 12gb 8gb --cap             # no more memory than the preset's card has
    python -m benchmarks.memory --output outputs/memory.md           # the table as a file too, grown row by row
    python -m benchmarks.memory --tiny                               # a tiny model, on the CPU too: proves that it runs

The model is a ``MaskedUNetMotionModel`` of Stable Diffusion 1.4's size with AnimateDiff's motion modules and the
paper's six masked blocks, of random weights (they need as much as trained ones). One clip of 16 frames of 320 x 512,
two objects. Training: what ``stages.trainer`` does in a step (bf16 autocast, clipping, optimiser, average of the
weights), latents and text given, as from the cache. Inference: text encoder, steps of the U-Net for two-scale guidance
(three samples), and decoding, in bfloat16. How both are measured: :mod:`benchmarks.device_cost`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.device_cost import Cost, command_line, device_to_measure, measured, timed, training_cost, wait
from stages.optimization import check_optimizer
from stages.settings import Settings
from stages.settings_loading import CONFIG_DIR, load_settings
from ttm.atomic_write import written_beside
from ttm.models.unet_motion import MaskedUNetMotionModel

CONTEXT_GB = 0.5
"""What CUDA itself takes of a card, about."""
OBJECTS, WORDS, GUIDANCE_SAMPLES = 2, 77, 3
HEAD = (
    "| preset | trained, M parameters | training: peak GB | s a step | inference: peak GB | s a step | s decoding |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Sizes:
    """Of the models and the clip.

    Attributes:
        unet, vae, text: arguments of the classes.
        clip: frames, height, width; pixels.
    """

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    clip: tuple[int, int, int]


_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
_SWITCHES = {"condition_channels": 8, "masked_self": True, "masked_cross": True}
STABLE_DIFFUSION = Sizes(
    unet={"cross_attention_dim": 768, "num_masked_blocks": 6, **_SWITCHES},
    vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512, **_VAE},
    text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    clip=(16, 320, 512),
)
TINY = Sizes(
    unet={
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 8,
        "num_attention_heads": 2,
        "motion_num_attention_heads": 2,
        "num_masked_blocks": 1,
        **_SWITCHES,
    },
    vae={"block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2, "layers_per_block": 1, **_VAE},
    text={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    clip=(3, 32, 48),
)


def _training_cost(settings: Settings, sizes: Sizes, device: torch.device, steps: int) -> Cost:
    def inputs(dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
        return _latents(sizes, 1, device), _conditions(sizes, 1, device, dtype)

    return training_cost(lambda: _unet(sizes, device), inputs, settings, device, steps)


@torch.no_grad()
def inference_cost(settings: Settings, sizes: Sizes, device: torch.device, steps: int) -> Cost:
    """A video in ``1 + steps`` steps, from text to pixels."""
    memory, dtype = settings.memory, torch.bfloat16
    with measured(device) as peak:
        home = torch.device("cpu") if memory.offload else device
        text_encoder = CLIPTextModel(CLIPTextConfig(**sizes.text)).to(home, dtype).eval()
        vae = AutoencoderKL(**sizes.vae).to(home, dtype).eval()
        model = _unet(sizes, home).to(dtype).eval()
        if memory.vae_slicing:
            vae.enable_slicing()
        if memory.vae_tiling:
            vae.enable_tiling()
        with _at_work(text_encoder, device, home):
            text_encoder(torch.zeros(1 + OBJECTS, WORDS, dtype=torch.long, device=device))
        latents = _latents(sizes, GUIDANCE_SAMPLES, device).to(dtype)
        conditions = _conditions(sizes, GUIDANCE_SAMPLES, device, dtype)
        timesteps = torch.full((GUIDANCE_SAMPLES,), 500, device=device)
        with _at_work(model, device, home):
            seconds = timed(lambda index: model(latents, timesteps, return_dict=False, **conditions), steps, device)
        images = latents[0].transpose(0, 1).contiguous()
        with _at_work(vae, device, home):
            begin = time.perf_counter()
            torch.cat([vae.decode(image[None]).sample for image in images] if memory.vae_slicing else [
                vae.decode(images).sample
            ])  # fmt: skip
            wait(device)
        return Cost(peak(), seconds, decoding=time.perf_counter() - begin)


def preset_settings(name: str, tiny: bool) -> Settings:
    """The settings of a training of stage 2 with a preset; on a CPU, which has no 8-bit AdamW, with torch's."""
    words = ["stage=motion_to_video", f"memory={name}", "objective=v_prediction"]
    if tiny and not torch.cuda.is_available():
        words.append("optimizer.name=adamw")
    return load_settings(words)


def row(name: str, sizes: Sizes, device: torch.device, steps: int, tiny: bool, cap: bool) -> str:
    """Measure a preset: one line of the table."""
    settings = preset_settings(name, tiny)
    if cap and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (_room(name) - CONTEXT_GB) * 1e9 / total), device)
    cells = []
    for measure in (_training_cost, inference_cost):
        try:
            cost = measure(settings, sizes, device, steps)
        except torch.OutOfMemoryError:
            cells += ["out of memory"] + ["-"] * (2 if measure is inference_cost else 1)
            continue
        if measure is _training_cost:
            cells.append(f"{cost.trained / 1e6:.1f}")
        cells += ["not told" if cost.peak is None else f"{cost.peak:.1f}", f"{cost.step:.2f}"]
        if measure is inference_cost:
            cells.append(f"{cost.decoding:.2f}")
    if len(cells) == 5:  # training ran out before it had counted
        cells.insert(0, "-")
    return f"| {name} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the head of this file."""
    cards = sorted((path.stem for path in (CONFIG_DIR / "memory").glob("*gb.yaml")), key=_room, reverse=True)
    presets = ["none", *cards]  # those that share a model out are for several devices
    parser = command_line("benchmarks.memory", __doc__.split("\n")[0])
    parser.add_argument("--presets", nargs="+", choices=presets, default=presets, help="which (default: all)")
    parser.add_argument("--cap", action="store_true", help="use no more memory than the preset's card has")
    given = parser.parse_args(arguments)
    device = device_to_measure("benchmarks.memory", parser, given)
    if device is None:
        return 1
    for preset in given.presets:
        check_optimizer(preset_settings(preset, given.tiny).optimizer.name)
    logging.set_verbosity_error()
    sizes = TINY if given.tiny else STABLE_DIFFUSION
    frames, height, width = sizes.clip
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    size = "a tiny model, whose figures mean nothing" if given.tiny else "Stable Diffusion 1.4's size, random weights"
    lines = [f"{name}; {size}; {frames} frames of {height} x {width}; torch {torch.__version__}.", "", *HEAD]
    print("\n".join(lines), flush=True)
    for preset in given.presets:
        lines.append(row(preset, sizes, device, given.steps, given.tiny, given.cap))
        print(lines[-1], flush=True)
        if given.output is not None:
            with written_beside(given.output) as beside:
                beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _room(preset: str) -> float:
    """Gigabytes of a preset's card."""
    return float(preset.removesuffix("gb")) if preset.endswith("gb") else float("inf")


def _unet(sizes: Sizes, device: torch.device) -> Any:
    with device:
        return MaskedUNetMotionModel(**sizes.unet)


def _latents(sizes: Sizes, batch: int, device: torch.device) -> Tensor:
    frames, height, width = sizes.clip
    return torch.randn(batch, 4, frames, height // 8, width // 8, device=device)


def _conditions(sizes: Sizes, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Image, trajectory and text of a host's call, at random; two objects, each in a part of every frame."""
    latents, width = _latents(sizes, batch, device), sizes.text["hidden_size"]
    coverage = torch.zeros(batch, OBJECTS, *latents.shape[2:], device=device, dtype=dtype)
    coverage[:, 0, :, : latents.shape[3] // 2, : latents.shape[4] // 3] = 1
    coverage[:, 1, :, latents.shape[3] // 2 :, latents.shape[4] // 2 :] = 1
    return {
        "encoder_hidden_states": torch.randn(batch, WORDS, width, device=device, dtype=dtype),
        "condition_latents": torch.cat([latents, latents], dim=1).to(dtype),
        "object_coverage": coverage,
        "local_encoder_hidden_states": torch.randn(batch, OBJECTS, WORDS, width, device=device, dtype=dtype),
        "local_attention_mask": torch.ones(batch, OBJECTS, WORDS, dtype=torch.bool, device=device),
    }


@contextmanager
def _at_work(module: Any, device: torch.device, home: torch.device) -> Iterator[None]:
    """A part on the device for the time of its work."""
    module.to(device)
    yield
    module.to(home)


if __name__ == "__main__":
    raise SystemExit(main())
