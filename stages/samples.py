"""Videos of a model in training, drawn by the pipelines that users call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.host import image_parts, load_text, load_vae
from stages.memory import decode_in_tiles, prepare_vae
from stages.objectives import build_objective
from stages.settings import Settings
from stages.text_table import TextTable, texts_of
from stages.trainer import Sampler
from stages.validation import Drawn, ValidationClip, motion_scores, validation_clips, video_scores
from ttm.motion.representation import motion_representation
from ttm.pipelines.image_to_motion import ImageToMotionPipeline
from ttm.pipelines.motion_to_video import MotionToVideoPipeline


def build_sampler(settings: Settings, device: torch.device) -> Sampler:
    """A function that draws ``sample_scenes`` validation clips with a model, and scores them.

    Several processes draw equally many each, since those that share a model have to run it together; what is drawn
    twice for that is left out. The clips' texts are embedded here, once, and the text encoder goes; the autoencoder
    waits in the CPU's memory between the calls.

    Clips and starting noise are the same at every call, so that TensorBoard's slider shows one video improving.
    Guidance is left out (scale 1): it shows what the model learned, and costs one pass a step.
    """
    vae = load_vae(settings.host.pipeline, device)
    prepare_vae(vae, settings)
    if settings.memory.vae_tiling:
        decode_in_tiles(vae)
    scenes = validation_clips(settings, vae)
    vae.to("cpu")
    tokenizer, text_encoder, texts = _embedded(settings, scenes, device)
    first = settings.stage.name == "image_to_motion"
    images: dict[str, Any] = {}
    draw = _draw_motion if first else _draw_video
    kind = ImageToMotionPipeline if first else MotionToVideoPipeline

    def sample(model: nn.Module, index: int, count: int) -> dict[int, Drawn]:
        scheduler = build_objective(settings.objective).scheduler()
        length = settings.host.max_sequence_length
        told: dict[str, Any] = {"max_sequence_length": length, "motion": settings.motion.name}
        if not images:  # of a host with an image embedder: opened once
            images.update(image_parts(model, settings.host.pipeline, device))
        needed = [part for part in (vae, images.get("image_encoder")) if part is not None]
        for part in needed:
            part.to(device)
        pipe: Any = kind(vae, tokenizer, text_encoder, model, scheduler, **told, **images)
        pipe._encode_text = texts.lookup
        pipe.set_progress_bar_config(disable=True)
        drawn = {}
        for place in range(index, -(-len(scenes) // count) * count, count):
            number = place % len(scenes)
            scene = scenes[number]
            arguments = {
                "height": scene.moves.height,
                "width": scene.moves.width,
                "num_inference_steps": settings.sample_steps,
                "guidance_scale": 1.0,
                "image_guidance_scale": 1.0,
                "generator": torch.Generator().manual_seed(number),
            }
            if number == place:
                drawn[number] = draw(pipe, scene, arguments)
            else:
                draw(pipe, scene, arguments)
        for part in needed:
            part.to("cpu")
        return drawn

    return sample


def _embedded(
    settings: Settings, scenes: Sequence[ValidationClip], device: torch.device
) -> tuple[Any, nn.Module, TextTable]:
    """The tokenizer, the text encoder without its weights, and what it said to the clips.

    A large encoder and a model in training are too much for one card. What is left of it tells the pipelines its
    configuration and its device.
    """
    dtype, length = getattr(torch, settings.memory.weights), settings.host.max_sequence_length
    tokenizer, text_encoder = load_text(settings.host.pipeline, device, dtype)
    motion = motion_representation(settings.motion.name)
    plans = (motion.seen(scene.moves, scene.plan)[1] for scene in scenes)
    texts = TextTable.build(texts_of(plans, settings.stage.name), tokenizer, text_encoder, length)
    for parameter in text_encoder.parameters():
        parameter.data = parameter.new_empty(0)
    return tokenizer, text_encoder, texts


def _draw_motion(pipe: Any, clip: ValidationClip, arguments: dict[str, Any]) -> Drawn:
    moves = clip.moves
    out = pipe(clip.frames[0], clip.plan, moves.ids[0], num_frames=moves.num_frames, **arguments)
    true = motion_representation(pipe.config.motion).to_video(moves)
    return Drawn(out.frames, true, motion_scores(out.trajectory, moves))


def _draw_video(pipe: Any, clip: ValidationClip, arguments: dict[str, Any]) -> Drawn:
    out = pipe(clip.frames[0], clip.plan, clip.moves, output_type="np", **arguments)
    made = np.asarray(out.frames[0])
    made = (made * 255).round().astype(np.uint8) if made.dtype != np.uint8 else made
    return Drawn(made, clip.frames, video_scores(made, clip))
