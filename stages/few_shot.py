"""Teach a motion from 5 to 8 clips to Stable Diffusion (the few-shot paper, arXiv 2503.18386).

    python -m stages.few_shot CLIPS --base ttm-tiny-unet -o runs/dog
    python -m stages.few_shot CLIPS --base stable-diffusion-v1-5/stable-diffusion-v1-5 \\
        --motion-adapter guoyww/animatediff-motion-adapter-v1-5-2 --controlnet lllyasviel/sd-controlnet-scribble \\
        --control-picture silhouette memory=12gb
    ttm generate --few-shot runs/dog "a white dog runs" --trajectory masks.npz -o out

CLIPS is a folder of videos; what else may lie in it (masks, prompts.yaml) stands in ttm/data/clip_folder.py. Other
settings are ``key=value``, as of ``stages.train``: max_steps, optimizer.lr, data.num_frames, data.clips.height,
memory=8gb, …; their values are in configs/few_shot.yaml and what it names, for an embedded base in
configs/few_shot_embedded.yaml.

The same command again goes on from the last checkpoint. It ends with few_shot.json and few_shot.safetensors in the
output folder: only what was trained, which are the new layers, the motion modules and all self- and cross-attention,
or with --lora RANK the new layers and low-rank matrices beside the attentions.

Why AnimateDiff's motion modules and not LAMP's temporal convolutions: the host has them, and public weights for them
exist that have seen millions of clips, so that a handful need only say which motion, not what motion is; LAMP's begin
at zero and take it 30,000 steps. The price: a window is at most as long as the modules' positions (32 frames).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stages.few_shot_task import FewShot, NamedSegmenter
from stages.memory import prepare_model, prepare_vae
from stages.objectives import build_objective
from stages.same_run import expect_same_base, expect_same_clips
from stages.settings import Settings
from stages.settings_check import check_settings
from stages.settings_loading import load_settings
from stages.text_table import TextTable
from stages.train import check_run, start_accelerator
from stages.trainer import Finished, Trainer
from ttm.data.clip_folder import Clip, clip_names, read_clip_folder
from ttm.motion.control_picture import CONTROL_PICTURES
from ttm.pipelines.autoencoders import LatentFormat
from ttm.pipelines.embedded import embedded_folder
from ttm.pipelines.few_shot_base import Base, host_sizes
from ttm.pipelines.few_shot_folder import FewShotRecord, write_few_shot
from ttm.pipelines.inputs import check_size

SWITCHES = (
    "first_frame_attention", "mask_cross_attention", "num_masked_blocks", "masked_self", "masked_cross", "region",
)  # fmt: skip
NOISE = ("beta_schedule", "beta_start", "beta_end")
OPTIONS = {
    "data.clips.folder": "CLIPS",
    "host.pipeline": "--base",
    "host.init_from": "--base",
    "host.motion_adapter": "--motion-adapter",
    "host.controlnet": "--controlnet",
}
"""Settings that options of the command line decide."""


def run(settings: Settings, clips: Sequence[Clip] | None = None) -> Finished:
    """Train as the settings say, and write what was trained.

    Args:
        settings: of the run.
        clips: the windows to train on; None: read ``data.clips.folder``.

    Raises:
        ValueError: settings, clips or weights that don't fit.
        OSError: a folder that can't be written.
    """
    began = time.monotonic()
    if clips is None:
        clip_names(Path(settings.data.clips.folder))  # before a folder is made, or a base fetched
    accelerator = start_accelerator(settings)
    check_run(settings, accelerator.num_processes)
    host = settings.host
    base = Base(str(_lasting(host.pipeline)), _lasting(host.motion_adapter), _lasting(host.controlnet))
    expect_same_base(settings, base)
    switches = {name: getattr(host, name) for name in SWITCHES}
    torch.manual_seed(settings.seed)  # what the weights do not hold begins at random
    parts = base.components(**switches)
    unet = parts["unet"]
    sizes = host_sizes(unet)
    _check_window(settings, parts)
    _check_low_rank(settings, unet)
    folder = Path(settings.data.clips.folder) if clips is None else None
    if clips is None:
        clips = _read_clips(settings, accelerator.device)
    expect_same_clips(settings, clips, folder)
    task = _build_task(settings, parts, clips, accelerator.device)
    del parts
    prepare_model(unet, settings)
    objective = build_objective(settings.objective)
    trainer = Trainer(settings, accelerator, unet, task, objective, began=began)
    finished = trainer.train()
    if accelerator.is_main_process:
        dtype = getattr(torch, settings.export_dtype)
        with trainer.averaged() as averaged:
            # Copies: a view would be the weights themselves again once the average is taken away.
            trained = ((name, p) for name, p in averaged.named_parameters() if p.requires_grad)
            weights = {name: p.detach().to(dtype, copy=True) for name, p in trained}
        record = _record(settings, base, switches, sizes, clips, finished)
        write_few_shot(Path(settings.output_dir), weights, record)
        end = "complete" if finished.complete else "stopped; the same command goes on"
        print(f"{settings.output_dir}: what was trained, after {finished.step} steps ({end})", flush=True)
    accelerator.end_training()
    return finished


def _read_clips(settings: Settings, device: torch.device) -> Sequence[Clip]:
    told = settings.data.clips
    tracker = NamedSegmenter(told.segmenter, device)
    return read_clip_folder(told.folder, settings.data.num_frames, told.fps, (told.height, told.width), tracker)


def _lasting(name: str | None) -> str | None:
    """A folder by its whole path, so that what was trained finds its base from anywhere."""
    if name is None or embedded_folder(name) is not None or not os.path.isdir(name):
        return name
    return str(Path(name).resolve())


def _check_window(settings: Settings, parts: dict[str, Any]) -> None:
    """Resolve and check what the components decide: the size, the length of a window and of a text."""
    space = LatentFormat.of(parts["vae"]).space
    check_size(settings.data.clips.height, settings.data.clips.width, (space, space))
    most = parts["unet"].config.motion_max_seq_length
    if not 2 <= settings.data.num_frames <= most:
        raise ValueError(
            f"data.num_frames is {settings.data.num_frames}; expected 2 to {most}, what the motion modules know."
        )
    places = parts["text_encoder"].config.max_position_embeddings
    settings.host.max_sequence_length = min(settings.host.max_sequence_length, places)


def _check_low_rank(settings: Settings, unet: Any) -> None:
    """LoRA leaves a motion module's last layer as it is; where that is zero, no gradient ever passes it."""
    last = [p for name, p in unet.named_parameters() if "motion_modules" in name and name.endswith("proj_out.weight")]
    if settings.host.trainable == "lora" and not any(bool(p.any()) for p in last):
        raise ValueError(
            f"{settings.host.pipeline} has no motion modules, and low-rank matrices can't teach motion to new ones,"
            " which add nothing; expected --motion-adapter, or training without LoRA (host.trainable=attention)."
        )


def _build_task(settings: Settings, parts: dict[str, Any], clips: Sequence[Clip], device: torch.device) -> FewShot:
    vae, encoder = (parts[name].eval().requires_grad_(False).to(device) for name in ("vae", "text_encoder"))
    prepare_vae(vae, settings)
    length = settings.host.max_sequence_length
    texts = TextTable.build((clip.prompt for clip in clips), parts["tokenizer"], encoder, length)
    return FewShot(clips, vae, texts, settings, parts["unet"].token_patch)


def _record(
    settings: Settings, base: Base, switches: dict[str, Any], sizes: dict[str, Any], clips: Sequence[Clip],
    finished: Finished,
) -> FewShotRecord:  # fmt: skip
    data, host, calls = settings.data, settings.host, asdict(settings.calls)
    if not (host.mask_cross_attention or host.num_masked_blocks):
        calls["image_guidance_scale"] = 1.0  # there are no masks to guide to
    return FewShotRecord(
        base,
        switches,
        sizes,
        host.lora_rank if host.trainable == "lora" else None,
        {name: getattr(settings.objective, name) for name in NOISE},
        {
            "num_frames": data.num_frames,
            "height": data.clips.height,
            "width": data.clips.width,
            "fps": data.clips.fps,
            "max_sequence_length": host.max_sequence_length,
            "control_picture": host.control_picture,
            **calls,
        },
        {
            "clips": sorted({clip.name for clip in clips}),
            "prompts": sorted({clip.prompt for clip in clips}),
            "windows": len(clips),
            "steps": finished.step,
        },
        base.fingerprint(),
    )


def read_arguments(arguments: Sequence[str]) -> Settings:
    """The command line as settings.

    Raises:
        ValueError: settings that are wrong or don't fit together.
    """
    parser = argparse.ArgumentParser(
        prog="python -m stages.few_shot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", metavar="CLIPS", help="a folder of 5 to 8 videos of one motion")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="other settings")
    parser.add_argument("--base", default="ttm-tiny-unet", help="Stable Diffusion 1.x: embedded, a folder or a Hub id")
    parser.add_argument("--motion-adapter", help="AnimateDiff's modules, on linear betas (default: the base's own)")
    parser.add_argument("--controlnet", help="draws first frames (default: the base's controlnet/)")
    parser.add_argument(
        "--control-picture",
        choices=CONTROL_PICTURES,
        help="what the ControlNet is shown: the palette's colours (default), or white on black, for public ones",
    )
    parser.add_argument("--lora", type=int, metavar="RANK", help="train low-rank matrices, not whole attentions")
    parser.add_argument("-o", "--output", help="the folder to write (default: runs/few_shot/ and the name of CLIPS)")
    given = parser.parse_intermixed_args(list(arguments))
    named = {text.split("=", 1)[0].lstrip("+") for text in given.settings}
    if twice := sorted(named & OPTIONS.keys()):
        raise ValueError(f"{twice[0]} is no setting of few-shot training; expected {OPTIONS[twice[0]]}.")
    if given.output is not None and "output_dir" in named:
        raise ValueError("There is an output_dir beside -o; expected one of them.")
    small = embedded_folder(given.base) is not None
    betas = f"objective.beta_schedule={Base(given.base, given.motion_adapter).beta_schedule}"  # a given one comes later
    settings = load_settings([betas, *given.settings], config_name="few_shot_embedded" if small else "few_shot")
    settings.data.clips.folder = given.clips
    host = settings.host
    host.pipeline = host.init_from = given.base
    host.motion_adapter, host.controlnet = given.motion_adapter, given.controlnet
    if given.control_picture is not None:
        host.control_picture = given.control_picture
    if given.lora is not None:
        host.trainable, host.lora_rank = "lora", given.lora
    if given.output is not None:
        settings.output_dir = given.output
    elif "output_dir" not in named:
        settings.output_dir = f"runs/few_shot/{Path(given.clips).resolve().name}"
    check_settings(settings)
    return settings


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the head of this file."""
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # rms_norm under autocast
    try:
        run(read_arguments(sys.argv[1:] if arguments is None else arguments))
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("TTM_TRACEBACK"):
            raise
        raise SystemExit(f"stages.few_shot: {error}") from error


if __name__ == "__main__":
    main()
